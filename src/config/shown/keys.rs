//! From settings back to keys. What a section's settings hold is taken apart by name, so that no key is forgotten.

use std::path::Path;
use std::time::Duration;

use figment::value::Value as Raw;
use toml_edit::Value;

use super::{Block, Kind, Line, Origin};
use crate::config::app::PROXY_PROTOCOL;
use crate::config::form::word;
use crate::config::layers::Layers;
use crate::config::operate::FORMATS;
use crate::config::path::KeyPath;
use crate::config::report::Place;
use crate::config::sections::{CLIENT_PING, LIVENESS, Sections};
use crate::config::{
    Admin, ClientAuth, ConnectionLimit, Drain, EdgeLimits, Forwarded, Listen, Log, OriginPolicy, Otel, Route,
    SessionLimits, Settings, SniCertificate, Target, Tls, TlsMode, Upstream, UpstreamTls,
};
use crate::heartbeat::{CloseSpec, Heartbeat, OnMiss, Policy, Profile, UpstreamEnd, UpstreamPolicy};

/// The lists of tables.
pub(super) const LISTS: [&str; 2] = ["tls.sni", "route"];

/// What a profile that is spelt out may leave unsaid.
const OPCODE: &str = "text";
const MATCH: &str = "exact";

/// A table, or a part of one, in the writing.
struct Part<'a> {
    layers: &'a Layers,
    lines: &'a mut Vec<Line>,
    /// What stands before its keys, with a dot at its end.
    prefix: String,
    /// The tables in which a key may have been set; the first in which it is counts.
    homes: Vec<KeyPath>,
}

/// All of it, in the order of the documented file.
pub(super) fn blocks(layers: &Layers, sections: &Sections) -> Vec<Block> {
    let Sections { settings, common, written } = sections;
    let Settings { listen, tls, upstream, limits, forwarded, drain, admin, log, otel, routes: _ } = settings;
    let mut blocks = Vec::new();
    let mut section = |header: &'static str, write: &dyn Fn(&mut Part<'_>)| {
        let home = [header].into_iter().collect();
        blocks.push(block(layers, header, Kind::Section, vec![home], write));
        if header == "tls" {
            for (at, own) in tls.terminate().into_iter().flat_map(|tls| &tls.sni).enumerate() {
                let home = ["tls", "sni"].into_iter().collect::<KeyPath>().index(at);
                blocks.push(block(layers, "tls.sni", Kind::Element, vec![home], &|part| certificate(part, own)));
            }
        }
    };
    section("listen", &|part| listening(part, listen));
    section("tls", &|part| handshake(part, tls));
    section("upstream", &|part| app(part, upstream));
    section("heartbeat", &|part| heartbeat(part, &common.heartbeat));
    section("limits", &|part| {
        edge_limits(part, limits);
        session_limits(part, &common.limits);
    });
    section("origins", &|part| origins(part, &common.origins));
    section("forwarded", &|part| forwarding(part, forwarded));
    section("drain", &|part| end(part, drain));
    section("admin", &|part| administration(part, admin));
    section("log", &|part| logging(part, log));
    section("otel", &|part| spans(part, otel.as_ref()));
    for (at, own) in written.iter().enumerate() {
        let home = KeyPath::default().key("route").index(at);
        let homes = vec![home, KeyPath::default()];
        blocks.push(block(layers, "route", Kind::Element, homes, &|part| route(part, own)));
    }
    blocks
}

