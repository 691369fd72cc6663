//! Where a request comes from: what is believed of it, and what the app is told.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};

use super::Peer;
use super::headers::CLIENT_CERTIFICATE;
use crate::config::Forwarded;
use crate::telemetry::lines::Client;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What only a proxy may say of a request; from anybody but a trusted one it goes no further.
const CLAIMS: [HeaderName; 6] =
    [FORWARDED, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, CLIENT_CERTIFICATE, REQUEST_ID];

/// Returns whether the field `name` is one with which proxies say where a request comes from.
pub(super) fn is_claim(name: &HeaderName) -> bool {
    CLAIMS.contains(name) || *name == REAL_IP || name.as_str().starts_with("x-forwarded-")
}

/// Who has sent a request with these `headers` over a connection with `peer`: behind a trusted proxy the right-most
/// address of `X-Forwarded-For` that is not one itself. What stands left of that one is hearsay.
pub(super) fn client(settings: &Forwarded, peer: SocketAddr, headers: &HeaderMap) -> Client {
    let mut client = Client::Peer(peer);
    if !trusts(settings, peer.ip()) {
        return client;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let nodes = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    for node in nodes.filter(|node| !node.is_empty()) {
        let Some(address) = address(node) else { break };
        client = Client::Forwarded(address);
        if !trusts(settings, address) {
            break;
        }
    }
    client
}

/// Says in `headers` who sent the request and what it was sent to: behind what a trusted `peer` says, in place of what
/// another one does. `host` is the authority that was asked for.
pub(super) fn tell(settings: &Forwarded, headers: &mut HeaderMap, host: &HeaderValue, peer: &Peer) {
    // A v4 client of a dual-stack listener is a v4 client.
    let address = peer.address.ip().to_canonical();
    if !trusts(settings, address) {
        for name in &CLAIMS {
            headers.remove(name);
        }
    }
    let scheme = if peer.tls.is_some() { "https" } else { "http" };
    append(headers, FORWARDED_FOR, address.to_string().as_bytes());
    append(headers, FORWARDED_PROTO, scheme.as_bytes());
    append(headers, FORWARDED_HOST, host.as_bytes());
    if settings.rfc7239 {
        append(headers, FORWARDED, &element(address, host, scheme));
    }
    headers.entry(REQUEST_ID).or_insert_with(request_id);
}

fn trusts(settings: &Forwarded, address: IpAddr) -> bool {
    settings.trusted_proxies.iter().any(|network| network.contains(address))
}

/// Adds `value` to the list that the field holds, and makes it one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    let mut list = Vec::new();
    for line in headers.get_all(&name).iter().map(HeaderValue::as_bytes).filter(|line| !line.is_empty()) {
        list.extend_from_slice(line);
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value);
    headers.insert(name, HeaderValue::try_from(list).expect("field values and addresses make a field value"));
}

