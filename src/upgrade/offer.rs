//! The WebSocket handshake: the client's offer, and the validation of the app's response against it.

use h2::ext::Protocol;
use hyper::body::Body;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Response, Version};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::UpgradeRefusal;
use crate::ws::Coding;

/// Returns whether a request asks for a WebSocket, well-formed or not: by `Upgrade`, or in HTTP/2, which lacks this
/// field, by `:protocol` (RFC 8441 §5).
pub fn is_websocket_request<B>(request: &Request<B>) -> bool {
    match request.version() {
        // Upgrade tokens are compared without case (RFC 9110 §16.7).
        Version::HTTP_2 => {
            let protocol = request.extensions().get::<Protocol>();
            protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
        }
        // A server ignores an upgrade in HTTP/1.0 (RFC 9110 §7.8).
        Version::HTTP_10 | Version::HTTP_09 => false,
        _ => is_websocket(request.headers()),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// The offer of a valid handshake: key, subprotocols and extensions.
#[derive(Debug)]
pub struct Offer {
    key: HeaderValue,
    protocols: Vec<HeaderValue>,
    extensions: Vec<HeaderValue>,
}

impl Offer {
    /// Validates a handshake request by RFC 6455 §4.2.1, or by RFC 8441 §5 in HTTP/2.
    ///
    /// # Errors
    ///
    /// The request is not a valid handshake, or asks for a version other than 13.
    pub fn read<B: Body>(request: &Request<B>) -> Result<Self, UpgradeRefusal> {
        if request.version() == Version::HTTP_2 { Self::read_http2(request) } else { Self::read_http1(request) }
    }

    /// Validates an extended CONNECT, and adds a key of the proxy's own for the app, since RFC 8441 §5 has none.
    fn read_http2<B: Body>(request: &Request<B>) -> Result<Self, UpgradeRefusal> {
        if request.method() != Method::CONNECT || !is_websocket_request(request) {
            return Err(UpgradeRefusal::BadRequest("a WebSocket handshake is an extended CONNECT"));
        }
        if request.body().is_end_stream() {
            return Err(UpgradeRefusal::BadRequest("the stream of a WebSocket stays open"));
        }
        let headers = request.headers();
        // RFC 8441 §5 keeps this field, but Firefox omits it behind a proxy. Over HTTP/2 there is no version other than
        // 13.
        let is_supported = |version: Option<&HeaderValue>| version.is_some_and(|version| version == "13");
        if headers.contains_key(SEC_WEBSOCKET_VERSION) && !is_supported(only(headers, &SEC_WEBSOCKET_VERSION)) {
            return Err(UpgradeRefusal::Version);
        }
        let key = HeaderValue::try_from(generate_key()).expect("base64 is visible ASCII");
        Ok(Self::of(key, headers))
    }

    fn read_http1<B: Body>(request: &Request<B>) -> Result<Self, UpgradeRefusal> {
        let headers = request.headers();
        if request.method() != Method::GET {
            return Err(UpgradeRefusal::BadRequest("a WebSocket handshake is a GET"));
        }
        if !is_websocket(headers) || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(UpgradeRefusal::BadRequest(
                "a WebSocket handshake needs Upgrade: websocket and Connection: upgrade",
            ));
        }
        if !request.body().is_end_stream() {
            return Err(UpgradeRefusal::BadRequest("a WebSocket handshake has no body"));
        }
        if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(UpgradeRefusal::Version);
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY)
            .filter(|key| is_key(key.as_bytes()))
            .ok_or(UpgradeRefusal::BadRequest("Sec-WebSocket-Key is not one base64 value of 16 bytes"))?;
        Ok(Self::of(key.clone(), headers))
    }

    fn of(key: HeaderValue, headers: &HeaderMap) -> Self {
        Self {
            key,
            protocols: headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect(),
            extensions: headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().cloned().collect(),
        }
    }

    /// Returns the key for the app's handshake: the client's, or the proxy's own for HTTP/2.
    pub fn key(&self) -> &HeaderValue {
        &self.key
    }

    /// Validates the app's 101 against the offer, with the checks of a client (RFC 6455 §4.1).
    ///
    /// # Errors
    ///
    /// The 101 lacks a field, has the wrong `Sec-WebSocket-Accept`, or accepts an extension that was not offered.
    pub fn check<B>(&self, response: &Response<B>) -> Result<Agreement, UpgradeRefusal> {
        let headers = response.headers();
        if !is_websocket(headers) || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(UpgradeRefusal::Switch("the 101 lacks Upgrade: websocket or Connection: upgrade"));
        }
        let expected = derive_accept_key(self.key.as_bytes());
        if only(headers, &SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept.as_bytes() != expected.as_bytes()) {
            return Err(UpgradeRefusal::Switch("the 101 has a wrong Sec-WebSocket-Accept"));
        }
        let (subprotocol, is_offered) = self.subprotocol(headers);
        Ok(Agreement { subprotocol, is_offered, coding: self.coding(headers)? })
    }

    /// Returns the subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> Vec<&str> {
        tokens(self.protocols.iter()).collect()
    }

    /// Removes the extensions from the offer; returns whether there were any.
    pub fn without_extensions(&mut self) -> bool {
        !std::mem::take(&mut self.extensions).is_empty()
    }

    /// Returns the subprotocol that the app chose, and whether the choice is valid: none, or exactly one of those
    /// offered. An invalid one is left to the client (RFC 6455 §4.1), since some libraries accept subprotocols that
    /// they did not offer.
    fn subprotocol(&self, answer: &HeaderMap) -> (Option<Box<str>>, bool) {
        let mut chosen = answer.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let Some(first) = chosen.next() else { return (None, true) };
        let name = first.to_str().ok().filter(|name| !name.is_empty());
        // Subprotocol names are compared with case (RFC 6455 §11.3.4).
        let is_offered = chosen.next().is_none() && tokens(self.protocols.iter()).any(|offered| Some(offered) == name);
        (name.map(Into::into), is_offered)
    }

    /// Returns the coding of payloads by the accepted extensions.
    fn coding(&self, answer: &HeaderMap) -> Result<Coding, UpgradeRefusal> {
        tokens(answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter()).try_fold(Coding::Plain, |coding, accepted| {
            let name = extension(accepted);
            if !tokens(self.extensions.iter()).map(extension).any(|offered| offered.eq_ignore_ascii_case(name)) {
                return Err(UpgradeRefusal::Switch("the 101 accepted an extension that was not offered"));
            }
            let has = |parameter| accepted.split(';').skip(1).any(|given| given.trim().eq_ignore_ascii_case(parameter));
            Ok(if coding == Coding::Plain && name.eq_ignore_ascii_case("permessage-deflate") {
                Coding::Deflate {
                    client_takeover: !has("client_no_context_takeover"),
                    server_takeover: !has("server_no_context_takeover"),
                }
            } else {
                Coding::Unknown
            })
        })
    }
}

