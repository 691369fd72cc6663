//! What the configuration knows and the proxy does not do yet. A setting that would be ignored is refused at the start,
//! for some of them are a protection that somebody relies on. Whoever builds one takes its lines out, and whoever builds
//! the last one this file.

use crate::config::{OriginPolicy, Settings};

/// The first setting that is not in this version.
pub(crate) fn first(settings: &Settings) -> Option<&'static str> {
    all(settings).into_iter().find_map(|(name, is_set)| is_set.then_some(name))
}

fn all(settings: &Settings) -> Vec<(&'static str, bool)> {
    let Settings { upstream, routes, limits, forwarded, .. } = settings;
    let mut upstreams = settings.upstreams().into_iter();
    vec![
        ("TLS with the app (upstream.url = \"https://…\")", upstreams.clone().any(|app| app.tls.is_some())),
        ("upstream.source_addresses", upstreams.any(|app| !app.source_addresses.is_empty())),
        //
        ("route.upstream", routes.iter().any(|route| route.upstream != *upstream)),
        //
        ("limits.memory", limits.memory.is_some()),
        //
        ("limits.messages_per_second", routes.iter().any(|route| route.limits.messages_per_second.is_some())),
        //
        ("origins.allow", routes.iter().any(|route| *route.origins != OriginPolicy::Any)),
        //
        ("forwarded.trusted_proxies", !forwarded.trusted_proxies.is_empty()),
        ("forwarded.rfc7239", forwarded.rfc7239),
    ]
}
