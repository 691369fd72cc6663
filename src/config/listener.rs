//! The client's side: listening, TLS, the limits of connections, origins, forwarded addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::acme;
use super::cidr::Cidr;
use super::codec::{self, AutoOr, BOOLEAN, Bounded, Codec, DURATION, OffOr, OneOf, SIZE, Scalar, Whole};
use super::forwarded::Forwarded;
use super::origins::OriginPolicy;
use super::parse::{Given, Problem, Read, Words, duration, one_of, or_table};
use super::parse_names::{CIDR, HEADER_NAME, ORIGIN, SNI};
use super::reader::{KeyValue, Table};
use super::schema::{Visitor, decode, encode_all, list_schema};
use super::settings::{
    ClientAuth, ConnectionLimit, EdgeLimits, Http2, Listen, ProxyProtocol, SessionLimits, SniCertificate, TlsMode,
    TlsSettings,
};
use super::tls_files::{self, TlsFault};
use super::value_types::{ADDRESS, FILE, HEADER_BYTES, Workers};

/// The words of `tls.client_auth.mode`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ClientAuthMode {
    Off,
    Optional,
    Required,
}

const TERMINATES: Words<bool> = &[("terminate", true), ("off", false)];
const OFF: Words<()> = &[("off", ())];
const CLIENT_AUTH: Words<ClientAuthMode> =
    &[("off", ClientAuthMode::Off), ("optional", ClientAuthMode::Optional), ("required", ClientAuthMode::Required)];

const HTTP2: Words<Http2> = &[
    (Http2::On.as_str(), Http2::On),
    (Http2::NoWebSockets.as_str(), Http2::NoWebSockets),
    (Http2::Off.as_str(), Http2::Off),
];

/// The limit of all client connections.
const CONNECTIONS: Scalar<ConnectionLimit> = Scalar {
    decode: |given| {
        let read = AutoOr(Bounded(MOST_CONNECTIONS)).decode(given)?;
        Ok(read.map_or(ConnectionLimit::Auto, |most| most.map_or(ConnectionLimit::Off, ConnectionLimit::AtMost)))
    },
    encode: |limit| match limit {
        ConnectionLimit::Auto => "auto".into(),
        ConnectionLimit::AtMost(most) => codec::number(*most).into(),
        ConnectionLimit::Off => "off".into(),
    },
    schema: || AutoOr(Bounded(MOST_CONNECTIONS)).schema(),
};

/// The time for which a browser uses https only: whole seconds.
const MAX_AGE: Scalar<Duration> =
    Scalar { decode: max_age, encode: |age| codec::span(*age).into(), schema: codec::duration_schema };

/// More than any machine has memory for.
const MOST_CONNECTIONS: usize = 100_000_000;
/// More than any client does in a second.
const MOST_A_SECOND: u32 = 1_000_000;

/// Visits `[listen]`.
pub(super) fn visit_listen(v: &mut Visitor<'_>, listen: &mut Listen) {
    v.at_start("address", &ADDRESS, &mut listen.address);
    v.at_start("workers", &Workers, &mut listen.workers);
    visit_proxy_protocol(v, &mut listen.proxy_protocol);
    v.at_start("redirect", &OffOr(ADDRESS), &mut listen.redirect);
    v.key("http2", &OneOf(HTTP2), &mut listen.http2);
}

/// Visits `[tls]`, for a listing or a description. Without TLS no other key is listed.
pub(super) fn visit_tls(v: &mut Visitor<'_>, mode: &mut TlsMode) {
    visit_tls_mode(v, &mut mode.terminate().is_some());
    if let TlsMode::Terminate(tls) = mode {
        if tls.acme.is_none() {
            visit_server_certificate(v, tls);
        }
        acme::visit_of(v, tls.acme.as_deref());
        visit_handshake(v, tls);
    }
}

/// Visits `mode`: whether TLS is terminated here.
fn visit_tls_mode(v: &mut Visitor<'_>, terminates: &mut bool) {
    v.at_start("mode", &OneOf(TERMINATES), terminates);
}

