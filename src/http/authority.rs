//! The authority that a request names.

use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use crate::upstream::{self, Upstream};

/// The authority that a request names: that of an absolute target, else its one Host (RFC 9112 §3.2), which must be
/// there either way.
#[derive(Debug)]
pub(super) enum RequestHost {
    /// One authority.
    Named(HeaderValue),
    /// None, as HTTP/1.0 may.
    Absent,
    /// Missing where it is required, named twice, or no authority.
    Invalid,
}

impl RequestHost {
    /// Reads the authority that `request` names.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) if is_authority(host.as_bytes()) => Some(host),
            (None, _) if request.version() != Version::HTTP_11 => None,
            _ => return Self::Invalid,
        };
        match (request.uri().authority(), host) {
            // Host counts for nothing beside it (RFC 9112 §3.2.2).
            (Some(target), _) if is_authority(target.as_str().as_bytes()) => {
                HeaderValue::from_str(target.as_str()).map_or(Self::Invalid, Self::Named)
            }
            (Some(_), _) => Self::Invalid,
            (None, Some(host)) => Self::Named(host.clone()),
            (None, None) if request.version() == Version::HTTP_10 => Self::Absent,
            (None, None) => Self::Invalid,
        }
    }

    /// The authority as text, by which a route is found.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Named(host) => host.to_str().ok(),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// Returns the Host that the app gets: the authority of the app itself where the client may name none. `None` for a
    /// bad request.
    pub(super) fn or_of(self, upstream: &Upstream) -> Option<HeaderValue> {
        match self {
            Self::Named(host) => Some(host),
            Self::Absent => HeaderValue::try_from(upstream::authority(upstream.target())).ok(),
            Self::Invalid => None,
        }
    }
}

/// Returns whether `text` is a host, with a port or without, and nothing else: a user in front would only hide which host
/// it is (RFC 9110 §4.2.4).
fn is_authority(text: &[u8]) -> bool {
    if PlainAuthority::read(text).is_some() {
        return true;
    }
    // A port may be left out behind its colon (RFC 3986 §3.2.3).
    let is_port = |port: &str| match port.strip_prefix(':') {
        Some(digits) => {
            digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    Authority::try_from(text).is_ok_and(|authority| {
        let (host, text) = (authority.host(), authority.as_str());
        !host.is_empty() && text.strip_prefix(host).is_some_and(is_port)
    })
}

/// An authority that is a name or an IPv4 address, with a port or not, as nearly every one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlainAuthority {
    pub(super) port: Option<u16>,
}

impl PlainAuthority {
    /// Reads `authority`. `None` for all others, valid or not: these take a parser.
    pub(super) fn read(authority: &[u8]) -> Option<Self> {
        let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let len = authority.iter().position(|byte| !is_of_name(byte)).unwrap_or(authority.len());
        match &authority[len..] {
            _ if len == 0 => None,
            [] => Some(Self { port: None }),
            [b':', digits @ ..] if matches!(digits.len(), 1..=5) => {
                let number = digits.iter().try_fold(0_u32, |number, digit| {
                    digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
                });
                Some(Self { port: Some(u16::try_from(number?).ok()?) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_parser_is_read_as_the_parser_reads_it() {
        for text in ["app.example", "APP-1.example:8443", "192.0.2.1:65535", "a:0", "a:00080", "-", "..", "1:1"] {
            let parsed = Authority::try_from(text).expect(text);
            assert_eq!(
                PlainAuthority::read(text.as_bytes()),
                Some(PlainAuthority { port: parsed.port_u16() }),
                "{text}"
            );
            assert!(text.starts_with(parsed.host()) && !parsed.host().is_empty(), "{text}");
        }
        for text in
            ["", ":80", "a:", "a:65536", "a:123456", "a:+1", "a:b", "u@a", "[::1]:80", "a:1:2", "a_b", "a/", "ä"]
        {
            assert_eq!(PlainAuthority::read(text.as_bytes()), None, "{text} takes the parser");
        }
    }
}
