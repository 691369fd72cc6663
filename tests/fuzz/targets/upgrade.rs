//! The upgrade request and the app's response against a small reference written from RFC 6455 §4 and RFC 8441 §5, and
//! against tungstenite's handshake as far as it checks the same.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::Full;
use pulsegate::upgrade::{Offer, is_websocket_request};
use pulsegate::ws::Coding;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

/// The fields of one head, in order.
type Fields = Vec<(HeaderName, HeaderValue)>;

/// Reads `data`: lines of a request, an empty line, and lines of a response, in which `$ACCEPT` stands for the correct
/// response to the key. A word `body` after the version gives the request a body.
pub fn run(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first: Vec<&[u8]> = lines.next().unwrap_or_default().split(|byte| *byte == b' ').collect();
    let [method, _, version, ref more @ ..] = first[..] else { return };
    let Ok(method) = Method::from_bytes(method) else { return };
    let version = match version {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let body = more.contains(&&b"body"[..]);
    let protocol = more.iter().find_map(|word| std::str::from_utf8(word.strip_prefix(b"protocol=")?).ok());
    let fields: Fields = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(field).collect();
    let mut request = Request::builder().method(method).version(version).uri("/").body(()).expect("a request");
    append(request.headers_mut(), &fields);
    if let Some(protocol) = protocol.filter(|_| version == Version::HTTP_2) {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    let (parts, ()) = request.into_parts();
    let bytes = Bytes::from_static(if body { b"x" } else { b"" });
    let with_body = Request::from_parts(parts.clone(), Full::new(bytes));
    let expected = judge(&with_body, &fields, protocol, body);
    let bare = Request::from_parts(parts, ());
    if version == Version::HTTP_10 {
        // Such a request is served as an ordinary one (RFC 9110 §7.8).
        return assert!(!is_websocket_request(&with_body), "{with_body:?}");
    }
    let offer = match Offer::read(&with_body) {
        Ok(offer) => offer,
        Err(refusal) => return assert_eq!(Err(refusal.status().as_u16()), expected, "{with_body:?}"),
    };
    assert_eq!(expected, Ok(()), "taken: {with_body:?}");
    assert!(is_websocket_request(&with_body), "{with_body:?}");
    let key = offer.key().to_str().expect("a key is ASCII").to_owned();
    if version == Version::HTTP_11 {
        assert_eq!(only(&fields, "sec-websocket-key").as_deref(), Some(key.as_bytes()));
        with_tungstenite(&bare, &fields, &key);
    }
    answered(&offer, &fields, lines, &key);
}

fn append(headers: &mut HeaderMap, fields: &Fields) {
    for (name, value) in fields {
        headers.append(name.clone(), value.clone());
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
}

/// Returns all values of the field `name` that are text.
fn values<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(other, _)| other.as_str() == name).map(|(_, value)| value.as_bytes())
}

fn only(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    let all: Vec<_> = values(fields, name).collect();
    if let [one] = all[..] { Some(one.to_vec()) } else { None }
}

/// Returns the elements of a list, over all lines of the field (RFC 9110 §5.6.1).
fn list(fields: &Fields, name: &str) -> Vec<String> {
    let mut elements = Vec::new();
    for value in values(fields, name) {
        if value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7E)) {
            let text = String::from_utf8(value.to_vec()).expect("ASCII");
            elements.extend(text.split(',').map(|element| element.trim_matches([' ', '\t']).to_owned()));
        }
    }
    elements.retain(|element| !element.is_empty());
    elements
}

fn lists(fields: &Fields, name: &str, word: &str) -> bool {
    list(fields, name).iter().any(|element| element.to_ascii_lowercase() == word)
}

/// Checks that the request is a handshake; returns the status of its refusal otherwise.
fn judge(request: &Request<Full<Bytes>>, fields: &Fields, protocol: Option<&str>, body: bool) -> Result<(), u16> {
    let bad = |is_bad: bool| if is_bad { Err(400) } else { Ok(()) };
    let version_13 = only(fields, "sec-websocket-version").as_deref() == Some(b"13");
    if request.version() == Version::HTTP_2 {
        bad(request.method() != Method::CONNECT || protocol != Some("websocket") || !body)?;
        // 13 is the only version over HTTP/2: some clients leave it out.
        let is_implied = values(fields, "sec-websocket-version").next().is_none();
        return if version_13 || is_implied { Ok(()) } else { Err(426) };
    }
    bad(request.method() != Method::GET)?;
    bad(!lists(fields, "upgrade", "websocket") || !lists(fields, "connection", "upgrade") || body)?;
    if !version_13 {
        return Err(426);
    }
    bad(!only(fields, "sec-websocket-key").is_some_and(|key| sixteen_bytes(&key)))
}