/// Visits the certificate for all names. Returns whether it can be used.
fn visit_server_certificate(v: &mut Visitor<'_>, tls: &mut TlsSettings) -> bool {
    let chain = "the PEM file of the server's certificate chain";
    let has_certificate = v.required("certificate", &FILE, chain, &mut tls.certificate);
    v.required("private_key", &FILE, "the PEM file of the certificate's key", &mut tls.private_key) && has_certificate
}

/// Visits the keys of `[tls]` that have defaults. Returns whether the certificates for single names can be used.
fn visit_handshake(v: &mut Visitor<'_>, tls: &mut TlsSettings) -> bool {
    let has_sni = visit_sni_certificates(v, &mut tls.sni);
    v.key("strict_sni", &BOOLEAN, &mut tls.strict_sni);
    v.key("modern", &BOOLEAN, &mut tls.modern);
    visit_client_auth(&mut v.table("client_auth"), &mut tls.client_auth);
    v.key("hsts", &OffOr(MAX_AGE), &mut tls.hsts);
    has_sni
}

/// Visits one table of `[[tls.sni]]`. Returns whether it can be used.
pub(super) fn visit_sni_certificate(v: &mut Visitor<'_>, own: &mut SniCertificate) -> bool {
    let has_names = v.required_list("names", &SNI, "the names that the certificate is for", &mut own.names);
    let chain = "the PEM file of the certificate chain for these names";
    let has_certificate = v.required("certificate", &FILE, chain, &mut own.certificate);
    let has_key = v.required("private_key", &FILE, "the PEM file of the certificate's key", &mut own.private_key);
    has_names && has_certificate && has_key
}

/// Visits the keys of `[limits]` that concern a connection before its route is known.
pub(super) fn visit_limits(v: &mut Visitor<'_>, limits: &mut EdgeLimits) {
    v.key("handshake", &DURATION, &mut limits.handshake);
    v.key("header_read", &DURATION, &mut limits.header_read);
    v.key("keep_alive", &DURATION, &mut limits.keep_alive);
    v.key("write_stall", &DURATION, &mut limits.write_stall);
    v.key("headers", &Whole(1..=4096), &mut limits.headers);
    v.key("header_bytes", &HEADER_BYTES, &mut limits.header_bytes);
    v.key("response_headers", &Whole(1..=10_000), &mut limits.response_headers);
    v.key("connections", &CONNECTIONS, &mut limits.connections);
    v.key("connections_per_ip", &Bounded(MOST_CONNECTIONS), &mut limits.connections_per_ip);
    v.key("handshakes_per_ip", &Bounded(MOST_A_SECOND), &mut limits.handshakes_per_ip);
    v.key("memory", &OffOr(SIZE), &mut limits.memory);
    v.key("streams", &Whole(1..=10_000), &mut limits.streams);
    v.key("websocket_streams", &Whole(1..=10_000), &mut limits.websocket_streams);
    v.key("resets", &Whole(1..=1_000_000), &mut limits.resets);
}

/// Visits the keys of `[limits]` that concern a session, and that a route may have too.
pub(super) fn visit_session_limits(v: &mut Visitor<'_>, limits: &mut SessionLimits) {
    v.key("frame", &OffOr(SIZE), &mut limits.frame);
    v.key("message", &OffOr(SIZE), &mut limits.message);
    v.key("messages_per_second", &Bounded(MOST_A_SECOND), &mut limits.messages_per_second);
}

/// Visits `[origins]`. Its list has no default: unless it is set, pages of any origin may open sessions.
pub(super) fn visit_origins(v: &mut Visitor<'_>, origins: &mut Arc<OriginPolicy>) {
    match v {
        Visitor::Read(table) => {
            if let KeyValue::Is(allowed) = table.list("allow", decode(&ORIGIN)) {
                *origins = Arc::new(OriginPolicy::Only(allowed));
            }
        }
        Visitor::List(table) => match &**origins {
            OriginPolicy::Any => table.unset("allow"),
            OriginPolicy::Only(allowed) => table.set("allow", encode_all(&ORIGIN, allowed)),
        },
        Visitor::Describe(table) => table.key("allow", list_schema(&ORIGIN), None),
        Visitor::Record(_) | Visitor::Restore(_) => {}
    }
}

