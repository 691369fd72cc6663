//! Request targets with bytes that the libraries refuse although servers accept them.
//!
//! RFC 3986 excludes `"`, `<`, `>` and the backtick from URIs, but clients send them (`?filter={"room":1}`), and Node,
//! nginx and HAProxy accept them. [`http::Uri`](hyper::Uri) does not: its table of query bytes lacks the first three,
//! and its table of path bytes the last three. This module would be unnecessary if these bytes were valid there as `{`
//! and `|` are, or if hyper and h2 exposed the target as it was sent.
//!
//! Until then a placeholder replaces each such byte on the way through the libraries, one byte for one byte, so that no
//! length changes: [`mask`] inserts it where a request arrives, [`RawTarget`] keeps the original, and [`Rewrite`]
//! restores it in the bytes written to the app.

use std::io::IoSlice;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};

/// The placeholder of a refused byte.
const STAND_IN: u8 = b'_';

/// Returns whether the libraries refuse `byte` in a path or in a query although servers accept it.
pub fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// Replaces refused bytes with placeholders.
pub fn mask(target: &mut [u8]) {
    for byte in target.iter_mut().filter(|byte| is_refused(**byte)) {
        *byte = STAND_IN;
    }
}

/// Path and query of a request as they were sent, of which the libraries hold a copy with placeholders; an extension of
/// the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTarget {
    text: Bytes,
    query: Option<usize>,
    stand_in: PathAndQuery,
}

impl RawTarget {
    /// Creates a target from `text`, which is in origin form (RFC 9112 §3.2.1) and consists of visible characters and
    /// bytes beyond ASCII. Returns `None` if it is not valid even with placeholders.
    pub fn new(text: Bytes) -> Option<Self> {
        let mut masked = text.to_vec();
        mask(&mut masked);
        let stand_in = PathAndQuery::try_from(masked).ok()?;
        let is_whole = stand_in.as_str().len() == text.len();
        let query = memchr::memchr(b'?', &text);
        is_whole.then_some(Self { text, query, stand_in })
    }

    /// Returns the path.
    pub fn path(&self) -> &[u8] {
        &self.text[..self.query.unwrap_or(self.text.len())]
    }

    /// Returns the query without its question mark; `None` if there is none.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|at| &self.text[at + 1..])
    }

    /// Returns the copy with placeholders, for the libraries.
    pub fn stand_in(&self) -> Uri {
        self.stand_in.clone().into()
    }
}

/// The restoration of one request line in the bytes written to the app.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// The line up to its version, as the library writes it.
    from: Vec<u8>,
    /// The original line, of the same length.
    to: Vec<u8>,
    /// The number of its bytes written so far.
    done: usize,
}

impl Rewrite {
    /// Creates the rewrite for a request that was sent with `target`.
    pub(super) fn new(method: &Method, target: &RawTarget) -> Self {
        let line = |target: &[u8]| [method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
        Self { from: line(target.stand_in.as_str().as_bytes()), to: line(&target.text), done: 0 }
    }

    /// Returns `pieces`, the next bytes that the library writes, with the line restored, and the number of bytes before
    /// it; `None` if the line is not among them.
    ///
    /// The library writes a head in one piece, at the start of a write, after all bytes of the request before.
    pub(super) fn apply<'a>(&'a self, pieces: &'a [IoSlice<'a>]) -> Option<(Vec<IoSlice<'a>>, usize)> {
        let at = pieces.iter().position(|piece| !piece.is_empty())?;
        let (first, rest) = (&pieces[at][..], &pieces[at + 1..]);
        let (from, to) = (&self.from[self.done..], &self.to[self.done..]);
        let before = memchr::memmem::find(first, from)?;
        let (head, tail) = (&first[..before], &first[before + from.len()..]);
        let restored = [head, to, tail].into_iter().map(IoSlice::new);
        Some((restored.chain(rest.iter().copied()).collect(), before))
    }

    /// Records that `written` bytes were written, of which `before` precede the line. Returns whether the line is
    /// complete.
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