/// One hop as RFC 7239 §4 spells it.
fn element(address: IpAddr, host: &HeaderValue, scheme: &str) -> Vec<u8> {
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        // §6: the colons have to be quoted.
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let mut element = format!("for={node};host=").into_bytes();
    if !host.is_empty() && host.as_bytes().iter().all(|byte| is_token(*byte)) {
        element.extend_from_slice(host.as_bytes());
    } else {
        element.push(b'"');
        for byte in host.as_bytes() {
            if matches!(byte, b'"' | b'\\') {
                element.push(b'\\');
            }
            element.push(*byte);
        }
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(scheme.as_bytes());
    element
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The address of a node in X-Forwarded-For; some proxies add its port.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    node.parse().ok().or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

fn request_id() -> HeaderValue {
    HeaderValue::try_from(format!("{:032x}", fastrand::u128(..))).expect("hexadecimal digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Protocol, TlsFacts};

    fn settings(rfc7239: bool) -> Forwarded {
        let trusted_proxies = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect(network)).into();
        Forwarded { trusted_proxies, rfc7239 }
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    /// What the app is told of a request with `fields` from `peer`, without its id.
    fn told(rfc7239: bool, peer: &str, host: &'static str, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let tls = TlsFacts { version: "1.3", group: None, protocol: Protocol::H1, server_name: None, client: None };
        let peer = Peer { address: peer.parse().expect(peer), tls: Some(tls) };
        let mut headers = map(fields);
        tell(&settings(rfc7239), &mut headers, &HeaderValue::from_static(host), &peer);
        assert!(headers.remove(REQUEST_ID).is_some(), "every request has an id");
        headers
    }

    const CLAIMED: &[(&str, &str)] = &[
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "10.0.0.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "first.example"),
        ("x-forwarded-client-cert", "Hash=1"),
        ("forwarded", "for=198.51.100.1;proto=http"),
    ];

    #[test]
    fn a_trusted_proxy_is_added_to() {
        let expected = [
            ("x-forwarded-for", "198.51.100.1, 10.0.0.9, 10.1.2.3"),
            ("x-forwarded-proto", "http, https"),
            ("x-forwarded-host", "first.example, app.example"),
            ("x-forwarded-client-cert", "Hash=1"),
            ("forwarded", "for=198.51.100.1;proto=http"),
        ];
        assert_eq!(told(false, "[::ffff:10.1.2.3]:9", "app.example", CLAIMED), map(&expected));
        let mut with_rfc7239 = map(&expected);
        let forwarded = "for=198.51.100.1;proto=http, for=10.1.2.3;host=app.example;proto=https";
        with_rfc7239.insert(FORWARDED, HeaderValue::from_static(forwarded));
        assert_eq!(told(true, "10.1.2.3:9", "app.example", CLAIMED), with_rfc7239);
    }

    #[test]
    fn anybody_else_is_overruled() {
        let mut expected = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "app.example"),
        ]);
        assert_eq!(told(false, "192.0.2.7:9", "app.example", CLAIMED), expected);
        expected.insert(FORWARDED, HeaderValue::from_static("for=192.0.2.7;host=app.example;proto=https"));
        assert_eq!(told(true, "192.0.2.7:9", "app.example", CLAIMED), expected);
    }

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let forwarded = |peer, host| told(true, peer, host, &[])[FORWARDED].clone();
        assert_eq!(forwarded("[2001:db8::1]:9", "a:8443"), r#"for="[2001:db8::1]";host="a:8443";proto=https"#);
        assert_eq!(forwarded("192.0.2.7:9", r#"a";by=x\"#), r#"for=192.0.2.7;host="a\";by=x\\";proto=https"#);
        assert_eq!(forwarded("192.0.2.7:9", ""), r#"for=192.0.2.7;host="";proto=https"#);
    }

    #[test]
    fn the_id_of_a_request_is_kept_from_a_trusted_proxy_alone() {
        let id = |peer: &str| {
            let mut headers = map(&[("x-request-id", "abc")]);
            let peer = Peer { address: peer.parse().expect(peer), tls: None };
            tell(&settings(false), &mut headers, &HeaderValue::from_static("a"), &peer);
            headers[REQUEST_ID].clone()
        };
        assert_eq!(id("10.0.0.1:9"), "abc");
        let (one, other) = (id("192.0.2.7:9"), id("192.0.2.7:9"));
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }

    #[test]
    fn the_client_is_the_nearest_that_no_trusted_proxy_is() {
        let client = |peer: &str, fields: &[(&'static str, &'static str)]| {
            client(&settings(false), peer.parse().expect(peer), &map(fields)).to_string()
        };
        let via = |value| client("10.0.0.1:9", &[("x-forwarded-for", value)]);
        assert_eq!(client("192.0.2.7:9", &[("x-forwarded-for", "198.51.100.1")]), "192.0.2.7:9");
        assert_eq!(via("198.51.100.1"), "198.51.100.1");
        assert_eq!(via("6.6.6.6, 198.51.100.1, 10.0.0.2 ,10.0.0.3"), "198.51.100.1");
        assert_eq!(via("10.0.0.4, 10.0.0.3"), "10.0.0.4", "all are trusted: the first of them asks for itself");
        assert_eq!(via("6.6.6.6, unknown, 10.0.0.3"), "10.0.0.3", "nobody vouches for what lies behind");
        assert_eq!(via("unknown"), "10.0.0.1:9");
        assert_eq!(via(""), "10.0.0.1:9");
        assert_eq!(via("198.51.100.1:4000"), "198.51.100.1");
        assert_eq!(via("[2001:db9::1]:4000, [2001:db8::1]"), "2001:db9::1");
        assert_eq!(via("::ffff:198.51.100.1"), "198.51.100.1");
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.1, 10.0.0.2")];
        assert_eq!(client("10.0.0.1:9", &lines), "198.51.100.1", "several lines are one list");
    }
}