/// Visits `[forwarded]`.
pub(super) fn visit_forwarded(v: &mut Visitor<'_>, forwarded: &mut Forwarded) {
    v.list("trusted_proxies", &CIDR, &mut forwarded.trusted_proxies);
    v.key("rfc7239", &BOOLEAN, &mut forwarded.rfc7239);
    v.list("strip", &HEADER_NAME, &mut forwarded.strip);
}

/// Visits `proxy_protocol`: `"off"`, or a table.
fn visit_proxy_protocol(v: &mut Visitor<'_>, proxy: &mut Option<ProxyProtocol>) {
    const KEY: &str = "proxy_protocol";
    // There is no default: a header that is trusted from every peer lets a client claim any address.
    fn visit(mut v: Visitor<'_>, trusted: &mut Vec<Cidr>) -> bool {
        v.required_list("trusted", &CIDR, "the networks of the load balancers that send the header", trusted)
    }
    match v {
        Visitor::Read(table) => {
            if let Ok(table) = table.table_or(KEY, or_table(one_of(OFF))) {
                let mut trusted = Vec::new();
                *proxy = visit(Visitor::Read(table), &mut trusted).then_some(ProxyProtocol { trusted });
            }
        }
        Visitor::List(table) => match proxy {
            None => table.set(KEY, OneOf(OFF).encode(&())),
            Some(proxy) => {
                visit(Visitor::List(table.under(KEY)), &mut proxy.trusted);
            }
        },
        Visitor::Describe(table) => table.table_or(KEY, &OneOf(OFF).schema(), Some(&OneOf(OFF).encode(&())), |table| {
            visit(Visitor::Describe(table), &mut Vec::new());
        }),
        Visitor::Record(_) | Visitor::Restore(_) => {}
    }
}

/// Visits the list `[[tls.sni]]`; `config show` lists its tables apart. Returns whether all of them can be used.
fn visit_sni_certificates(v: &mut Visitor<'_>, all: &mut Vec<SniCertificate>) -> bool {
    let empty = || SniCertificate { names: Vec::new(), certificate: PathBuf::new(), private_key: PathBuf::new() };
    match v {
        Visitor::Read(table) => {
            let mut is_usable = true;
            for t in table.tables("sni") {
                let mut own = empty();
                let is_whole = visit_sni_certificate(&mut Visitor::Read(t.clone()), &mut own);
                let taken = own.names.iter().find(|name| all.iter().any(|earlier| earlier.names.contains(name)));
                if let Some(name) = taken.filter(|_| is_usable) {
                    let problem = Problem::new(format!("cannot have \"{name}\": an earlier certificate is for it"));
                    t.refuse(&["names"], problem.with_help("leave it out here or there"));
                }
                is_usable &= is_whole;
                all.push(own);
            }
            return is_usable;
        }
        Visitor::Describe(table) => table.tables("sni", |table| {
            visit_sni_certificate(&mut Visitor::Describe(table), &mut empty());
        }),
        Visitor::List(_) | Visitor::Record(_) | Visitor::Restore(_) => {}
    }
    true
}

/// Visits `[tls.client_auth]`.
fn visit_client_auth(v: &mut Visitor<'_>, client_auth: &mut ClientAuth) {
    const CA: &str = "the PEM file of the authorities that sign the clients' certificates";
    match v {
        Visitor::Read(table) => *client_auth = read_client_auth(table, CA),
        Visitor::List(_) | Visitor::Describe(_) => {
            let (mut mode, mut ca) = match client_auth {
                ClientAuth::Off => (ClientAuthMode::Off, None),
                ClientAuth::Optional(ca) => (ClientAuthMode::Optional, Some(ca.clone())),
                ClientAuth::Required(ca) => (ClientAuthMode::Required, Some(ca.clone())),
            };
            v.key("mode", &OneOf(CLIENT_AUTH), &mut mode);
            v.optional("ca", &FILE, &mut ca);
        }
        Visitor::Record(_) | Visitor::Restore(_) => {}
    }
    v.describe("mode", "whether clients must have a certificate");
    v.describe("ca", CA);
}

