//! The description of the listener's and the app's settings, as sentences and as facts: ports, certificates, limits,
//! origins.

use std::time::Duration;

use humantime::format_duration;
use serde_json::{Value, json};

use crate::config::{
    AcmeSettings, ClientAuth, ConnectionLimit, EdgeLimits, Forwarded, Http2, Listen, OriginPolicy, Route,
    SessionLimits, Settings, TlsSettings, UpstreamSettings,
};
use crate::descriptors::{self, Budget};
use crate::tls::presented_certificate;

/// Describes every setting that differs from its default: a subject and its lines.
pub(super) fn sentences(settings: &Settings) -> Vec<(&'static str, Vec<String>)> {
    let Settings { listen, tls, upstream, limits, forwarded, .. } = settings;
    let sentences = [
        ("listens on", ports(listen, tls.terminate().is_some())),
        ("orders", tls.terminate().and_then(|tls| tls.acme.as_deref()).map(orders).unwrap_or_default()),
        ("presents", tls.terminate().map(certificates).unwrap_or_default()),
        ("passes on to", app(upstream)),
        ("believes", believed(forwarded)),
        ("limits", bounds(limits, Budget::of(descriptors::highest_limit(), settings))),
    ];
    sentences.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

/// Describes the origins whose pages may open the sessions of a route.
pub(super) fn pages(policy: &OriginPolicy) -> String {
    match policy {
        OriginPolicy::Any => "pages of any origin".to_owned(),
        OriginPolicy::Only(none) if none.is_empty() => "no pages".to_owned(),
        OriginPolicy::Only(allowed) => format!("pages of {}", list(allowed)),
    }
}

/// Describes the limits of a route, each with a comma before it.
pub(super) fn session_bounds(limits: &SessionLimits) -> String {
    let SessionLimits { frame, message, messages_per_second } = *limits;
    let bytes = |name, limit: Option<u64>| limit.map(|bytes| format!(", {name} up to {bytes} bytes"));
    let rate = messages_per_second.map(|rate| format!(", {rate} messages a second"));
    [bytes("frames", frame), bytes("messages", message), rate].into_iter().flatten().collect()
}

/// Returns the facts of all settings except the routes, as JSON.
pub(super) fn facts(settings: &Settings) -> Value {
    let Settings { listen, tls, upstream, limits, forwarded, .. } = settings;
    let texts = |networks: &[crate::config::Cidr]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mode = if tls.terminate().is_some() { "terminate" } else { "off" };
    let tls = tls.terminate();
    let (client_auth, client_ca) = match tls.map(|tls| &tls.client_auth) {
        None | Some(ClientAuth::Off) => ("off", None),
        Some(ClientAuth::Optional(ca)) => ("optional", Some(ca)),
        Some(ClientAuth::Required(ca)) => ("required", Some(ca)),
    };
    let budget = Budget::of(descriptors::highest_limit(), settings);
    let connections = match limits.connections {
        ConnectionLimit::Auto => budget.map(Budget::connections),
        ConnectionLimit::AtMost(most) => Some(most),
        ConnectionLimit::Off => None,
    };
    let sni = tls.into_iter().flat_map(|tls| &tls.sni);
    let sni = sni.map(|one| json!({ "names": one.names, "certificate": one.certificate.display().to_string() }));
    json!({
        "listen": listen.address,
        "workers": listen.workers,
        "proxy_protocol": listen.proxy_protocol.as_ref().map(|proxy| texts(&proxy.trusted)),
        "redirect": listen.redirect,
        "tls_mode": mode,
        "http2": listen.http2.as_str(),
        "certificate": tls.map(|tls| tls.certificate.display().to_string()),
        "acme": tls.and_then(|tls| tls.acme.as_ref()).map(|acme| json!({
            "domains": acme.domains,
            "contact": acme.contact,
            "directory": acme.directory,
            "challenge": acme.challenge.as_str(),
            "storage": acme.folder().display().to_string(),
        })),
        "sni": sni.collect::<Vec<_>>(),
        "strict_sni": tls.is_some_and(|tls| tls.strict_sni),
        "modern": tls.is_some_and(|tls| tls.modern),
        "client_auth": client_auth,
        "client_ca": client_ca.map(|ca| ca.display().to_string()),
        "hsts_s": tls.and_then(|tls| tls.hsts).map(|age| age.as_secs()),
        "upstream": upstream.to_string(),
        "trusted_proxies": texts(&forwarded.trusted_proxies),
        "rfc7239": forwarded.rfc7239,
        "limits": {
            "handshake_s": limits.handshake.as_secs_f64(),
            "header_read_s": limits.header_read.as_secs_f64(),
            "keep_alive_s": limits.keep_alive.as_secs_f64(),
            "write_stall_s": limits.write_stall.as_secs_f64(),
            "headers": limits.headers,
            "header_bytes": limits.header_bytes,
            "connections": connections,
            "connections_auto": limits.connections == ConnectionLimit::Auto,
            "open_files": budget.map(|budget| budget.limit),
            "connections_per_ip": limits.connections_per_ip,
            "handshakes_per_ip": limits.handshakes_per_ip,
            "memory_bytes": limits.memory,
            "streams": limits.streams,
            "websocket_streams": limits.websocket_streams,
            "resets": limits.resets,
        },
    })
}

/// Returns the facts of a route except its heartbeat, as JSON.
pub(super) fn route_facts(route: &Route) -> [(&'static str, Value); 7] {
    let origins = match &*route.origins {
        OriginPolicy::Any => Value::Null,
        OriginPolicy::Only(allowed) => allowed.iter().map(ToString::to_string).collect(),
    };
    [
        ("path", json!(route.path)),
        ("host", json!(route.host.as_ref().map(ToString::to_string))),
        ("upstream", json!(route.upstream.to_string())),
        ("origins", origins),
        ("frame_bytes", json!(route.limits.frame)),
        ("message_bytes", json!(route.limits.message)),
        ("messages_per_second", json!(route.limits.messages_per_second)),
    ]
}

/// Describes the address and the probes of an app.
pub(super) fn app(upstream: &UpstreamSettings) -> Vec<String> {
    let probed = match upstream.heartbeat.interval {
        Some(interval) => format!(
            "probed after {} of silence, given up after {}",
            format_duration(interval),
            format_duration(upstream.heartbeat.give_up)
        ),
        None => "never probed".to_owned(),
    };
    let tls = upstream.tls.as_ref().map(|tls| {
        let ca = tls.ca.as_ref().map_or("the system's authorities".to_owned(), |ca| ca.display().to_string());
        let name = tls.server_name.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
        let shown = tls.identity.as_ref().map(|(certificate, _)| format!(", shown {}", certificate.display()));
        let trust = if tls.pins.is_empty() { ca } else { format!("the key {}", list(&tls.pins)) };
        format!("trusted by {trust}{name}{}", shown.unwrap_or_default())
    });
    let usual = UpstreamSettings::at(upstream.target.clone());
    let time =
        |is: Duration, usual: Duration, to: &str| (is != usual).then(|| format!("{} to {to}", format_duration(is)));
    let times = [
        time(upstream.connect_timeout, usual.connect_timeout, "connect"),
        time(upstream.response_timeout, usual.response_timeout, "answer"),
    ];
    let times: Vec<String> = times.into_iter().flatten().collect();
    let times = (!times.is_empty()).then(|| format!("has {}", times.join(" and ")));
    let sources = &upstream.source_addresses;
    let sources = (!sources.is_empty()).then(|| format!("from {}", list(sources)));
    let header =
        upstream.proxy_protocol.then(|| "each connection with a PROXY header, and for one client only".to_owned());
    [Some(format!("{upstream}, {probed}")), times, tls, header, sources].into_iter().flatten().collect()
}

fn ports(listen: &Listen, terminates_tls: bool) -> Vec<String> {
    let workers = match listen.workers.get() {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    };
    let proxied = listen.proxy_protocol.as_ref();
    let proxied = proxied.map(|proxy| format!("behind the PROXY protocol of {} only", list(&proxy.trusted)));
    let redirect = listen.redirect.map(|address| format!("{address} for http, which is sent to https"));
    let spoken = if terminates_tls { "https and wss" } else { "http and ws, only from the proxies that terminate TLS" };
    let versions = match listen.http2 {
        Http2::On => None,
        Http2::NoWebSockets => Some("WebSockets over HTTP/1.1 alone".to_owned()),
        Http2::Off => Some("HTTP/1.1 alone".to_owned()),
    };
    let all = [Some(format!("{} for {spoken}, {workers}", listen.address)), versions, proxied, redirect];
    all.into_iter().flatten().collect()
}

/// Describes the certificate that is ordered from an authority.
fn orders(acme: &AcmeSettings) -> Vec<String> {
    let AcmeSettings { domains, contact, directory, challenge, external_account, .. } = acme;
    let contact = if contact.is_empty() { String::new() } else { format!(", contact {}", list(contact)) };
    let account = external_account.as_ref().map(|account| format!(", for the account {}", account.key_id));
    vec![
        format!("a certificate for {}", list(domains)),
        format!("from {directory}{contact}{}", account.unwrap_or_default()),
        format!("by {}: port {} of each name must lead here", challenge.as_str(), challenge.port()),
        format!("kept in {}", acme.folder().display()),
    ]
}

fn certificates(tls: &TlsSettings) -> Vec<String> {
    let mut lines = vec![match &tls.acme {
        Some(acme) => match presented_certificate(acme) {
            Some((file, _)) if file == tls.certificate => file.display().to_string(),
            Some((file, _)) => format!("{} until the first order is done", file.display()),
            None => "no certificate before the first order is done".to_owned(),
        },
        None => tls.certificate.display().to_string(),
    }];
    lines.extend(tls.sni.iter().map(|one| format!("{} to {}", one.certificate.display(), list(&one.names))));
    if tls.strict_sni {
        lines.push("no certificate for other names, or without a name".to_owned());
    }
    if tls.modern {
        lines.push("TLS 1.3 only".to_owned());
    }
    match &tls.client_auth {
        ClientAuth::Off => {}
        ClientAuth::Optional(ca) => lines.push(format!("clients may present a certificate of {}", ca.display())),
        ClientAuth::Required(ca) => lines.push(format!("clients must present a certificate of {}", ca.display())),
    }
    lines.extend(tls.hsts.map(|age| format!("Strict-Transport-Security: max-age={}", age.as_secs())));
    lines
}

/// Returns the warning that the limit of open files is too low for the allowed connections.
pub(super) fn open_files(settings: &Settings) -> Option<String> {
    let ConnectionLimit::AtMost(most) = settings.limits.connections else { return None };
    let budget = Budget::of(descriptors::highest_limit(), settings)?;
    let (limit, needed) = (budget.limit, budget.needed(most));
    (needed > limit).then(|| {
        format!(
            "{most} connections need {needed} open files, and the limit here is {limit}: raise it where the proxy runs \
             (ulimit -n, LimitNOFILE), or lower `connections` in [limits] or set it to \"auto\""
        )
    })
}

fn believed(forwarded: &Forwarded) -> Vec<String> {
    let trusted = &forwarded.trusted_proxies;
    let believed = (!trusted.is_empty()).then(|| format!("the forwarded headers of {}", list(trusted)));
    believed.into_iter().collect()
}

/// Describes the limits; `budget` is the one of the machine that runs the check.
fn bounds(limits: &EdgeLimits, budget: Option<Budget>) -> Vec<String> {
    let connections = match (limits.connections, budget) {
        (ConnectionLimit::Auto, Some(budget)) => {
            let Budget { limit, reserve, .. } = budget;
            let most = budget.connections();
            Some(format!("{most} connections: of {limit} open files {reserve} are reserved, and each takes two"))
        }
        (ConnectionLimit::AtMost(most), _) => Some(format!("{most} connections")),
        (ConnectionLimit::Auto, None) | (ConnectionLimit::Off, _) => None,
    };
    let sentences = [
        connections,
        limits.connections_per_ip.map(|most| format!("{most} connections of one address")),
        limits.handshakes_per_ip.map(|most| format!("{most} handshakes a second of one address")),
        limits.memory.map(|bytes| format!("{bytes} bytes held by all sessions")),
    ];
    let sentences: Vec<String> = sentences.into_iter().flatten().collect();
    if sentences.is_empty() { sentences } else { vec![sentences.join(", ")] }
}

fn list<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