/// Returns true if `text` is base64 of 16 bytes: 22 digits and two fillers.
fn sixteen_bytes(text: &[u8]) -> bool {
    text.len() == 24
        && text.ends_with(b"==")
        && text[..22].iter().all(|digit| matches!(digit, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/'))
}

/// Compares with tungstenite, which accepts no list of protocols in `Upgrade`; without a list it must accept the
/// request, too.
fn with_tungstenite(request: &Request<()>, fields: &Fields, key: &str) {
    let plain = only(fields, "upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    let single = only(fields, "connection").is_some_and(|value| value.iter().all(|byte| *byte != b'\t'));
    // RFC 4648 §3.5 lets a decoder decide whether bits after the last byte must be zero; tungstenite's requires it.
    let canonical = matches!(key.as_bytes()[21], b'A' | b'Q' | b'g' | b'w');
    if plain && single && canonical {
        let response = create_response(request).unwrap_or_else(|error| panic!("tungstenite: {error}: {request:?}"));
        let accept = response.headers()["sec-websocket-accept"].as_bytes();
        assert_eq!(accept, derive_accept_key(key.as_bytes()).as_bytes());
    }
}

fn answered<'a>(offer: &Offer, offered: &Fields, lines: impl Iterator<Item = &'a [u8]>, key: &str) {
    let accept = derive_accept_key(key.as_bytes());
    let lines = lines.map(|line| match String::from_utf8(line.to_vec()) {
        Ok(text) => text.replace("$ACCEPT", &accept).into_bytes(),
        Err(_) => line.to_vec(),
    });
    let fields: Fields = lines.filter_map(|line| field(&line)).collect();
    let mut response = Response::new(());
    append(response.headers_mut(), &fields);
    match (offer.check(&response), agreed(&fields, offered, &accept)) {
        (Ok(agreement), Some((subprotocol, is_offered, coding))) => {
            assert_eq!((agreement.subprotocol.as_deref(), agreement.coding), (subprotocol.as_deref(), coding));
            assert_eq!(agreement.is_offered, is_offered, "{response:?}");
        }
        (Err(refusal), None) => assert_eq!(refusal.status().as_u16(), 502),
        (ours, expected) => panic!("{ours:?}, expected {expected:?}: {response:?}"),
    }
}

/// Returns the subprotocol that the response chose, whether it is one of those offered, and the coding; `None` if every
/// client must fail the connection (§4.1). The client itself must fail it for a subprotocol that was not offered.
fn agreed(answer: &Fields, offered: &Fields, accept: &str) -> Option<(Option<String>, bool, Coding)> {
    let switches = lists(answer, "upgrade", "websocket") && lists(answer, "connection", "upgrade");
    if !switches || only(answer, "sec-websocket-accept").as_deref() != Some(accept.as_bytes()) {
        return None;
    }
    let mut chosen = values(answer, "sec-websocket-protocol");
    let (subprotocol, is_offered) = match (chosen.next(), chosen.next()) {
        (None, _) => (None, true),
        (Some(first), second) => {
            let is_text = !first.is_empty() && first.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7E));
            let name = is_text.then(|| String::from_utf8_lossy(first).into_owned());
            let offers = list(offered, "sec-websocket-protocol");
            let is_offered = second.is_none() && name.as_ref().is_some_and(|name| offers.contains(name));
            (name, is_offered)
        }
    };
    let name = |extension: &String| extension.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let names: Vec<String> = list(offered, "sec-websocket-extensions").iter().map(name).collect();
    let accepted = list(answer, "sec-websocket-extensions");
    if !accepted.iter().all(|extension| names.contains(&name(extension))) {
        return None;
    }
    let coding = match &accepted[..] {
        [] => Coding::Plain,
        [one] if name(one) == "permessage-deflate" => {
            let has =
                |parameter: &str| one.split(';').skip(1).any(|given| given.trim().to_ascii_lowercase() == parameter);
            Coding::Deflate {
                client_takeover: !has("client_no_context_takeover"),
                server_takeover: !has("server_no_context_takeover"),
            }
        }
        _ => Coding::Unknown,
    };
    Some((subprotocol, is_offered, coding))
}
