//! Authorisation of admin requests: Host, Origin and bearer token.
//!
//! A browser lets any page send requests to any address, and a foreign name that resolves to 127.0.0.1 (DNS rebinding)
//! makes this listener same-origin with that page. So Host must be a name of this listener, on every socket.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};

use super::response::{RequestRefusal, short};
use crate::config::{Token, bare_host};

/// The connection that a request arrived on.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    /// The local address of the connection; `None` on a unix socket.
    pub(super) address: Option<IpAddr>,
    /// The name of the TLS handshake; `None` without TLS.
    pub(super) tls: Option<Named>,
}

/// The server name of a TLS handshake (SNI, RFC 6066 §3). A browser proceeds only with a certificate for it or with
/// the consent of its user, so it cannot be a rebound name.
pub(super) type Named = Option<Arc<str>>;

/// The checks of Host and Origin.
#[derive(Debug)]
pub(super) struct Guard {
    /// The configured address; `None` for a unix socket.
    pub(super) configured: Option<IpAddr>,
}

impl Guard {
    /// Checks that `request` names this listener and comes from no page but its own. Fails with 400 (no single host),
    /// 421 (foreign host) or 403 (foreign origin).
    pub(super) fn check<B>(&self, request: &Request<B>, way: &Way) -> Result<(), RequestRefusal> {
        let host = host(request).ok_or_else(|| {
            RequestRefusal::bad(
                "host",
                "the request must name one host: send one Host header, such as \"Host: localhost\"",
            )
        })?;
        if !self.is_ours(host, way) {
            let message = format!(
                "Host {:?} is not served here: use localhost, a loopback address, or the address that is configured as \
                 admin.socket",
                short(host)
            );
            return Err(RequestRefusal::new(StatusCode::MISDIRECTED_REQUEST, "host", message));
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        if let Some(origin) = origins.find(|origin| !is_same(origin, host, way)) {
            let message = format!(
                "requests from pages of {} are refused; use the page that is served here",
                short(&format!("{origin:?}"))
            );
            return Err(RequestRefusal::new(StatusCode::FORBIDDEN, "origin", message));
        }
        Ok(())
    }

    fn is_ours(&self, authority: &str, way: &Way) -> bool {
        let host = bare_host(authority);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            // An address cannot be rebound.
            Ok(address) => {
                let address = address.to_canonical();
                let ours = [self.configured, way.address].into_iter().flatten();
                address.is_loopback() || ours.map(|ours| ours.to_canonical()).any(|ours| ours == address)
            }
            Err(_) => {
                let asked_for = way.tls.as_ref().and_then(Option::as_deref);
                host == "localhost" || asked_for.is_some_and(|name| *name == *host)
            }
        }
    }
}

/// Checks the bearer token in `headers`, if `token` is configured. Fails with 401.
pub(super) fn knows(token: Option<&Token>, headers: &HeaderMap) -> Result<(), RequestRefusal> {
    let Some(token) = token else { return Ok(()) };
    let message = match bearer(headers) {
        Some(presented) if token.matches(presented) => return Ok(()),
        Some(_) => "this is not the token in the file that admin.token_file names",
        None => "send the token in the file that admin.token_file names, as \"Authorization: Bearer TOKEN\"",
    };
    let challenge = HeaderValue::from_static("Bearer realm=\"pulsegate\"");
    Err(RequestRefusal::new(StatusCode::UNAUTHORIZED, "token", message).with(WWW_AUTHENTICATE, challenge))
}

/// Returns the host of the request; `None` if there is none or more than one.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => None,
        (Some(target), ..) => Some(target.as_str()),
        (None, host, None) => host?.to_str().ok().filter(|host| !host.is_empty()),
    }
}

/// Returns whether `origin` is the origin of a page served by `host` (RFC 6454 §4).
fn is_same(origin: &HeaderValue, host: &str, way: &Way) -> bool {
    let scheme = if way.tls.is_some() { "https://" } else { "http://" };
    let theirs = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme));
    theirs.is_some_and(|theirs| theirs.eq_ignore_ascii_case(host))
}

/// Returns the token of `Authorization: Bearer` (RFC 6750 §2.1); `None` unless there is exactly one such header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut credentials = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, origin: Option<&str>, way: &Way) -> Result<(), &'static str> {
        let mut request = Request::builder().uri("/v1/info").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let guard = Guard { configured: "192.0.2.7".parse().ok() };
        guard.check(&request.body(()).expect("a request"), way).map_err(|refusal| refusal.code)
    }

    fn plain() -> Way {
        Way { address: "10.0.0.3".parse().ok(), tls: None }
    }

    #[test]
    fn a_request_must_be_for_a_name_of_ours() {
        for ours in [
            "localhost",
            "LocalHost:4040",
            "localhost.:4040",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]:4040",
            "[::ffff:127.0.0.1]",
            "192.0.2.7:4040",
            "10.0.0.3",
        ] {
            assert_eq!(asked(ours, None, &plain()), Ok(()), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "10.0.0.4", "[2001:db8::1]", "0.0.0.0", "127.0.0.1.nip"]
        {
            assert_eq!(asked(foreign, None, &plain()), Err("host"), "{foreign}");
        }
        let tls = Way { tls: Some(Some("admin.example".into())), ..plain() };
        assert_eq!(asked("Admin.Example:4040", None, &tls), Ok(()), "its certificate was accepted for that name");
        assert_eq!(asked("other.example", None, &tls), Err("host"));
        assert_eq!(asked("admin.example", None, &plain()), Err("host"));
    }

    #[test]
    fn a_page_must_be_ours() {
        assert_eq!(asked("localhost:4040", Some("http://localhost:4040"), &plain()), Ok(()));
        for foreign in
            ["http://localhost:3000", "https://localhost:4040", "http://evil.example", "null", "", "localhost:4040"]
        {
            assert_eq!(asked("localhost:4040", Some(foreign), &plain()), Err("origin"), "{foreign:?}");
        }
        let tls = Way { tls: Some(None), ..plain() };
        assert_eq!(asked("localhost:4040", Some("https://localhost:4040"), &tls), Ok(()));
        assert_eq!(asked("localhost:4040", Some("http://localhost:4040"), &tls), Err("origin"));
    }

    #[test]
    fn a_token_is_shown_in_one_way_only() {
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().expect("a header value"));
            }
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(shown(&["Bearer abc"]).as_deref(), Some(&b"abc"[..]));
        assert_eq!(shown(&["bearer  abc "]).as_deref(), Some(&b"abc"[..]));
        for wrong in [&["abc"][..], &["Basic abc"], &["Bearer"], &["Bearer abc", "Bearer abc"], &[]] {
            assert_eq!(shown(wrong), None, "{wrong:?}");
        }
    }
}
