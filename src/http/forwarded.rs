//! The origin of a request: which fields about it are believed, and which the app gets.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Once;

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};
use hyper::http::uri::Authority;

use super::authority::PlainAuthority;
use super::client_certificate::CLIENT_CERTIFICATE;
use super::peer::{Peer, address_value};
use crate::config::{Forwarded, IDENTITY_FIELDS};
use crate::session::ClientAddress;
use crate::telemetry::log_events;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that a request gets, at most.
const OWN_FIELDS: usize = 10;

/// Fields that only a proxy may set, and that this one sets; those of an untrusted peer are replaced.
const CLAIMS: [HeaderName; 8] = [
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PORT,
    REAL_IP,
    CLIENT_CERTIFICATE,
    REQUEST_ID,
];

/// The rules for the fields about a client that reach the app, and for those that are removed, prepared for each request.
#[derive(Debug)]
pub(super) struct ForwardingPolicy {
    settings: Forwarded,
    /// For each length, the first letters of fields that an untrusted peer may not send: nearly every field of a request is
    /// found to be none of them by a look here.
    shapes: [u32; SHAPES],
}

/// Lengths of names that are distinguished; longer ones count as the longest.
const SHAPES: usize = 48;

/// The bit of a name among those of its length.
fn shape(name: &str) -> (usize, u32) {
    let first = name.as_bytes().first().copied().unwrap_or_default();
    (name.len().min(SHAPES - 1), 1 << (first % 32))
}

impl From<Forwarded> for ForwardingPolicy {
    fn from(settings: Forwarded) -> Self {
        let mut shapes = [0; SHAPES];
        for name in CLAIMS.iter().map(HeaderName::as_str).chain(settings.strip.iter().map(|name| &**name)) {
            let (len, letter) = shape(name);
            shapes[len] |= letter;
        }
        Self { settings, shapes }
    }
}

impl Deref for ForwardingPolicy {
    type Target = Forwarded;

    fn deref(&self) -> &Forwarded {
        &self.settings
    }
}

impl ForwardingPolicy {
    /// Returns whether a field is removed from the requests of untrusted peers.
    fn removes(&self, name: &HeaderName) -> bool {
        let (len, letter) = shape(name.as_str());
        self.shapes[len] & letter != 0 && (CLAIMS.contains(name) || self.is_listed(name))
    }

    fn is_listed(&self, name: &HeaderName) -> bool {
        self.strip.iter().any(|listed| **listed == *name.as_str())
    }
}

/// Logs the first field of `forwarded.strip` that is removed, once in the life of the process.
static FIRST_STRIPPED: Once = Once::new();

/// Returns whether the field `name` is one with which proxies say where a request comes from.
pub(super) fn is_claim(name: &HeaderName) -> bool {
    let text = name.as_str();
    CLAIMS.contains(name) || text.starts_with("x-forwarded-") || IDENTITY_FIELDS.contains(&text)
}

/// Returns the client of a request with these `headers` over a connection with `peer`: behind a trusted proxy the
/// right-most address of `X-Forwarded-For` that is not one itself. What stands left of that one is hearsay.
pub(super) fn client(settings: &Forwarded, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
    let mut client = ClientAddress::Peer(peer);
    if !trusts(settings, peer.ip()) {
        return client;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let nodes = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    for node in nodes.filter(|node| !node.is_empty()) {
        let Some(address) = address(node) else { break };
        client = ClientAddress::Forwarded(address);
        if !trusts(settings, address) {
            break;
        }
    }
    client
}

/// Returns whether `peer` is a trusted proxy, whose fields about the client count.
pub(super) fn is_trusted(settings: &Forwarded, peer: SocketAddr) -> bool {
    trusts(settings, peer.ip())
}

/// Returns the line of `X-Forwarded-Host` that holds the host ([`first_value`]).
pub(super) fn host_line(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get_all(FORWARDED_HOST).iter().find(|line| first_value(line).is_some())
}

/// Returns the id of a request whose headers are the app's already.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(REQUEST_ID).map(HeaderValue::as_bytes)
}