fn block(
    layers: &Layers,
    header: &'static str,
    kind: Kind,
    homes: Vec<KeyPath>,
    write: &dyn Fn(&mut Part<'_>),
) -> Block {
    let mut lines = Vec::new();
    write(&mut Part { layers, lines: &mut lines, prefix: String::new(), homes });
    Block { header, kind, lines }
}

impl Part<'_> {
    /// `key`, which has this value.
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.set_by(key, value, &[key]);
    }

    /// `key`, which has this value because the first of `causes` that is set has.
    fn set_by(&mut self, key: &str, value: impl Into<Value>, causes: &[&str]) {
        let mut paths = self.homes.iter().flat_map(|home| causes.iter().map(|cause| home.key(cause)));
        let place = paths.find_map(|path| self.layers.origin(&path));
        self.set_at(key, value, place);
    }

    fn set_at(&mut self, key: &str, value: impl Into<Value>, place: Option<Place>) {
        let origin = place.map_or(Origin::Default, Origin::Set);
        self.lines.push(Line { key: format!("{}{key}", self.prefix), value: Some(value.into()), origin });
    }

    /// `key`, or that it has no value.
    fn maybe(&mut self, key: &str, value: Option<impl Into<Value>>) {
        match value {
            Some(value) => self.set(key, value),
            None => self.unset(key),
        }
    }

    /// `key`, which has no value; not told where it might be inherited, for a route may leave out anything.
    fn unset(&mut self, key: &str) {
        if self.homes.len() == 1 {
            self.lines.push(Line { key: format!("{}{key}", self.prefix), value: None, origin: Origin::Default });
        }
    }

    /// The table at `key`.
    fn under(&mut self, key: &str) -> Part<'_> {
        let homes = self.homes.iter().map(|home| home.key(key)).collect();
        Part { layers: self.layers, prefix: format!("{}{key}.", self.prefix), homes, lines: self.lines }
    }

    /// The same table, but nothing that it lies over.
    fn alone(&mut self) -> Part<'_> {
        let homes = self.homes[..1].to_vec();
        Part { layers: self.layers, prefix: self.prefix.clone(), homes, lines: self.lines }
    }
}

fn listening(part: &mut Part<'_>, listen: &Listen) {
    let Listen { address, workers, proxy_protocol, redirect, http2 } = listen;
    part.set("address", address.to_string());
    part.set("workers", number(workers.get()));
    match proxy_protocol {
        None => part.set("proxy_protocol", "off"),
        Some(proxy) => part.under("proxy_protocol").set("trusted", texts(&proxy.trusted)),
    }
    part.set("redirect", or_off(redirect.map(|address| address.to_string())));
    part.set("http2", http2.as_str());
}

fn handshake(part: &mut Part<'_>, mode: &TlsMode) {
    let TlsMode::Terminate(tls) = mode else { return part.set("mode", "off") };
    part.set("mode", "terminate");
    let Tls { certificate, private_key, sni: _, strict_sni, modern, client_auth, hsts } = tls;
    part.set("certificate", path(certificate));
    part.set("private_key", path(private_key));
    part.set("strict_sni", *strict_sni);
    part.set("modern", *modern);
    let mut asked = part.under("client_auth");
    let (mode, ca) = match client_auth {
        ClientAuth::Off => ("off", None),
        ClientAuth::Optional(ca) => ("optional", Some(ca)),
        ClientAuth::Required(ca) => ("required", Some(ca)),
    };
    asked.set("mode", mode);
    asked.maybe("ca", ca.map(|ca| path(ca)));
    part.set("hsts", or_off(hsts.map(span)));
}

fn certificate(part: &mut Part<'_>, own: &SniCertificate) {
    let SniCertificate { names, certificate, private_key } = own;
    part.set("names", texts(names));
    part.set("certificate", path(certificate));
    part.set("private_key", path(private_key));
}

/// An app. Its TLS, PROXY header and source addresses belong to its URL: they are not inherited without it.
fn app(part: &mut Part<'_>, upstream: &Upstream) {
    let Upstream { target, tls, connect_timeout, response_timeout, proxy_protocol, source_addresses, heartbeat, probe } =
        upstream;
    let UpstreamPolicy { interval, timeout, give_up } = heartbeat;
    let url = match target {
        Target::Unix(socket) => format!("unix:{}", path(socket)),
        Target::Tcp { .. } => upstream.to_string(),
    };
    let own = own_url(part);
    let is_own = own.is_some();
    match own {
        Some(place) => part.set_at("url", url, Some(place)),
        None => part.set("url", url),
    }
    if let Some(tls) = tls {
        if is_own { app_tls(&mut part.alone(), tls) } else { app_tls(part, tls) }
    }
    part.set("connect_timeout", span(*connect_timeout));
    part.set("response_timeout", span(*response_timeout));
    let (header, sources) = (word(PROXY_PROTOCOL, proxy_protocol), texts(source_addresses));
    if is_own {
        part.alone().set("proxy_protocol", header);
        part.alone().set("source_addresses", sources);
    } else {
        part.set("proxy_protocol", header);
        part.set("source_addresses", sources);
    }
    part.set("interval", or_off(interval.map(span)));
    part.set("timeout", span(*timeout));
    part.set("give_up", span(*give_up));
    part.set("probe", probe.to_string());
}

