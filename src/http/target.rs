//! The target of a request, as it was sent.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri};

use crate::upstream::RawTarget;

/// Marks a request whose target no server may serve: with a fragment, which the libraries drop (RFC 9112 §3.2), or one that
/// a stand-in does not make valid.
#[derive(Clone, Copy, Debug)]
struct Unfit;

/// Notes that the target of `request` was sent as `raw`, where that holds more than its URI does.
pub(super) fn note<B>(request: &mut Request<B>, raw: Vec<u8>) {
    let is_for_all = request.method() == Method::OPTIONS;
    let raw = Bytes::from(raw);
    if raw.contains(&b'#') {
        request.extensions_mut().insert(Unfit);
        return;
    }
    let path = match path_of(&raw) {
        // The target of a server as a whole (RFC 9112 §3.2.4).
        Some(path) if path.is_empty() && is_for_all => return ask_for_all(request.uri_mut()),
        Some(path) => path,
        None => return,
    };
    if !path.iter().any(|byte| crate::upstream::is_refused(*byte)) {
        return;
    }
    let path = if path.first() == Some(&b'?') { [b"/", &path[..]].concat().into() } else { path };
    match RawTarget::new(path) {
        Some(target) => drop(request.extensions_mut().insert(target)),
        None => drop(request.extensions_mut().insert(Unfit)),
    }
}

/// Path and query of a target in origin or absolute form.
fn path_of(raw: &Bytes) -> Option<Bytes> {
    if raw.first() == Some(&b'/') {
        return Some(raw.clone());
    }
    let authority = memchr::memmem::find(raw, b"://")? + 3;
    let len = raw[authority..].iter().take_while(|byte| !matches!(byte, b'/' | b'?')).count();
    Some(raw.slice(authority + len..))
}

fn ask_for_all(uri: &mut Uri) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    // Fails only for a scheme or an authority without the other.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The path that `request` asks for.
pub(super) fn path<B>(request: &Request<B>) -> Cow<'_, str> {
    raw(request).map_or_else(|| request.uri().path().into(), |raw| String::from_utf8_lossy(raw.path()))
}

/// The query string.
pub(super) fn query<B>(request: &Request<B>) -> Option<Cow<'_, str>> {
    match raw(request) {
        Some(raw) => raw.query().map(String::from_utf8_lossy),
        None => request.uri().query().map(Cow::from),
    }
}

/// The target as it was sent, where the URI holds stand-ins for some of its bytes.
pub(super) fn raw<B>(request: &Request<B>) -> Option<&RawTarget> {
    request.extensions().get()
}

/// Returns whether the form of the target fits the method (RFC 9112 §3.2): `*` is for OPTIONS, an authority alone for
/// CONNECT.
pub(super) fn is_fitting<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let is_authority_alone = uri.authority().is_some() && uri.path_and_query().is_none();
    let is_of_its_form = match *request.method() {
        Method::CONNECT => true,
        Method::OPTIONS => !is_authority_alone,
        _ => !is_authority_alone && uri.path() != "*",
    };
    is_of_its_form && request.extensions().get::<Unfit>().is_none()
}

/// The target in origin form (RFC 9112 §3.2.1), as the app's side takes it.
pub(super) fn origin_form<B>(request: &Request<B>) -> Uri {
    match raw(request) {
        Some(raw) => raw.stand_in(),
        None => request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::mask;

    /// A request as the library hands it out.
    fn request(method: Method, target: &str) -> Request<()> {
        let mut masked = target.as_bytes().to_vec();
        mask(&mut masked);
        let mut request = Request::builder().method(method).uri(&masked[..]).body(()).expect(target);
        note(&mut request, target.into());
        request
    }

    #[test]
    fn a_target_is_seen_as_it_was_sent() {
        for (target, path_sent, query_sent, given) in [
            (r#"/a?q={"b":1}"#, "/a", Some(r#"q={"b":1}"#), "/a?q={_b_:1}"),
            ("http://h/<a>?", "/<a>", Some(""), "/_a_?"),
            (r#"http://h?"a""#, "/", Some(r#""a""#), "/?_a_"),
            ("http://h/a`", "/a`", None, "/a_"),
            ("/a?b", "/a", Some("b"), "/a?b"),
        ] {
            let request = request(Method::GET, target);
            assert!(is_fitting(&request), "{target}");
            assert_eq!((&*path(&request), query(&request).as_deref()), (path_sent, query_sent), "{target}");
            assert_eq!(origin_form(&request), given, "{target}");
        }
    }

    #[test]
    fn targets_of_another_form_are_unfit() {
        for (method, target, expected) in [
            (Method::GET, "/x#y", false),
            (Method::GET, "/x?a#y\"", false),
            (Method::GET, "http://h/#", false),
            (Method::GET, "h:80", false),
            (Method::GET, "*", false),
            (Method::OPTIONS, "h:80", false),
            (Method::OPTIONS, "*", true),
            (Method::CONNECT, "h:80", true),
        ] {
            assert_eq!(is_fitting(&request(method, target)), expected, "{target}");
        }
    }

    #[test]
    fn options_of_a_server_as_a_whole_are_for_the_asterisk() {
        let form = |method, target| origin_form(&request(method, target)).to_string();
        assert_eq!(form(Method::OPTIONS, "https://h"), "*");
        assert_eq!(form(Method::OPTIONS, "https://h:443"), "*");
        assert_eq!(form(Method::OPTIONS, "https://h/"), "/");
        assert_eq!(form(Method::OPTIONS, "https://h?a"), "/?a");
        assert_eq!(form(Method::GET, "https://h"), "/");
        assert_eq!(path(&request(Method::OPTIONS, "https://h")), "*");
    }
}
