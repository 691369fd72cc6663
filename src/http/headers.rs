//! Header fields at the border: what ends here, and what the proxy adds.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT,
    HOST, HeaderName, HeaderValue, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::client_certificate::CLIENT_CERTIFICATE;
use super::forwarded::{self, ForwardingPolicy};
use super::peer::Peer;

/// The largest Content-Length of a request; a signed number holds it too.
pub(super) const CONTENT_LENGTH_MAX: u64 = i64::MAX as u64;

/// Fields that concern one connection only (RFC 9110 §7.6.1) and end here whether `Connection` names them or not.
/// `Trailer` is not among them: it announces fields that are passed on.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that say how a message is framed, routed or read, beside those of [`HOP_BY_HOP`]: a reader needs them before the
/// body, so they are no trailers (RFC 9110 §6.5.1).
const HEADERS_ONLY: [HeaderName; 11] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// The session's id, for the app's own log lines; a client's field of this name is removed.
pub(super) const CONNECTION_ID: HeaderName = HeaderName::from_static("x-pulsegate-connection-id");

/// Removes what concerns the connection it came over, fields nominated by `Connection` included, and announcements of
/// trailers that are not passed on. Returns the nominated fields, which are no trailers of the message either.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Vec<HeaderName> {
    // Most messages have none of them: one walk over what is there costs less than looking up all that might be.
    let (mut nominated, mut present, mut announces) = (Vec::new(), Vec::new(), false);
    for name in headers.keys() {
        if is_hop_by_hop(name) {
            present.push(name.clone());
            if *name == CONNECTION {
                let tokens = headers.get_all(CONNECTION).iter();
                let tokens = tokens.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
                nominated.extend(tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()));
            }
        }
        announces |= *name == TRAILER;
    }
    for name in nominated.iter().chain(&present) {
        headers.remove(name);
    }
    if announces && headers.contains_key(TRAILER) {
        announce(headers, &nominated);
    }
    nominated
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Most names have another length.
    matches!(name.as_str().len(), 2 | 7 | 10 | 14 | 16 | 17) && HOP_BY_HOP.contains(name)
}

/// Removes from trailers what must not pass a proxy: fields of one connection (RFC 9110 §7.6.1), among them those
/// `nominated` in the head of the message, fields that belong before a body, and those that only a proxy sets.
pub(super) fn clean_trailers(trailers: &mut HeaderMap, nominated: &[HeaderName]) {
    let refused: Vec<HeaderName> = trailers.keys().filter(|name| !is_trailer(name, nominated)).cloned().collect();
    for name in &refused {
        trailers.remove(name);
    }
}

/// Returns whether every value is without white space around it (RFC 9113 §8.2.1); HTTP/1.1 has taken it off.
pub(super) fn are_trimmed(fields: &HeaderMap) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    fields.values().map(HeaderValue::as_bytes).all(|value| !is_space(value.first()) && !is_space(value.last()))
}

/// Leaves in `Trailer` the names of fields that are passed on as trailers.
fn announce(headers: &mut HeaderMap, nominated: &[HeaderName]) {
    let is_announced =
        |token: &&[u8]| HeaderName::from_bytes(token.trim_ascii()).is_ok_and(|name| is_trailer(&name, nominated));
    let tokens = || headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if tokens().all(|token| is_announced(&token)) {
        return;
    }
    let kept: Vec<&[u8]> = tokens().filter(is_announced).map(<[u8]>::trim_ascii).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|value| !value.is_empty());
    match kept {
        Some(kept) => drop(headers.insert(TRAILER, kept)),
        None => drop(headers.remove(TRAILER)),
    }
}

fn is_trailer(name: &HeaderName, nominated: &[HeaderName]) -> bool {
    let is_of_a_proxy = *name == CONNECTION_ID || forwarded::is_claim(name);
    !HOP_BY_HOP.contains(name) && !HEADERS_ONLY.contains(name) && !is_of_a_proxy && !nominated.contains(name)
}