/// Reads `[listen]`. With domains in `[tls.acme]` and no address, the ports are those to which an authority connects.
pub(super) fn listen(root: &Table<'_>) -> Listen {
    let t = &root.table("listen");
    let is_public = !t.sets("address") && acme::is_set(root);
    let mut listen = if is_public { Listen::public() } else { Listen::default() };
    visit_listen(&mut Visitor::Read(t.clone()), &mut listen);
    if let Some(redirect) = listen.redirect
        && collide(redirect, listen.address)
    {
        let problem = Problem::new(format!("does not fit: {redirect} is taken by the TLS port, {}", listen.address));
        t.refuse(&["redirect", "address"], problem.with_help("choose another port: plain HTTP is usually 80 or 8080"));
    }
    listen
}

/// Reads `[tls]`; the faults of its files, as `certificates` finds them, are reported too. `None` where something
/// required is missing or was refused.
pub(super) fn tls(t: &Table<'_>, certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>) -> Option<TlsMode> {
    let mut v = Visitor::Read(t.clone());
    let mut terminates = true;
    visit_tls_mode(&mut v, &mut terminates);
    let mut tls = TlsSettings::of("", "");
    if !terminates {
        // Certificate and key may stay in a file that serves both modes.
        drop((t.entry("certificate", decode(&FILE)), t.entry("private_key", decode(&FILE))));
        drop(acme::read(t));
        let is_usable = visit_handshake(&mut v, &mut tls);
        without_tls(t, &tls, is_usable);
        return Some(TlsMode::Off);
    }
    let acme = acme::read(t);
    if acme != KeyValue::Unset {
        // Files that are there may stay.
        drop((t.entry("certificate", decode(&FILE)), t.entry("private_key", decode(&FILE))));
    }
    let has_certificate = match acme {
        KeyValue::Is(acme) => {
            (tls.certificate, tls.private_key) = (acme.certificate(), acme.certificate());
            tls.acme = Some(Box::new(acme));
            true
        }
        KeyValue::Refused => false,
        KeyValue::Unset => visit_server_certificate(&mut v, &mut tls),
    };
    let is_usable = visit_handshake(&mut v, &mut tls) && has_certificate;
    if !is_usable {
        return None;
    }
    tls_files::report([t, &t.table("client_auth")], &t.tables("sni"), &tls, certificates(&tls));
    Some(TlsMode::Terminate(tls))
}

/// Refuses the keys of `[tls]` that `mode = "off"` leaves without effect.
fn without_tls(t: &Table<'_>, tls: &TlsSettings, has_usable_sni: bool) {
    for (key, is_set) in [
        ("sni", !has_usable_sni || !tls.sni.is_empty()),
        ("strict_sni", tls.strict_sni),
        ("modern", tls.modern),
        ("client_auth", tls.client_auth != ClientAuth::Off),
        ("hsts", tls.hsts.is_some()),
    ] {
        if is_set {
            let problem = Problem::new("has no effect with mode = \"off\": TLS is not used here");
            t.refuse(&[key], problem.with_help("leave it out, and set it on the proxy that terminates TLS"));
        }
    }
}

