//! The client's side: listening, TLS, the limits of connections, origins, what is told of addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::form::{
    Given, Problem, Read, Words, auto_or, boolean, bounded, duration, off_or, one_of, or_table, size, whole,
};
use super::forwarded::Forwarded;
use super::names::{cidr, header_name, origin, sni};
use super::origins::OriginPolicy;
use super::reader::{Entry, Table};
use super::settings::{
    ClientAuth, ConnectionLimit, EdgeLimits, Http2, Listen, ProxyProtocol, SessionLimits, SniCertificate, Tls, TlsMode,
};
use super::tls_files::{self, TlsFault};
use super::value::{address, all_cores, file, header_bytes, workers};

/// What `tls.client_auth.mode` says.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Off,
    Optional,
    Required,
}

const TERMINATES: Words<bool> = &[("terminate", true), ("off", false)];
const OFF: Words<()> = &[("off", ())];
const CLIENT_AUTH: Words<Asked> = &[("off", Asked::Off), ("optional", Asked::Optional), ("required", Asked::Required)];

const HTTP2: Words<Http2> = &[
    (Http2::On.as_str(), Http2::On),
    (Http2::NoWebSockets.as_str(), Http2::NoWebSockets),
    (Http2::Off.as_str(), Http2::Off),
];

/// More than any machine has memory for.
const MOST_CONNECTIONS: usize = 100_000_000;
/// More than any client does in a second.
const MOST_A_SECOND: u32 = 1_000_000;

pub(super) fn listen(t: &Table<'_>) -> Listen {
    let listen = Listen {
        address: t.or("address", address, ([0, 0, 0, 0], 8443).into()),
        workers: t.or("workers", workers, all_cores()),
        proxy_protocol: proxy_protocol(t),
        redirect: t.or("redirect", off_or(address), None),
        http2: t.or("http2", one_of(HTTP2), Http2::default()),
    };
    if let Some(redirect) = listen.redirect
        && collide(redirect, listen.address)
    {
        let problem = Problem::new(format!("does not fit: {redirect} is taken by the TLS port, {}", listen.address));
        t.refuse(&["redirect", "address"], problem.with_help("choose another port: plain HTTP is usually 80 or 8080"));
    }
    listen
}

pub(super) fn tls(t: &Table<'_>, certificates: impl Fn(&Tls) -> Vec<TlsFault>) -> Option<TlsMode> {
    if !t.or("mode", one_of(TERMINATES), true) {
        without_tls(t);
        return Some(TlsMode::Off);
    }
    let certificate = t.required("certificate", file, "the PEM file of the server's certificate chain");
    let private_key = t.required("private_key", file, "the PEM file of the certificate's key");
    let sni_tables = t.tables("sni");
    let sni = named_certificates(&sni_tables);
    let strict_sni = t.or("strict_sni", boolean, false);
    let modern = t.or("modern", boolean, false);
    let clients = t.table("client_auth");
    let client_auth = client_auth(&clients);
    let hsts = t.or("hsts", off_or(max_age), None);
    let tls =
        Tls { certificate: certificate?, private_key: private_key?, sni: sni?, strict_sni, modern, client_auth, hsts };
    tls_files::report([t, &clients], &sni_tables, &tls, certificates(&tls));
    Some(TlsMode::Terminate(tls))
}

/// Refuses the keys of [tls] that `mode = "off"` leaves without effect. Certificate and key may stay in a file that
/// serves both modes.
fn without_tls(t: &Table<'_>) {
    drop((t.entry("certificate", file), t.entry("private_key", file)));
    let sni = named_certificates(&t.tables("sni"));
    for (key, is_set) in [
        ("sni", sni.is_none_or(|sni| !sni.is_empty())),
        ("strict_sni", t.or("strict_sni", boolean, false)),
        ("modern", t.or("modern", boolean, false)),
        ("client_auth", client_auth(&t.table("client_auth")) != ClientAuth::Off),
        ("hsts", t.or("hsts", off_or(max_age), None).is_some()),
    ] {
        if is_set {
            let problem = Problem::new("has no effect with mode = \"off\": no TLS is spoken here");
            t.refuse(&[key], problem.with_help("leave it out, and set it on the proxy that terminates TLS"));
        }
    }
}