/// Turns the headers of a client's request into those that the app gets. `host` is the authority that the client
/// asked for.
///
/// Returns the fields that `Connection` nominates.
pub(super) fn to_upstream(
    headers: &mut HeaderMap,
    host: HeaderValue,
    peer: &Peer,
    policy: &ForwardingPolicy,
) -> Vec<HeaderName> {
    // As above: the length of a name shows whether it may be one of these.
    let (mut trailers, mut has_id, mut expects) = (false, false, false);
    for name in headers.keys() {
        match name.as_str().len() {
            2 if *name == TE => trailers = accepts_trailers(headers),
            6 => expects |= *name == EXPECT,
            25 => has_id |= *name == CONNECTION_ID,
            _ => {}
        }
    }
    let nominated = strip_hop_by_hop(headers);
    if has_id {
        headers.remove(CONNECTION_ID);
    }
    // The expectation is met here: hyper sends the 100 when the app's connection asks for the first piece of the body.
    let is_met = |expect: &HeaderValue| expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if expects && headers.get(EXPECT).is_some_and(is_met) {
        headers.remove(EXPECT);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    forwarded::set_forwarding_fields(policy, headers, &host, peer);
    if let Some(certificate) = peer.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        headers.insert(CLIENT_CERTIFICATE, certificate.forwarded());
    }
    headers.insert(HOST, host);
    nominated
}

/// Makes the framing fields say what `body` is, so that no two readers can disagree where it ends (RFC 9112 §6.3):
/// a body of unknown length has no `Content-Length`, whatever the sender claimed beside its chunks.
pub(super) fn frame(headers: &mut HeaderMap, body: &impl Body) {
    if body.is_end_stream() {
        return;
    }
    match body.size_hint().exact() {
        Some(length) if states(headers, length) => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
}

/// Returns whether one `Content-Length` states `length`, in digits without a zero in front.
fn states(headers: &HeaderMap, length: u64) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let (Some(mut digits), None) = (lines.next(), lines.next()) else { return false };
    let mut left = length;
    while let [rest @ .., digit] = digits {
        if u64::from(*digit) != u64::from(b'0') + left % 10 {
            return false;
        }
        (digits, left) = (rest, left / 10);
        if left == 0 {
            return digits.is_empty();
        }
    }
    false
}

