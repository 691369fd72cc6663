//! What the configuration knows and the proxy does not do yet. A setting that would be ignored is refused at the start,
//! for some of them are a protection that somebody relies on. Whoever builds one takes its lines out, and whoever builds
//! the last one this file.

use super::{ClientAuth, Settings};

impl Settings {
    /// The first setting that nothing heeds in this version.
    pub(crate) fn first_unbuilt(&self) -> Option<&'static str> {
        all(self).into_iter().find_map(|(name, is_set)| is_set.then_some(name))
    }
}

fn all(settings: &Settings) -> Vec<(&'static str, bool)> {
    let Settings { listen, tls, limits, .. } = settings;
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
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Environment, Overrides, from_str};

    fn refused(variable: &str, value: &str) -> Option<&'static str> {
        let text = "[tls]\ncertificate = \"a\"\nprivate_key = \"b\"\n[upstream]\nurl = \"http://127.0.0.1:3000\"";
        let environment: Environment = [(format!("PULSEGATE__{variable}"), value)].into_iter().collect();
        let settings = from_str(Path::new("a"), text, &environment, &Overrides::default());
        settings.unwrap_or_else(|report| panic!("{report}")).first_unbuilt()
    }

    #[test]
    fn what_nothing_heeds_is_refused_and_what_is_built_is_not() {
        assert_eq!(refused("LOG__LEVEL", "debug"), None);
        assert_eq!(refused("UPSTREAM__URL", "https://127.0.0.1:3000"), None);
        for (variable, value) in [
            ("LISTEN__PROXY_PROTOCOL__TRUSTED", "['10.0.0.0/8']"),
            ("LISTEN__REDIRECT", "127.0.0.1:0"),
            ("TLS__STRICT_SNI", "true"),
            ("TLS__MODERN", "true"),
            ("TLS__CLIENT_AUTH", "{ mode = 'required', ca = 'a' }"),
            ("TLS__HSTS", "1h"),
            ("LIMITS__CONNECTIONS", "1"),
        ] {
            let key = variable.to_lowercase().replace("__", ".");
            let name = refused(variable, value).unwrap_or_else(|| panic!("{key} is accepted"));
            assert!(key.starts_with(name), "{key} is refused as {name}");
        }
    }
}