/// Refuses keys of other sections that do not go together with `tls.mode = "off"`.
pub(super) fn beside_no_tls(root: &Table<'_>, listen: &Listen, forwarded: &Forwarded, limits: &EdgeLimits) {
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

/// The limit of all client connections.
fn connections(given: &Given<'_>) -> Read<ConnectionLimit> {
    let read = auto_or(bounded(MOST_CONNECTIONS))(given)?;
    Ok(read.map_or(ConnectionLimit::Auto, |most| most.map_or(ConnectionLimit::Off, ConnectionLimit::AtMost)))
}

pub(super) fn limits(t: &Table<'_>) -> EdgeLimits {
    let base = EdgeLimits::default();
    let limits = EdgeLimits {
        handshake: t.or("handshake", duration, base.handshake),
        header_read: t.or("header_read", duration, base.header_read),
        keep_alive: t.or("keep_alive", duration, base.keep_alive),
        write_stall: t.or("write_stall", duration, base.write_stall),
        headers: t.or("headers", whole(1..=4096), base.headers),
        header_bytes: t.or("header_bytes", header_bytes, base.header_bytes),
        response_headers: t.or("response_headers", whole(1..=10_000), base.response_headers),
        connections: t.or("connections", connections, base.connections),
        connections_per_ip: t.or("connections_per_ip", bounded(MOST_CONNECTIONS), base.connections_per_ip),
        handshakes_per_ip: t.or("handshakes_per_ip", bounded(MOST_A_SECOND), base.handshakes_per_ip),
        memory: t.or("memory", off_or(size), base.memory),
        streams: t.or("streams", whole(1..=10_000), base.streams),
        websocket_streams: t.or("websocket_streams", whole(1..=10_000), base.websocket_streams),
        resets: t.or("resets", whole(1..=1_000_000), base.resets),
    };
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

/// The limits of a route's sessions over those of `base`.
pub(super) fn session_limits(t: &Table<'_>, base: SessionLimits) -> SessionLimits {
    let limits = SessionLimits {
        frame: t.or("frame", off_or(size), base.frame),
        message: t.or("message", off_or(size), base.message),
        messages_per_second: t.or("messages_per_second", bounded(MOST_A_SECOND), base.messages_per_second),
    };
    if let (Some(frame), Some(message)) = (limits.frame, limits.message)
        && frame > message
    {
        let what = format!("does not fit: a frame ({frame} bytes) may not be larger than a message ({message} bytes)");
        t.refuse(&["frame", "message"], Problem::new(what).with_help("lower the one or raise the other"));
    }
    limits
}

/// Whose pages may open the sessions of a route, or `base`, which is shared.
pub(super) fn origins(t: &Table<'_>, base: &Arc<OriginPolicy>) -> Arc<OriginPolicy> {
    match t.list("allow", origin) {
        Entry::Is(allowed) => Arc::new(OriginPolicy::Only(allowed)),
        Entry::Unset | Entry::Refused => Arc::clone(base),
    }
}

pub(super) fn forwarded(t: &Table<'_>) -> Forwarded {
    let base = Forwarded::default();
    Forwarded {
        trusted_proxies: t.list_or("trusted_proxies", cidr, base.trusted_proxies),
        rfc7239: t.or("rfc7239", boolean, base.rfc7239),
        strip: t.list_or("strip", header_name, base.strip),
    }
}

fn proxy_protocol(t: &Table<'_>) -> Option<ProxyProtocol> {
    // A header that is believed from anybody lets anybody be anybody; so there is no default for whom to trust.
    let t = t.table_or("proxy_protocol", or_table(one_of(OFF))).ok()?;
    let trusted = t.required_list("trusted", cidr, "the networks of the load balancers that send the header")?;
    Some(ProxyProtocol { trusted })
}

/// Whether no two sockets can listen at `one` and `other`.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (everywhere || one.ip() == other.ip())
}

/// The certificates for certain names; `None` where one of them was refused.
fn named_certificates(tables: &[Table<'_>]) -> Option<Vec<SniCertificate>> {
    let mut all: Option<Vec<SniCertificate>> = Some(Vec::new());
    for t in tables {
        let names = t.required_list("names", sni, "the names that the certificate is for");
        let certificate = t.required("certificate", file, "the PEM file of the certificate chain for these names");
        let private_key = t.required("private_key", file, "the PEM file of the certificate's key");
        let taken =
            names.iter().flatten().find(|name| all.iter().flatten().any(|earlier| earlier.names.contains(name)));
        if let Some(name) = taken {
            let problem = Problem::new(format!("cannot have \"{name}\": an earlier certificate is for it"));
            t.refuse(&["names"], problem.with_help("leave it out here or there"));
        }
        all = match (all, names, certificate, private_key) {
            (Some(mut all), Some(names), Some(certificate), Some(private_key)) => {
                all.push(SniCertificate { names, certificate, private_key });
                Some(all)
            }
            _ => None,
        };
    }
    all
}

fn client_auth(t: &Table<'_>) -> ClientAuth {
    let with = |made: fn(PathBuf) -> ClientAuth| {
        let ca = t.required("ca", file, "the PEM file of the authorities that sign the clients' certificates");
        ca.map_or(ClientAuth::Off, made)
    };
    match t.entry("mode", one_of(CLIENT_AUTH)) {
        Entry::Is(Asked::Optional) => return with(ClientAuth::Optional),
        Entry::Is(Asked::Required) => return with(ClientAuth::Required),
        Entry::Is(Asked::Off) | Entry::Refused => drop(t.entry("ca", file)),
        Entry::Unset => {
            if let Entry::Is(_) = t.entry("ca", file) {
                let problem = Problem::new("is of no use without `mode`: no client is asked for a certificate");
                t.refuse(&["ca"], problem.with_help("set mode = \"required\" or mode = \"optional\" beside it"));
            }
        }
    }
    ClientAuth::Off
}

/// How long a browser remembers that this host speaks https: whole seconds.
fn max_age(given: &Given<'_>) -> Read<Duration> {
    let age = duration(given)?;
    if age.subsec_nanos() > 0 {
        return Err(Problem::new("must be whole seconds").with_help("write it in s, m, h or d"));
    }
    Ok(age)
}