/// Frames a request as [`frame`] does: without a field that says otherwise hyper sends a GET without a body.
pub(super) fn frame_request(headers: &mut HeaderMap, body: &impl Body) {
    frame(headers, body);
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// `Strict-Transport-Security` for this long (RFC 6797 §6.1.1).
pub(super) fn transport_security(max_age: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={}", max_age.as_secs())).expect("digits are visible ASCII")
}

/// Returns whether `chunked` is the only transfer coding of a body, if there is any. Another coding would have to be undone before
/// the header that names it may be taken off.
pub(super) fn at_most_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Forwarded;
    use crate::http::{ClientCertificate, Protocol, TlsFacts};

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn peer() -> Peer {
        let tls = TlsFacts { version: "1.3", group: None, protocol: Protocol::H1, server_name: None, client: None };
        Peer { tls: Some(tls), ..Peer::at("[::ffff:192.0.2.7]:4000".parse().unwrap()) }
    }

    fn sent(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = map(fields);
        to_upstream(&mut headers, HeaderValue::from_static("app.example"), &peer(), &Forwarded::default().into());
        assert!(headers.remove("x-request-id").is_some_and(|id| id.len() == 32));
        headers
    }

    #[test]
    fn what_connection_names_ends_here_whatever_its_case() {
        let mut headers = map(&[
            ("connection", "Close, X-Secret"),
            ("connection", " x-OTHER ,,"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("trailer", "x-checksum"),
            ("x-kept", "3"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("trailer", "x-checksum"), ("x-kept", "3")]));
    }

    #[test]
    fn trailers_are_cleaned_of_what_a_proxy_must_not_pass() {
        let refused = [
            ("connection", "x-kept"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-kept"),
            ("content-length", "5"),
            ("host", "evil.example"),
            ("authorization", "Basic YTpi"),
            ("set-cookie", "a=1"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-user", "root"),
            ("x-forwarded-client-cert", "Subject=\"CN=root\""),
            ("x-real-ip", "6.6.6.6"),
            ("x-request-id", "1"),
            ("x-pulsegate-connection-id", "0"),
            ("x-nominated", "1"),
        ];
        let kept = [("x-kept", "1"), ("grpc-status", "0"), ("server-timing", "db;dur=5")];
        let mut trailers = map(&[&refused[..], &kept[..]].concat());
        clean_trailers(&mut trailers, &[HeaderName::from_static("x-nominated")]);
        assert_eq!(trailers, map(&kept));
    }

    #[test]
    fn trailers_that_do_not_pass_are_not_announced() {
        let announced = |value: &'static str| {
            let mut headers = map(&[("connection", "x-nominated"), ("trailer", value)]);
            strip_hop_by_hop(&mut headers);
            headers.remove("trailer")
        };
        assert_eq!(announced("X-Forwarded-For"), None);
        assert_eq!(announced("Transfer-Encoding, x-nominated , content-length"), None);
        assert_eq!(announced("x-checksum,X-Forwarded-For,grpc-status").unwrap(), "x-checksum, grpc-status");
        assert_eq!(announced("X-Checksum,grpc-status").unwrap(), "X-Checksum,grpc-status", "nothing to take out");
    }

    #[test]
    fn the_proxys_own_fields_cannot_be_forged_or_nominated_away() {
        let headers = sent(&[
            ("connection", "x-forwarded-for, host, x-forwarded-proto"),
            ("host", "app.example"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-client-cert", "Subject=\"CN=root\""),
            ("x-pulsegate-connection-id", "0"),
            ("forwarded", "for=6.6.6.6"),
            ("origin", "https://app.example"),
            ("x-request-id", "abc"),
        ]);
        let expected = map(&[
            ("host", "app.example"),
            ("origin", "https://app.example"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "app.example"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "192.0.2.7"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_verified_certificate_is_told_and_a_forged_one_is_not() {
        let certificate = ClientCertificate::new([7; 32], Some("CN=ann".to_owned()));
        let tls = TlsFacts { client: Some(Arc::new(certificate)), ..peer().tls.unwrap() };
        let peer = Peer { tls: Some(tls), ..peer() };
        let mut headers = map(&[("x-forwarded-client-cert", "Hash=0"), ("x-forwarded-client-cert", "Hash=1")]);
        to_upstream(&mut headers, HeaderValue::from_static("app.example"), &peer, &Forwarded::default().into());
        let sent: Vec<_> = headers.get_all(CLIENT_CERTIFICATE).iter().collect();
        assert_eq!(sent, [&*format!("Hash={};Subject=\"CN=ann\"", "07".repeat(32))]);
    }

    #[test]
    fn a_length_is_stated_by_one_line_of_plain_digits() {
        let states = |lines: &[&'static str], length| {
            let lines: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            states(&map(&lines), length)
        };
        for length in [0, 7, 10, 1024, u64::MAX] {
            assert!(super::states(&HeaderMap::from_iter([(CONTENT_LENGTH, length.into())]), length), "{length}");
        }
        for lines in [&[][..], &[""], &["01024"], &["+1024"], &["24"], &["10240"], &["1024, 1024"], &["1024", "1024"]] {
            assert!(!states(lines, 1024), "{lines:?}");
        }
        assert!(!states(&["00"], 0) && !states(&["1"], 0));
    }

    #[test]
    fn only_the_trailers_of_te_pass() {
        assert_eq!(sent(&[("te", "gzip, Trailers"), ("connection", "te")])[TE], "trailers");
        assert!(!sent(&[("te", "gzip")]).contains_key(TE));
    }
}
