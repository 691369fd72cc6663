//! Hosts: the names in the configuration, the hosts of requests, and which of them are the same.

use std::borrow::Cow;
use std::fmt;

/// The hosts that a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name or IP address (in brackets, if IPv6), in lower case.
    Exact(Box<str>),
    /// Every name that ends so, at any depth but not the bare domain: `*.example.com` is kept as `.example.com`, in
    /// lower case.
    Subdomains(Box<str>),
}

impl HostPattern {
    /// Returns whether it matches `host`, which is [`bare`].
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == &**name,
            Self::Subdomains(suffix) => is_below(host, suffix),
        }
    }

    /// Returns whether it matches every host that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Subdomains(suffix), Self::Subdomains(other)) => other.ends_with(&**suffix),
            (Self::Exact(_), Self::Subdomains(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    /// The way it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Subdomains(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// The host of `authority` as patterns have it: without port and final dot, in lower case.
pub fn bare(authority: &str) -> Cow<'_, str> {
    let (host, _) = split_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// `host:port` taken apart; an IPv6 address keeps its brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Returns whether `host` is a name with at least one label before `suffix`, which begins with a dot.
pub(super) fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_for_its_hosts_and_no_other() {
        let exact = HostPattern::Exact("app.example".into());
        let below = HostPattern::Subdomains(".app.example".into());
        for (host, is_exact, is_below) in [
            ("app.example", true, false),
            ("a.app.example", false, true),
            ("b.a.app.example", false, true),
            ("app.example.evil", false, false),
            ("evilapp.example", false, false),
            (".app.example", false, false),
            ("a..app.example", false, false),
            ("", false, false),
        ] {
            assert_eq!(exact.matches(host), is_exact, "{host}");
            assert_eq!(below.matches(host), is_below, "{host}");
        }
    }

    #[test]
    fn the_host_of_a_request_is_laid_bare() {
        for (authority, host) in [
            ("app.example", "app.example"),
            ("App.Example:8443", "app.example"),
            ("app.example.", "app.example"),
            ("app.example.:443", "app.example"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:8443", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(bare(authority), host, "{authority}");
        }
        assert!(matches!(bare("app.example:8443"), Cow::Borrowed(_)), "nothing is copied without need");
    }

    #[test]
    fn one_pattern_may_cover_another() {
        let exact = |name: &str| HostPattern::Exact(name.into());
        let below = |name: &str| HostPattern::Subdomains(name.into());
        assert!(below(".example").covers(&exact("app.example")));
        assert!(below(".example").covers(&below(".app.example")));
        assert!(below(".example").covers(&below(".example")));
        assert!(!below(".app.example").covers(&below(".example")));
        assert!(!below(".example").covers(&exact("example")));
        assert!(exact("a").covers(&exact("a")) && !exact("a").covers(&exact("b")));
        assert!(!exact("a.example").covers(&below(".example")));
    }
}
