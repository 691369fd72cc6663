//! The pages that may open WebSockets: the one protection that a browser leaves to the server (RFC 6455 §10.2).

use std::fmt;

use super::host::{bare, is_below, split_port};

/// The origins whose pages may open WebSockets. A request without `Origin` comes from no browser and is no case for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Every origin.
    #[default]
    Any,
    /// Those that one of these allows.
    Only(Vec<AllowedOrigin>),
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// This origin: `scheme://host[:port]` in lower case, the port left out where it is the scheme's own.
    Exact(Box<str>),
    /// Every origin below a domain, at any depth but not the domain itself.
    Subdomains {
        /// In lower case.
        scheme: Box<str>,
        /// The domain with a dot in front, in lower case.
        suffix: Box<str>,
        /// `None` is the scheme's own.
        port: Option<u16>,
    },
    /// The https origin of the very host, port included, that the request is for.
    SameHost,
    /// `null`: sandboxed frames and local files. Any page can make itself one of these.
    Null,
}

/// An origin taken apart (RFC 6454 §7.1), in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageOrigin {
    pub(super) scheme: Box<str>,
    /// An IPv6 address is in brackets.
    pub(super) host: Box<str>,
    /// `None` where it is the scheme's own.
    pub(super) port: Option<u16>,
}

impl OriginPolicy {
    /// Returns whether a page of `origin`, the value of the header, may open a WebSocket to `host`, the authority of the
    /// request. What cannot be read as one origin is allowed by [`Any`](Self::Any) alone.
    pub fn allows(&self, origin: &str, host: &str) -> bool {
        let allowed = match self {
            Self::Any => return true,
            Self::Only(allowed) => allowed,
        };
        if origin == "null" {
            return allowed.contains(&AllowedOrigin::Null);
        }
        let Some(origin) = PageOrigin::parse(origin) else { return false };
        let text = origin.to_string();
        allowed.iter().any(|allowed| allowed.fits(&origin, &text, host))
    }
}

impl AllowedOrigin {
    fn fits(&self, origin: &PageOrigin, text: &str, authority: &str) -> bool {
        match self {
            Self::Exact(allowed) => **allowed == *text,
            Self::Subdomains { scheme, suffix, port } => {
                origin.scheme == *scheme && origin.port == *port && is_below(&origin.host, suffix)
            }
            Self::SameHost => {
                let port = match split_port(authority).1 {
                    Some(port) => port.parse().ok(),
                    None => own_port("https"),
                };
                let same_port = port.is_some_and(|port| origin.port.unwrap_or(443) == port);
                &*origin.scheme == "https" && *origin.host == *bare(authority) && same_port
            }
            Self::Null => false,
        }
    }
}

impl fmt::Display for AllowedOrigin {
    /// The way it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Subdomains { scheme, suffix, port } => {
                write!(f, "{scheme}://*{suffix}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
            Self::SameHost => f.write_str("same-host"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl PageOrigin {
    /// Reads `scheme://host[:port]`, nothing more and nothing less.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority);
        let is_invalid = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '?' | '#' | '@' | '\\' | ',');
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if !is_scheme(scheme) || host.is_empty() || host.contains(is_invalid) || (host.contains(':') && !bracketed) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        let port = port.filter(|port| own_port(&scheme) != Some(*port));
        Some(Self { scheme: scheme.into(), host: bare(host).into(), port })
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The port that an origin of `scheme` has when it names none.
fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// RFC 3986 §3.1. Apps in a shell of their own have schemes of their own: `capacitor`, `tauri`, `chrome-extension`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(allowed: AllowedOrigin) -> OriginPolicy {
        OriginPolicy::Only(vec![allowed])
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let policy = only(AllowedOrigin::Exact("https://app.example".into()));
        for origin in ["https://app.example", "https://app.example:443", "HTTPS://App.Example", "https://app.example."]
        {
            assert!(policy.allows(origin, "x"), "{origin}");
        }
        for origin in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil",
            "https://evil-app.example",
            "https://a.app.example",
            "https://app.example@evil",
            "https://evil/https://app.example",
            "https://app.example/",
            "https://app.example https://evil",
            "https://app.example, https://evil",
            "https://app.example:",
            "https://app.example:+443",
            "app.example",
            "null",
            "",
        ] {
            assert!(!policy.allows(origin, "app.example"), "{origin}");
        }
        let ported = only(AllowedOrigin::Exact("http://localhost:3000".into()));
        assert!(ported.allows("http://localhost:3000", "x") && !ported.allows("http://localhost", "x"));
        let own = only(AllowedOrigin::Exact("capacitor://localhost".into()));
        assert!(own.allows("capacitor://localhost", "x") && !own.allows("https://localhost", "x"));
        let address = only(AllowedOrigin::Exact("http://[::1]:3000".into()));
        assert!(address.allows("http://[::1]:3000", "x") && !address.allows("http://::1:3000", "x"));
    }

    #[test]
    fn a_wildcard_stands_for_what_is_below() {
        let policy =
            only(AllowedOrigin::Subdomains { scheme: "https".into(), suffix: ".app.example".into(), port: None });
        for origin in ["https://a.app.example", "https://b.a.app.example", "https://A.app.example:443"] {
            assert!(policy.allows(origin, "x"), "{origin}");
        }
        for origin in [
            "https://app.example",
            "https://.app.example",
            "https://evilapp.example",
            "http://a.app.example",
            "https://a.app.example:8443",
            "https://a.app.example.evil",
            "https://evil/.app.example",
            "https://evil?.app.example",
            "https://evil\\.app.example",
        ] {
            assert!(!policy.allows(origin, "x"), "{origin}");
        }
    }

    #[test]
    fn the_same_host_is_the_host_that_is_asked() {
        let policy = only(AllowedOrigin::SameHost);
        for (origin, host) in [
            ("https://app.example", "app.example"),
            ("https://app.example", "App.Example:443"),
            ("https://app.example:8443", "app.example:8443"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert!(policy.allows(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://evil.example", "app.example"),
            ("https://app.example:8443", "app.example"),
            ("https://app.example", "app.example:8443"),
            // A page that was loaded without TLS may come from any network on its way.
            ("http://app.example", "app.example"),
            ("http://app.example:443", "app.example"),
            ("https://app.example", "app.example:x"),
            ("https://app.example", ""),
            ("null", "null"),
        ] {
            assert!(!policy.allows(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn null_and_nobody_are_what_they_say() {
        assert!(only(AllowedOrigin::Null).allows("null", "x"));
        assert!(!only(AllowedOrigin::Null).allows("https://null", "x"));
        let nobody = OriginPolicy::Only(Vec::new());
        assert!(!nobody.allows("https://app.example", "app.example") && !nobody.allows("null", "x"));
        assert!(OriginPolicy::Any.allows("anything at all", "x"));
    }
}
