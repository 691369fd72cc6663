//! What the configuration knows and the proxy does not do yet. A setting that would be ignored is refused at the start,
//! for some of them are a protection that somebody relies on. Whoever builds one takes its lines out, and whoever builds
//! the last one this file.

use crate::config::{ClientAuth, OriginPolicy, Settings};

/// The first setting that is not in this version.
pub(crate) fn first(settings: &Settings) -> Option<&'static str> {
    all(settings).into_iter().find_map(|(name, is_set)| is_set.then_some(name))
}

fn all(settings: &Settings) -> Vec<(&'static str, bool)> {
    let Settings { listen, tls, routes, limits, .. } = settings;
    vec![
        ("listen.proxy_protocol", listen.proxy_protocol.is_some()),
        ("listen.redirect", listen.redirect.is_some()),
        //
        ("tls.sni", !tls.sni.is_empty()),
        ("tls.strict_sni", tls.strict_sni),
        ("tls.modern", tls.modern),
        ("tls.client_auth", tls.client_auth != ClientAuth::Off),
        //
        ("tls.hsts", tls.hsts.is_some()),
        //
        ("limits.connections", limits.connections.is_some()),
        ("limits.connections_per_ip", limits.connections_per_ip.is_some()),
        ("limits.handshakes_per_ip", limits.handshakes_per_ip.is_some()),
        //
        ("limits.memory", limits.memory.is_some()),
        //
        ("limits.messages_per_second", routes.iter().any(|route| route.limits.messages_per_second.is_some())),
        //
        ("origins.allow", routes.iter().any(|route| *route.origins != OriginPolicy::Any)),
    ]
}