/// The parameters on which client and app agreed.
#[derive(Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The subprotocol that the app chose; `None` if it chose none, or an empty or unreadable name.
    pub subprotocol: Option<Box<str>>,
    /// Set if the client offered it, or none was chosen.
    pub is_offered: bool,
    /// The coding of payloads by the accepted extensions.
    pub coding: Coding,
}

/// Returns the value of a header field; `None` if there is none, or more than one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns the members of a comma-separated list, over all lines of the field (RFC 9110 §5.6.1).
fn tokens<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers.get_all(name).iter()).any(|found| found.eq_ignore_ascii_case(token))
}

/// Returns the name of an extension without its parameters (RFC 6455 §9.1).
fn extension(offer: &str) -> &str {
    offer.split(';').next().unwrap_or(offer).trim_end()
}

/// Returns whether `value` is the base64 encoding of 16 bytes (RFC 6455 §4.2.1, item 5).
fn is_key(value: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(value, [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(digit))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn handshake() -> hyper::http::request::Builder {
        Request::get("/chat")
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "WebSocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, KEY)
    }

    fn read(request: hyper::http::request::Builder) -> Result<Offer, (u16, &'static str)> {
        Offer::read(&request.body(Empty::<Bytes>::new()).unwrap())
            .map_err(|refusal| (refusal.status().as_u16(), refusal.reason()))
    }

    fn altered(alter: impl FnOnce(&mut HeaderMap)) -> Result<Offer, (u16, &'static str)> {
        let mut request = handshake();
        alter(request.headers_mut().unwrap());
        read(request)
    }

    fn text(value: &'static str) -> HeaderValue {
        HeaderValue::from_static(value)
    }

    #[test]
    fn a_proper_handshake_is_taken() {
        assert!(read(handshake()).is_ok());
        assert!(altered(|headers| drop(headers.insert(UPGRADE, text("foo/2, websocket")))).is_ok());
    }

    #[test]
    fn whatever_breaks_the_handshake_is_named() {
        const BAD: (u16, &str) = (400, "bad_request");
        assert_eq!(read(handshake().method(Method::POST)).unwrap_err(), BAD);
        assert_eq!(altered(|headers| drop(headers.remove(CONNECTION))).unwrap_err(), BAD);
        assert_eq!(altered(|headers| drop(headers.insert(CONNECTION, text("upgraded")))).unwrap_err(), BAD);
        assert_eq!(altered(|headers| drop(headers.remove(SEC_WEBSOCKET_KEY))).unwrap_err(), BAD);
        assert_eq!(altered(|headers| assert!(headers.append(SEC_WEBSOCKET_KEY, text(KEY)))).unwrap_err(), BAD);
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ+=",
            "AAAA====",
            "c2hvcnQ=",
        ] {
            assert_eq!(
                altered(|headers| drop(headers.insert(SEC_WEBSOCKET_KEY, text(key)))).unwrap_err(),
                BAD,
                "{key:?}"
            );
        }
        let with_body = handshake().body(Full::new(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(Offer::read(&with_body).unwrap_err().status(), 400);
    }

    #[test]
    fn another_version_gets_426() {
        const VERSION: (u16, &str) = (426, "version");
        assert_eq!(altered(|headers| drop(headers.insert(SEC_WEBSOCKET_VERSION, text("8")))).unwrap_err(), VERSION);
        assert_eq!(altered(|headers| drop(headers.remove(SEC_WEBSOCKET_VERSION))).unwrap_err(), VERSION);
        assert_eq!(altered(|headers| assert!(headers.append(SEC_WEBSOCKET_VERSION, text("13")))).unwrap_err(), VERSION);
    }

    fn agree(
        offered: &[(HeaderName, &'static str)],
        answered: &[(HeaderName, &'static str)],
    ) -> Result<Agreement, &'static str> {
        let offer = altered(|headers| {
            headers.extend(offered.iter().map(|(name, value)| (name.clone(), text(value))));
        });
        let mut response = Response::new(());
        for (name, value) in [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_ACCEPT, ACCEPT)] {
            response.headers_mut().insert(name, text(value));
        }
        for (name, value) in answered {
            response.headers_mut().append(name, text(value));
        }
        offer.unwrap().check(&response).map_err(|refusal| {
            assert_eq!(refusal.status(), 502);
            refusal.reason()
        })
    }

    #[test]
    fn a_choice_is_held_against_the_offer() {
        const INVALID: &str = "upstream_invalid";
        let (protocol, extension) = (SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS);
        let agreed = |name: Option<&str>, is_offered| {
            Ok(Agreement { subprotocol: name.map(Into::into), is_offered, coding: Coding::Plain })
        };
        assert_eq!(agree(&[], &[]), agreed(None, true));
        let offer = [(protocol.clone(), "soap, chat")];
        assert_eq!(agree(&offer, &[(protocol.clone(), "chat")]), agreed(Some("chat"), true));
        assert_eq!(agree(&offer, &[]), agreed(None, true));
        // These are left to the client.
        assert_eq!(agree(&offer, &[(protocol.clone(), "Chat")]), agreed(Some("Chat"), false));
        assert_eq!(agree(&[], &[(protocol.clone(), "chat")]), agreed(Some("chat"), false));
        assert_eq!(agree(&offer, &[(protocol.clone(), "")]), agreed(None, false));
        let twice = [(protocol.clone(), "soap"), (protocol.clone(), "chat")];
        assert_eq!(agree(&twice, &twice), agreed(Some("soap"), false));

        let deflate = (extension.clone(), "permessage-deflate; client_max_window_bits");
        let taken = agree(from_ref(&deflate), &[(extension.clone(), "permessage-deflate; server_no_context_takeover")]);
        assert_eq!(taken.unwrap().coding, Coding::Deflate { client_takeover: true, server_takeover: false });
        assert_eq!(agree(&[], from_ref(&deflate)), Err(INVALID));
        let both = (extension.clone(), "permessage-deflate, x-own");
        assert_eq!(agree(from_ref(&both), &[(extension.clone(), "x-own")]).unwrap().coding, Coding::Unknown);
        assert_eq!(agree(from_ref(&both), from_ref(&both)).unwrap().coding, Coding::Unknown);
        assert_eq!(agree(&[deflate], &[both]), Err(INVALID));
    }

    fn read_http2(method: Method, alter: impl FnOnce(&mut Request<Full<Bytes>>)) -> Result<Offer, (u16, &'static str)> {
        let mut request = Request::builder()
            .method(method)
            .uri("https://app.example/chat")
            .version(Version::HTTP_2)
            .header(SEC_WEBSOCKET_VERSION, "13")
            .extension(Protocol::from_static("websocket"))
            .body(Full::new(Bytes::from_static(b"open")))
            .unwrap();
        alter(&mut request);
        Offer::read(&request).map_err(|refusal| (refusal.status().as_u16(), refusal.reason()))
    }

    #[test]
    fn an_extended_connect_gets_a_key_of_the_proxys_own() {
        let keys = [(); 2].map(|()| read_http2(Method::CONNECT, |_| {}).unwrap().key().clone());
        assert!(keys.iter().all(|key| is_key(key.as_bytes())), "{keys:?}");
        assert_ne!(keys[0], keys[1]);
        let theirs = read_http2(Method::CONNECT, |request| {
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, text(KEY));
        });
        assert_ne!(theirs.unwrap().key(), KEY);
    }

    #[test]
    fn an_extended_connect_implies_version_13_and_names_its_protocol_in_any_case() {
        assert!(
            read_http2(Method::CONNECT, |request| drop(request.headers_mut().remove(SEC_WEBSOCKET_VERSION))).is_ok()
        );
        let upper =
            |request: &mut Request<_>| drop(request.extensions_mut().insert(Protocol::from_static("WebSocket")));
        assert!(read_http2(Method::CONNECT, upper).is_ok());
    }

    #[test]
    fn an_upgrade_over_http_1_0_is_ignored() {
        let wanted = |version| is_websocket_request(&handshake().version(version).body(()).unwrap());
        assert!(wanted(Version::HTTP_11));
        assert!(!wanted(Version::HTTP_10));
    }

    #[test]
    fn whatever_breaks_an_extended_connect_is_named() {
        const BAD: (u16, &str) = (400, "bad_request");
        assert_eq!(read_http2(Method::GET, |_| {}).unwrap_err(), BAD);
        assert_eq!(read_http2(Method::CONNECT, |request| *request.body_mut() = Full::default()).unwrap_err(), BAD);
        let old = |request: &mut Request<_>| drop(request.headers_mut().insert(SEC_WEBSOCKET_VERSION, text("8")));
        assert_eq!(read_http2(Method::CONNECT, old).unwrap_err(), (426, "version"));
        let twice = |request: &mut Request<_>| assert!(request.headers_mut().append(SEC_WEBSOCKET_VERSION, text("13")));
        assert_eq!(read_http2(Method::CONNECT, twice).unwrap_err(), (426, "version"));
        // An upgrade by HTTP/1.1's field is none in HTTP/2.
        let plain = handshake().version(Version::HTTP_2).body(()).unwrap();
        assert!(!is_websocket_request(&plain));
    }

    #[test]
    fn an_offer_that_was_taken_back_is_none() {
        let deflate = (SEC_WEBSOCKET_EXTENSIONS, text("permessage-deflate"));
        let mut offer = altered(|headers| headers.extend([deflate])).unwrap();
        assert!(offer.without_extensions());
        assert!(!offer.without_extensions());
        let mut response = Response::new(());
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, text("permessage-deflate"));
        assert!(offer.coding(response.headers()).is_err());
    }

    #[test]
    fn a_101_that_is_none_is_refused() {
        let offer = read(handshake()).unwrap();
        for missing in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
            let mut response = Response::new(());
            for (name, value) in [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_ACCEPT, ACCEPT)] {
                response.headers_mut().insert(name, text(value));
            }
            response.headers_mut().remove(&missing);
            assert!(offer.check(&response).is_err(), "{missing}");
        }
    }
}