/// Where the table itself says a URL: as one of its keys, or in its own place.
fn own_url(part: &Part<'_>) -> Option<Place> {
    let home = &part.homes[0];
    match part.layers.value(home)? {
        Raw::Dict(..) => part.layers.origin(&home.key("url")),
        _ => part.layers.origin(home),
    }
}

fn app_tls(part: &mut Part<'_>, tls: &UpstreamTls) {
    let UpstreamTls { ca, pins, identity, server_name } = tls;
    let mut part = part.under("tls");
    part.maybe("ca", ca.as_deref().map(path));
    // A route may leave it out, whether its TLS is inherited or its own.
    if !pins.is_empty() || !part.homes[0].in_list() {
        part.maybe("pin", (!pins.is_empty()).then(|| texts(pins)));
    }
    part.maybe("certificate", identity.as_ref().map(|(certificate, _)| path(certificate)));
    part.maybe("private_key", identity.as_ref().map(|(_, key)| path(key)));
    part.maybe("server_name", server_name.as_deref());
}

fn heartbeat(part: &mut Part<'_>, heartbeat: &Heartbeat) {
    let Policy {
        mode: _,
        window,
        interval,
        timeout,
        max_missed,
        jitter,
        liveness,
        probe_when_busy,
        write_stall,
        max_deferral,
        frame_max_time,
        adaptive,
        stall_guard,
        client_ping,
        on_miss,
        close_grace,
    } = &**heartbeat.policy();
    spoken(part, heartbeat);
    part.set("window", window.map_or("auto".to_owned(), span));
    part.set("interval", span(*interval));
    part.set("timeout", span(*timeout));
    part.set("max_missed", i64::from(*max_missed));
    part.set("jitter", *jitter);
    part.set("liveness", word(LIVENESS, liveness));
    part.set("probe_when_busy", span(*probe_when_busy));
    part.set("write_stall", span(*write_stall));
    part.set("max_deferral", span(*max_deferral));
    part.set("frame_max_time", span(*frame_max_time));
    part.set("adaptive", *adaptive);
    part.set("stall_guard", span(*stall_guard));
    part.set("client_ping", word(CLIENT_PING, client_ping));
    missed(&mut part.under("on_miss"), on_miss);
    part.set("close_grace", span(*close_grace));
}

/// Mode and profile. A profile that is spelt out is told as it was written: settings hold it ready for use.
fn spoken(part: &mut Part<'_>, heartbeat: &Heartbeat) {
    let mode = match heartbeat {
        Heartbeat::Auto(_) => return part.set("profile", "auto"),
        Heartbeat::Fixed(policy) => &policy.mode,
    };
    part.set_by("mode", mode.as_str(), &["mode", "profile"]);
    let mut written = part.homes.iter().map(|home| home.key("profile"));
    let written = written.find(|path| part.layers.value(path).is_some());
    match (mode.profile(), written) {
        (Some(profile), Some(written)) if profile.name == Profile::CUSTOM => {
            let prefix = format!("{}profile.", part.prefix);
            custom(&mut Part { layers: part.layers, prefix, homes: vec![written], lines: part.lines }, profile);
        }
        (Some(profile), _) => part.set("profile", profile.name),
        (None, None) => part.unset("profile"),
        // Switched off.
        (None, Some(_)) => {}
    }
}

fn custom(part: &mut Part<'_>, profile: &Profile) {
    let table = part.homes[0].clone();
    for (key, usual) in
        [("send", None), ("expect", None), ("opcode", Some(OPCODE)), ("match", Some(MATCH)), ("start_after", None)]
    {
        let text = part.layers.text(&table.key(key)).or(usual);
        part.maybe(key, text);
    }
    part.set("max_len", number(profile.max_len));
}

fn missed(part: &mut Part<'_>, on_miss: &OnMiss) {
    let OnMiss { client, upstream } = on_miss;
    let close = |part: &mut Part<'_>, close: &CloseSpec| {
        let CloseSpec { code, reason } = close;
        part.set("code", i64::from(*code));
        part.set("reason", &**reason);
    };
    close(&mut part.under("client"), client);
    match upstream {
        UpstreamEnd::Disconnect => part.set("upstream", "disconnect"),
        UpstreamEnd::Close(upstream) => close(&mut part.under("upstream"), upstream),
    }
}