/// Refuses keys of other sections that do not go together with `tls.mode = "off"`.
pub(super) fn check_without_tls(root: &Table<'_>, listen: &Listen, forwarded: &Forwarded, limits: &EdgeLimits) {
    if forwarded.trusted_proxies.is_empty() {
        let problem = Problem::new(
            "cannot be \"off\" without `trusted_proxies` in [forwarded]: any client could connect, and claim any address",
        );
        let help = "set trusted_proxies to the networks of the proxies that terminate TLS, such as [\"10.0.0.0/8\"]; \
                    or set mode = \"terminate\"";
        root.table("tls").refuse(&["mode"], problem.with_help(help));
    }
    if listen.redirect.is_some() {
        let problem = Problem::new("has no effect with tls.mode = \"off\": there is no https here to redirect to");
        let help = "leave it out, and redirect on the proxy that terminates TLS";
        root.table("listen").refuse(&["redirect"], problem.with_help(help));
    }
    if limits.handshakes_per_ip.is_some() {
        let problem = Problem::new("has no effect with tls.mode = \"off\": there are no handshakes here");
        let help = "leave it out, and set it on the proxy that terminates TLS";
        root.table("limits").refuse(&["handshakes_per_ip"], problem.with_help(help));
    }
}

/// Reads the keys of `[limits]` that concern a connection before its route is known.
pub(super) fn limits(t: &Table<'_>) -> EdgeLimits {
    let mut limits = EdgeLimits::default();
    visit_limits(&mut Visitor::Read(t.clone()), &mut limits);
    if let (Some(one), ConnectionLimit::AtMost(all)) = (limits.connections_per_ip, limits.connections)
        && one > all
    {
        let what = format!("does not fit: one address may not have more connections ({one}) than all together ({all})");
        t.refuse(
            &["connections_per_ip", "connections"],
            Problem::new(what).with_help("lower the one or raise the other"),
        );
    }
    limits
}

/// Reads the limits of a route's sessions over those of `base`.
pub(super) fn session_limits(t: &Table<'_>, base: SessionLimits) -> SessionLimits {
    let mut limits = base;
    visit_session_limits(&mut Visitor::Read(t.clone()), &mut limits);
    if let (Some(frame), Some(message)) = (limits.frame, limits.message)
        && frame > message
    {
        let what = format!("does not fit: a frame ({frame} bytes) may not be larger than a message ({message} bytes)");
        t.refuse(&["frame", "message"], Problem::new(what).with_help("lower the one or raise the other"));
    }
    limits
}

/// Reads which pages may open the sessions of a route, or returns `base`, which is shared.
pub(super) fn origins(t: &Table<'_>, base: &Arc<OriginPolicy>) -> Arc<OriginPolicy> {
    let mut origins = Arc::clone(base);
    visit_origins(&mut Visitor::Read(t.clone()), &mut origins);
    origins
}

/// Reads `[forwarded]`.
pub(super) fn forwarded(t: &Table<'_>) -> Forwarded {
    let mut forwarded = Forwarded::default();
    visit_forwarded(&mut Visitor::Read(t.clone()), &mut forwarded);
    forwarded
}

/// Returns whether `one` and `other` cannot both be listened on.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (everywhere || one.ip() == other.ip())
}

/// Reads `[tls.client_auth]`; `what` names the file in the error where it is missing.
fn read_client_auth(t: &Table<'_>, what: &str) -> ClientAuth {
    let with = |made: fn(PathBuf) -> ClientAuth| {
        let ca = t.required("ca", decode(&FILE), what);
        ca.map_or(ClientAuth::Off, made)
    };
    match t.entry("mode", one_of(CLIENT_AUTH)) {
        KeyValue::Is(ClientAuthMode::Optional) => return with(ClientAuth::Optional),
        KeyValue::Is(ClientAuthMode::Required) => return with(ClientAuth::Required),
        KeyValue::Is(ClientAuthMode::Off) | KeyValue::Refused => drop(t.entry("ca", decode(&FILE))),
        KeyValue::Unset => {
            if let KeyValue::Is(_) = t.entry("ca", decode(&FILE)) {
                let problem = Problem::new("has no effect without `mode`: no certificate is requested");
                t.refuse(&["ca"], problem.with_help("set mode = \"required\" or mode = \"optional\" beside it"));
            }
        }
    }
    ClientAuth::Off
}

fn max_age(given: &Given<'_>) -> Read<Duration> {
    let age = duration(given)?;
    if age.subsec_nanos() > 0 {
        return Err(Problem::new("must be whole seconds").with_help("write it in s, m, h or d"));
    }
    Ok(age)
}
