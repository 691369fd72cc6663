//! Targets of requests that the libraries refuse although servers pass them, carried around the libraries.
//!
//! RFC 3986 leaves `"`, `<`, `>` and a backtick out of URIs, and clients send them all the same (`?filter={"room":1}`);
//! Node, nginx and HAProxy pass them. [`http::Uri`](hyper::Uri) does not: its map of query bytes lacks the first three, and
//! its map of path bytes the last three. With these bytes as valid as `{` and `|`, which it takes for the sake of such
//! clients, all of this could go; so could it if hyper and h2 handed out the target as it was sent.
//!
//! Until then such a byte has a stand-in on its way through the libraries, one byte for another, so that no length
//! changes: [`mask`] puts it in where a request comes in, [`RawTarget`] keeps what was sent, and [`Rewrite`] restores that in
//! the bytes that go to the app.

use std::io::IoSlice;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};

/// The byte in the place of one that is refused.
const STAND_IN: u8 = b'_';

/// Returns whether `byte` is refused by the libraries, in a path or in a query, and passed by servers.
pub fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// Puts stand-ins in the place of bytes that are refused.
pub fn mask(target: &mut [u8]) {
    for byte in target.iter_mut().filter(|byte| is_refused(**byte)) {
        *byte = STAND_IN;
    }
}

/// Path and query of a request as they were sent, where the libraries got stand-ins for some bytes; an extension of the
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTarget {
    text: Bytes,
    query: Option<usize>,
    stand_in: PathAndQuery,
}

impl RawTarget {
    /// `text` is in origin form (RFC 9112 §3.2.1), and visible but for bytes beyond ASCII. `None` where stand-ins do not
    /// make it valid.
    pub fn new(text: Bytes) -> Option<Self> {
        let mut masked = text.to_vec();
        mask(&mut masked);
        let stand_in = PathAndQuery::try_from(masked).ok()?;
        let is_whole = stand_in.as_str().len() == text.len();
        let query = memchr::memchr(b'?', &text);
        is_whole.then_some(Self { text, query, stand_in })
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        &self.text[..self.query.unwrap_or(self.text.len())]
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|at| &self.text[at + 1..])
    }

    /// What the libraries get for it.
    pub fn stand_in(&self) -> Uri {
        self.stand_in.clone().into()
    }
}

/// One request line that is to be restored in what is written to the app.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// The line up to its version, as the library writes it.
    from: Vec<u8>,
    /// As it is to be, of the same length.
    to: Vec<u8>,
    /// Bytes of it that are written.
    done: usize,
}

impl Rewrite {
    /// That of a request with the stand-in of `target`.
    pub(super) fn new(method: &Method, target: &RawTarget) -> Self {
        let line = |target: &[u8]| [method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
        Self { from: line(target.stand_in.as_str().as_bytes()), to: line(&target.text), done: 0 }
    }

    /// Returns `pieces`, the next bytes that the library writes, with the line restored, and how many bytes stand before
    /// it. `None` where the line is not among them.
    ///
    /// The library writes a head in one piece, at the front of what it writes: it has written all of the request before.
    pub(super) fn apply<'a>(&'a self, pieces: &'a [IoSlice<'a>]) -> Option<(Vec<IoSlice<'a>>, usize)> {
        let at = pieces.iter().position(|piece| !piece.is_empty())?;
        let (first, rest) = (&pieces[at][..], &pieces[at + 1..]);
        let (from, to) = (&self.from[self.done..], &self.to[self.done..]);
        let before = memchr::memmem::find(first, from)?;
        let (head, tail) = (&first[..before], &first[before + from.len()..]);
        let restored = [head, to, tail].into_iter().map(IoSlice::new);
        Some((restored.chain(rest.iter().copied()).collect(), before))
    }

    /// `written` bytes are written, of which `before` stand before the line. Returns whether the line is through.
    pub(super) fn advance(&mut self, written: usize, before: usize) -> bool {
        self.done += written.saturating_sub(before);
        self.done >= self.to.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &'static str) -> Option<RawTarget> {
        RawTarget::new(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn what_the_library_refuses_has_a_stand_in() {
        for text in [r#"/a?filter={"room":1}"#, "/a?<b>|^`", "/<a>`?", r#"/?q="ü""#] {
            assert!(text.parse::<PathAndQuery>().is_err(), "{text} needs none any more");
            let target = raw(text).expect(text);
            assert_eq!(target.stand_in().to_string().len(), text.len(), "{text}");
            let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
            assert_eq!((target.path(), target.query()), (path.as_bytes(), query.map(str::as_bytes)));
        }
        for text in ["", "a", "/a b\"", "/\"\u{7f}", "/\"#x", "?\"#"] {
            assert_eq!(raw(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_line_is_restored_wherever_the_output_is_cut() {
        let target = raw(r#"/?a="b""#).expect("valid");
        let head = "GET /?a=_b_ HTTP/1.1\r\nhost: a\r\nreferer: /?a=_b_\r\n\r\n";
        let written = format!("left over{head}body GET /?a=_b_ HTTP/1.1\r\n");
        let expected = written.replacen("GET /?a=_b_", r#"GET /?a="b""#, 1);
        for size in 1..written.len() {
            let (mut rewrite, mut sent, mut rest) = (Some(Rewrite::new(&Method::GET, &target)), Vec::new(), &*written);
            while !rest.is_empty() {
                let (one, other) = rest.as_bytes().split_at("left over".len().max(head.len()).min(rest.len()));
                let pieces = [IoSlice::new(&[]), IoSlice::new(one), IoSlice::new(other)];
                let (out, before) = match rewrite.as_ref().and_then(|rewrite| rewrite.apply(&pieces)) {
                    Some((restored, before)) => {
                        (restored.iter().flat_map(|piece| piece.to_vec()).collect(), Some(before))
                    }
                    None => (rest.as_bytes().to_vec(), None),
                };
                assert_eq!(out.len(), rest.len());
                let taken = size.min(out.len());
                sent.extend_from_slice(&out[..taken]);
                rest = &rest[taken..];
                if let (Some(before), Some(armed)) = (before, &mut rewrite)
                    && armed.advance(taken, before)
                {
                    rewrite = None;
                }
            }
            assert_eq!(String::from_utf8(sent).expect("text"), expected, "pieces of {size}");
        }
    }
}