/// Returns the host that the client asked for: the one that a trusted peer states, otherwise `host`, the authority of
/// the request itself.
pub(super) fn host(settings: &Forwarded, peer: SocketAddr, headers: &HeaderMap, host: &HeaderValue) -> HeaderValue {
    let sent = trusts(settings, peer.ip()).then(|| single(headers, &FORWARDED_HOST)).flatten();
    sent.unwrap_or_else(|| host.clone())
}

/// Writes into `headers` where the request comes from and what it asked for. An untrusted `peer` is the client: its own
/// claims are replaced, and the fields of `forwarded.strip` removed. A trusted one is another proxy: its address is added to
/// the lists (`X-Forwarded-For`, `Forwarded`), and its fields that have one value stand. `host` is the
/// authority of the request.
pub(super) fn set_forwarding_fields(
    policy: &ForwardingPolicy,
    headers: &mut HeaderMap,
    host: &HeaderValue,
    peer: &Peer,
) {
    // Rather than grow for one field after another.
    headers.reserve(OWN_FIELDS);
    // A v4 client of a dual-stack listener is a v4 client.
    let address = peer.address.ip().to_canonical();
    let own_scheme = if peer.tls.is_some() { "https" } else { "http" };
    if trusts(policy, address) {
        let client = client(policy, peer.address, headers).address();
        let scheme = settle(headers, FORWARDED_PROTO, || HeaderValue::from_static(own_scheme));
        let asked_for = settle(headers, FORWARDED_HOST, || host.clone());
        settle(headers, FORWARDED_PORT, || port(&asked_for, &scheme));
        settle(headers, REAL_IP, || address_value(client));
        append(headers, FORWARDED_FOR, peer.address_value().as_bytes());
    } else {
        // Without TLS every connection comes from a trusted proxy, and where a PROXY header names a client behind that,
        // the proxy still decides on the scheme: only it knows whether the client uses TLS.
        let told_scheme = if peer.tls.is_none() { single(headers, &FORWARDED_PROTO) } else { None };
        strip(policy, headers, peer.address);
        let scheme = told_scheme.unwrap_or_else(|| HeaderValue::from_static(own_scheme));
        let port = port(host, &scheme);
        headers.insert(FORWARDED_PROTO, scheme);
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(FORWARDED_PORT, port);
        let address = peer.address_value();
        headers.insert(REAL_IP, address.clone());
        headers.insert(FORWARDED_FOR, address.clone());
    }
    if policy.rfc7239 {
        append(headers, FORWARDED, &element(address, host, own_scheme));
    }
    headers.entry(REQUEST_ID).or_insert_with(new_request_id);
}

/// Removes the fields by which an app might take the client for another one.
fn strip(policy: &ForwardingPolicy, headers: &mut HeaderMap, peer: SocketAddr) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| policy.removes(name)).cloned().collect();
    for name in &removed {
        headers.remove(name);
        if !CLAIMS.contains(name) {
            FIRST_STRIPPED.call_once(|| log_events::header_stripped(peer, name.as_str()));
        }
    }
}

/// Reduces a field that has one value to it, or sets it to `own` where there is none; returns the value.
fn settle(headers: &mut HeaderMap, name: HeaderName, own: impl FnOnce() -> HeaderValue) -> HeaderValue {
    let value = single(headers, &name).unwrap_or_else(own);
    headers.insert(name, value.clone());
    value
}

/// The value of a field that should have one. Of a list it is the first, which is the one that Express takes.
fn single(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    first(headers, name).and_then(|value| HeaderValue::from_bytes(value).ok())
}

/// The bytes of that value.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get_all(name).iter().find_map(first_value)
}

/// Returns the first value of a line that holds a list; empty elements count for nothing (RFC 9110 §5.6.1.2).
pub(super) fn first_value(line: &HeaderValue) -> Option<&[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find(|value| !value.is_empty())
}