fn edge_limits(part: &mut Part<'_>, limits: &EdgeLimits) {
    let EdgeLimits {
        handshake,
        header_read,
        keep_alive,
        write_stall,
        headers,
        header_bytes,
        response_headers,
        connections,
        connections_per_ip,
        handshakes_per_ip,
        memory,
        streams,
        websocket_streams,
        resets,
    } = limits;
    part.set("handshake", span(*handshake));
    part.set("header_read", span(*header_read));
    part.set("keep_alive", span(*keep_alive));
    part.set("write_stall", span(*write_stall));
    part.set("headers", number(*headers));
    part.set("header_bytes", size(u64::try_from(*header_bytes).unwrap_or(u64::MAX)));
    part.set("response_headers", number(*response_headers));
    part.set(
        "connections",
        match connections {
            ConnectionLimit::Auto => "auto".into(),
            ConnectionLimit::AtMost(most) => number(*most).into(),
            ConnectionLimit::Off => Value::from("off"),
        },
    );
    part.set("connections_per_ip", or_off(connections_per_ip.map(number)));
    part.set("handshakes_per_ip", or_off(handshakes_per_ip.map(i64::from)));
    part.set("memory", or_off(memory.map(size)));
    part.set("streams", i64::from(*streams));
    part.set("websocket_streams", i64::from(*websocket_streams));
    part.set("resets", i64::from(*resets));
}

fn session_limits(part: &mut Part<'_>, limits: &SessionLimits) {
    let SessionLimits { frame, message, messages_per_second } = limits;
    part.set("frame", or_off(frame.map(size)));
    part.set("message", or_off(message.map(size)));
    part.set("messages_per_second", or_off(messages_per_second.map(i64::from)));
}

fn origins(part: &mut Part<'_>, origins: &OriginPolicy) {
    match origins {
        OriginPolicy::Any => part.unset("allow"),
        OriginPolicy::Only(allowed) => part.set("allow", texts(allowed)),
    }
}

fn forwarding(part: &mut Part<'_>, forwarded: &Forwarded) {
    let Forwarded { trusted_proxies, rfc7239, strip } = forwarded;
    part.set("trusted_proxies", texts(trusted_proxies));
    part.set("rfc7239", *rfc7239);
    part.set("strip", texts(strip));
}

fn end(part: &mut Part<'_>, drain: &Drain) {
    let Drain { delay, window, code, max_connection_age } = drain;
    part.set("delay", span(*delay));
    part.set("window", span(*window));
    part.set("code", i64::from(*code));
    part.set("max_connection_age", or_off(max_connection_age.map(span)));
}

fn administration(part: &mut Part<'_>, admin: &Admin) {
    let Admin { health, socket, tls, token, closed_sessions } = admin;
    part.set("health", or_off(health.map(|address| address.to_string())));
    part.set("socket", or_off(socket.as_ref().map(ToString::to_string)));
    part.maybe("token_file", token.as_ref().map(|token| path(token.file())));
    part.set("tls", *tls);
    part.set("closed_sessions", number(*closed_sessions));
}

fn logging(part: &mut Part<'_>, log: &Log) {
    let Log { level, format } = log;
    part.set("level", level.to_string());
    part.set("format", word(FORMATS, format));
}

fn spans(part: &mut Part<'_>, otel: Option<&Otel>) {
    part.set("endpoint", or_off(otel.map(|Otel { endpoint }| endpoint.to_string())));
}

/// A route with all that it has, be it its own or inherited.
fn route(part: &mut Part<'_>, own: &Route) {
    let Route { path, host, upstream, heartbeat: beats, limits, origins: pages } = own;
    part.alone().set("path", &**path);
    if let Some(host) = host {
        part.alone().set("host", host.to_string());
    }
    app(&mut part.under("upstream"), upstream);
    heartbeat(&mut part.under("heartbeat"), beats);
    session_limits(&mut part.under("limits"), limits);
    origins(&mut part.under("origins"), pages);
}

/// The path from the root on.
fn path(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn texts<T: ToString>(all: &[T]) -> Value {
    all.iter().map(ToString::to_string).collect()
}

fn or_off(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| "off".into(), Into::into)
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// In the largest unit of which it is a whole number.
fn span(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("ns", 1));
    format!("{}{name}", nanos / unit)
}

/// In the largest unit of which it is a whole number; without one, a number.
fn size(bytes: u64) -> Value {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, bits)| bytes.trailing_zeros() >= *bits) {
        Some((name, bits)) => format!("{}{name}", bytes >> bits).into(),
        None => i64::try_from(bytes).map_or_else(|_| bytes.to_string().into(), Into::into),
    }
}