/// The port that the client asked for: that of `host`, or the one that its scheme implies.
fn port(host: &HeaderValue, scheme: &HeaderValue) -> HeaderValue {
    let named = match PlainAuthority::read(host.as_bytes()) {
        Some(plain) => plain.port,
        None => Authority::try_from(host.as_bytes()).ok().and_then(|authority| authority.port_u16()),
    };
    let implied = || HeaderValue::from_static(if scheme == "http" { "80" } else { "443" });
    named.map_or_else(implied, HeaderValue::from)
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

/// Returns whether `byte` may stand in a token (RFC 9110 §5.6.2).
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

fn new_request_id() -> HeaderValue {
    let id = data_encoding::HEXLOWER.encode(&fastrand::u128(..).to_be_bytes());
    HeaderValue::try_from(id).expect("hexadecimal digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Protocol, TlsFacts};

    fn settings(rfc7239: bool) -> Forwarded {
        let trusted_proxies = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect(network)).into();
        Forwarded { trusted_proxies, rfc7239, ..Forwarded::default() }
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

    /// The fields that the app gets with a request with `fields` from `peer`, without its id.
    fn sent(rfc7239: bool, peer: &str, host: &'static str, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let tls = TlsFacts { version: "1.3", group: None, protocol: Protocol::H1, server_name: None, client: None };
        let peer = Peer { tls: Some(tls), ..Peer::at(peer.parse().expect(peer)) };
        let mut headers = map(fields);
        set_forwarding_fields(&settings(rfc7239).into(), &mut headers, &HeaderValue::from_static(host), &peer);
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
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "first.example"),
            ("x-forwarded-port", "80"),
            ("x-real-ip", "198.51.100.1"),
            ("x-forwarded-client-cert", "Hash=1"),
            ("forwarded", "for=198.51.100.1;proto=http"),
        ];
        assert_eq!(sent(false, "[::ffff:10.1.2.3]:9", "app.example", CLAIMED), map(&expected));
        let mut with_rfc7239 = map(&expected);
        let forwarded = "for=198.51.100.1;proto=http, for=10.1.2.3;host=app.example;proto=https";
        with_rfc7239.insert(FORWARDED, HeaderValue::from_static(forwarded));
        assert_eq!(sent(true, "10.1.2.3:9", "app.example", CLAIMED), with_rfc7239);
    }

    #[test]
    fn anybody_else_is_overruled() {
        let mut expected = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "app.example"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "192.0.2.7"),
        ]);
        assert_eq!(sent(false, "192.0.2.7:9", "app.example", CLAIMED), expected);
        expected.insert(FORWARDED, HeaderValue::from_static("for=192.0.2.7;host=app.example;proto=https"));
        assert_eq!(sent(true, "192.0.2.7:9", "app.example", CLAIMED), expected);
    }

    #[test]
    fn fields_of_one_value_have_one() {
        let of = |name: &'static str, fields: &[(&'static str, &'static str)]| {
            let headers = sent(false, "10.1.2.3:9", "app.example:8443", fields);
            let mut values = headers.get_all(name).iter();
            let first = values.next().map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(values.next(), None, "{name} has one line");
            first.unwrap_or_else(|| panic!("{name} is there"))
        };
        for (name, own) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "app.example:8443"),
            ("x-forwarded-port", "8443"),
            ("x-real-ip", "10.1.2.3"),
        ] {
            assert_eq!(of(name, &[]), own);
            assert_eq!(of(name, &[(name, "")]), own, "an empty {name} says nothing");
            assert_eq!(of(name, &[(name, "told")]), "told");
            assert_eq!(of(name, &[(name, "told, later"), (name, "last")]), "told", "Express takes the first too");
        }
        assert_eq!(of("x-forwarded-port", &[("x-forwarded-host", "shop.example")]), "443");
        assert_eq!(of("x-forwarded-port", &[("x-forwarded-host", "shop.example:81")]), "81");
        let plain = [("x-forwarded-host", "shop.example"), ("x-forwarded-proto", "http")];
        assert_eq!(of("x-forwarded-port", &plain), "80");
        assert_eq!(of("x-real-ip", &[("x-forwarded-for", "6.6.6.6, 198.51.100.1")]), "198.51.100.1");
    }

    #[test]
    fn identity_fields_of_an_untrusted_peer_are_removed() {
        let claims = [
            ("x-client-ip", "6.6.6.6"),
            ("cf-connecting-ip", "6.6.6.6"),
            ("true-client-ip", "6.6.6.6"),
            ("x-forwarded-user", "root"),
            ("x-forwarded-ssl", "on"),
            ("x-forwarded-prefix", "/admin"),
        ];
        let told_by = |peer| {
            let headers = sent(false, peer, "app.example", &claims);
            claims.iter().filter(|(name, _)| headers.contains_key(*name)).count()
        };
        assert_eq!(told_by("192.0.2.7:9"), 0);
        assert_eq!(told_by("10.0.0.1:9"), claims.len(), "a trusted proxy may say who the client is");
        let none = Forwarded { strip: Vec::new(), ..settings(false) };
        let mut headers = map(&claims);
        let peer = Peer::at("192.0.2.7:9".parse().unwrap());
        set_forwarding_fields(&none.into(), &mut headers, &HeaderValue::from_static("a"), &peer);
        assert!(claims.iter().all(|(name, _)| headers.contains_key(*name)), "{headers:?}");
    }

    #[test]
    fn the_host_of_a_trusted_proxy_is_the_one_that_the_client_asked_for() {
        let host = |peer: &str, fields: &[(&'static str, &'static str)]| {
            host(&settings(false), peer.parse().unwrap(), &map(fields), &HeaderValue::from_static("app.internal"))
        };
        let sent = [("x-forwarded-host", "app.example")];
        assert_eq!(host("10.0.0.1:9", &sent), "app.example");
        assert_eq!(host("192.0.2.7:9", &sent), "app.internal");
        assert_eq!(host("10.0.0.1:9", &[]), "app.internal");
    }

    #[test]
    fn without_tls_the_scheme_is_the_one_that_the_proxy_states() {
        let scheme = |peer: &str, fields: &[(&'static str, &'static str)]| {
            let mut headers = map(fields);
            set_forwarding_fields(
                &settings(false).into(),
                &mut headers,
                &HeaderValue::from_static("a"),
                &Peer::at(peer.parse().unwrap()),
            );
            let field = |name: &str| headers[name].to_str().unwrap().to_owned();
            (field("x-forwarded-proto"), field("x-forwarded-for"), field("x-forwarded-port"))
        };
        let sent = [("x-forwarded-proto", "https"), ("x-forwarded-for", "198.51.100.1")];
        let expected = |proto: &str, addresses: &str, port: &str| (proto.into(), addresses.into(), port.into());
        assert_eq!(scheme("10.0.0.1:9", &sent), expected("https", "198.51.100.1, 10.0.0.1", "443"));
        // The address of a PROXY header, which stands for the client.
        assert_eq!(scheme("192.0.2.7:9", &sent), expected("https", "192.0.2.7", "443"));
        assert_eq!(scheme("10.0.0.1:9", &[]), expected("http", "10.0.0.1", "80"));
    }

    #[test]
    fn each_field_that_is_removed_is_found_by_its_shape() {
        let long = "x-".repeat(40);
        let strip = vec![long.as_str().into(), "a".into(), "0-digit".into()];
        let policy = ForwardingPolicy::from(Forwarded { strip, ..Forwarded::default() });
        let removed = [long.as_str(), "a", "0-digit"].map(|name| name.parse::<HeaderName>().expect(name));
        assert!(removed.iter().chain(&CLAIMS).all(|name| policy.removes(name)));
        for name in ["b", "host", "user-agent", "x-real-ix", "1-digit"] {
            assert!(!policy.removes(&HeaderName::from_static(name)), "{name}");
        }
        let policy = ForwardingPolicy::from(Forwarded::default());
        assert!(IDENTITY_FIELDS.iter().all(|name| policy.removes(&HeaderName::from_static(name))));
    }

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let forwarded = |peer, host| sent(true, peer, host, &[])[FORWARDED].clone();
        assert_eq!(forwarded("[2001:db8::1]:9", "a:8443"), r#"for="[2001:db8::1]";host="a:8443";proto=https"#);
        assert_eq!(forwarded("192.0.2.7:9", r#"a";by=x\"#), r#"for=192.0.2.7;host="a\";by=x\\";proto=https"#);
        assert_eq!(forwarded("192.0.2.7:9", ""), r#"for=192.0.2.7;host="";proto=https"#);
    }

    #[test]
    fn the_id_of_a_request_is_kept_from_a_trusted_proxy_alone() {
        let id = |peer: &str| {
            let mut headers = map(&[("x-request-id", "abc")]);
            let peer = Peer::at(peer.parse().expect(peer));
            set_forwarding_fields(&settings(false).into(), &mut headers, &HeaderValue::from_static("a"), &peer);
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
