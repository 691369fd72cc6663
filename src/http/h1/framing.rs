//! A walk over the bytes of an HTTP/1.1 client connection (RFC 9112) before the library parses them. It finds out where
//! each request ends, refuses ends that another reader might see elsewhere, and notes of each head what the library does
//! not tell.
//!
//! The library reads a bare LF as a part of a trailer line, and so takes the request behind it for trailers. It drops the
//! fragment of a target, does not tell an absolute target without a path from one with `/`, and refuses bytes that other
//! servers pass (`"`, `<` and `>` in a query). Each of these could be mended there: the chunked decoder has to look for LF in
//! a trailer, and the scanner of targets to let these bytes pass as it does in a path.

use std::collections::VecDeque;

use hyper::Uri;

/// Digits of the largest chunk that is taken: below 2⁶⁰ bytes.
const CHUNK_DIGITS: u32 = 15;

/// Bytes of one line with the size of a chunk and its extensions, and of a trailer section.
const LINES_MOST: usize = 16 * 1024;

/// The largest Content-Length that is taken; a signed number holds it too.
const LENGTH_MOST: u64 = i64::MAX as u64;

/// Where the walk stands.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// Bytes of an unfinished head, chunk line or trailer section that have been looked at.
    scanned: usize,
    /// Heads that have passed, and those that the service has been given.
    heads: u64,
    served: u64,
    notes: VecDeque<(u64, Note)>,
    /// Bytes and lines that a head may have.
    limits: HeadLimits,
}

/// What the head of a request may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body are left.
    Body(u64),
    /// The line with the size of a chunk comes next.
    ChunkLine,
    /// So many bytes of a chunk are left, the line end behind it included.
    Chunk(u64),
    Trailers,
    /// An upgrade was asked for; `true`: bytes have come behind its head.
    Upgrade(bool),
    /// The library refuses the connection: all passes.
    Left,
}

/// What the library does not tell of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The target as it was sent, where the library was given another spelling.
    pub(super) target: Option<Box<[u8]>>,
    /// Whether the target is one that no server may serve.
    pub(super) is_refused: bool,
    /// Whether the target is that of a server as a whole: an absolute one of OPTIONS that has no path (RFC 9112 §3.2.4).
    pub(super) is_asterisk: bool,
}

/// The treatment of the bytes at the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More of them are needed.
    More,
    /// So many pass.
    Pass(usize),
    /// So many are replaced by these.
    Replace(usize, Vec<u8>),
}

/// The end of a request could be seen in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Ambiguous(&'static str);

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { state: State::Head, scanned: 0, heads: 0, served: 0, notes: VecDeque::new(), limits }
    }

    /// Decides on the bytes at the front of `bytes`, which is never empty.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Ambiguous> {
        match self.state {
            State::Head => Ok(self.head(bytes)),
            State::Body(left) => Ok(self.payload(bytes, left, State::Body, State::Head)),
            State::Chunk(left) => Ok(self.payload(bytes, left, State::Chunk, State::ChunkLine)),
            State::ChunkLine => self.chunk_line(bytes),
            State::Trailers => self.trailers(bytes),
            State::Upgrade(_) => {
                self.state = State::Upgrade(true);
                Ok(Step::Pass(bytes.len()))
            }
            State::Left => Ok(Step::Pass(bytes.len())),
        }
    }

    /// Returns what was noted of the next request that the library hands out.
    pub(super) fn next_request(&mut self) -> Note {
        self.served += 1;
        match self.notes.front() {
            Some((number, _)) if *number == self.served => self.notes.pop_front().map(|(_, note)| note).unwrap_or_default(),
            _ => Note::default(),
        }
    }

    /// Goes on after an upgrade that was refused. False where bytes have come behind its head: whether they are a request
    /// cannot be told, and the connection has to end.
    pub(super) fn resume(&mut self) -> bool {
        match self.state {
            State::Upgrade(behind) => {
                self.state = if behind { State::Left } else { State::Head };
                !behind
            }
            _ => true,
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Step {
        // Empty lines in front of a request are none of it (RFC 9112 §2.2).
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let Some(end) = end_of_head(bytes, start.max(self.scanned.saturating_sub(3))) else {
            if bytes.len() > self.limits.bytes + start {
                self.leave();
                return Step::Pass(bytes.len());
            }
            self.scanned = bytes.len();
            return Step::More;
        };
        self.scanned = 0;
        self.heads += 1;
        let mut fields = vec![httparse::EMPTY_HEADER; self.limits.fields];
        let mut request = httparse::Request::new(&mut fields);
        let (Ok(httparse::Status::Complete(len)), Some(method), Some(target)) =
            (request.parse(&bytes[..end]), request.method, request.path)
        else {
            self.leave();
            return Step::Pass(end);
        };
        let note = note(method, target.as_bytes());
        self.state = match state(&request) {
            Ok(state) => state,
            Err(TooLong) => {
                self.leave();
                return Step::Replace(len, b"\0".to_vec());
            }
        };
        let replaced = note.target.as_ref().map(|raw| {
            let at = target.as_ptr() as usize - bytes.as_ptr() as usize;
            let mut head = bytes[..at].to_vec();
            head.extend_from_slice(&encoded(raw));
            head.extend_from_slice(&bytes[at + raw.len()..len]);
            head
        });
        if note != Note::default() {
            self.notes.push_back((self.heads, note));
        }
        match replaced {
            Some(head) => Step::Replace(len, head),
            None => Step::Pass(len),
        }
    }

    fn payload(&mut self, bytes: &[u8], left: u64, same: fn(u64) -> State, next: State) -> Step {
        let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
        self.state = if here == left { next } else { same(left - here) };
        Step::Pass(usize::try_from(here).unwrap_or(bytes.len()))
    }

    /// The size of a chunk, extensions behind it, and CRLF (RFC 9112 §7.1).
    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Step, Ambiguous> {
        let Some(line) = self.line(bytes, "a chunk line ends in a bare LF", "a chunk line is too long")? else {
            return Ok(Step::More);
        };
        let text = &bytes[..line - 2];
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let rest = text[digits..].trim_ascii_start();
        if digits == 0 || !(rest.is_empty() || rest[0] == b';') {
            return Err(Ambiguous("a chunk has no size"));
        }
        let size = text[..digits].iter().try_fold(0_u64, |size, digit| {
            let digit = char::from(*digit).to_digit(16).map(u64::from)?;
            (size >> (4 * (CHUNK_DIGITS - 1)) == 0).then_some(size << 4 | digit)
        });
        let size = size.ok_or(Ambiguous("a chunk is too large"))?;
        self.state = if size == 0 { State::Trailers } else { State::Chunk(size + 2) };
        Ok(Step::Pass(line))
    }

    /// One line of the trailer section; an empty one is its end (RFC 9112 §7.1.2).
    fn trailers(&mut self, bytes: &[u8]) -> Result<Step, Ambiguous> {
        let line = self.line(bytes, "a trailer line ends in a bare LF", "a trailer line is too long")?;
        Ok(match line {
            None => Step::More,
            Some(2) => {
                self.state = State::Head;
                Step::Pass(2)
            }
            Some(line) => Step::Pass(line),
        })
    }

    /// The length of the line at the front, its CRLF included.
    fn line(&mut self, bytes: &[u8], bare: &'static str, long: &'static str) -> Result<Option<usize>, Ambiguous> {
        let end = memchr::memchr2(b'\r', b'\n', &bytes[self.scanned..]).map(|at| self.scanned + at);
        self.scanned = 0;
        match end.map(|at| (at, bytes[at], bytes.get(at + 1))) {
            Some((at, b'\r', Some(b'\n'))) => Ok(Some(at + 2)),
            Some((_, b'\r', Some(_))) => Err(Ambiguous("a line has a bare CR")),
            Some((_, b'\n', _)) => Err(Ambiguous(bare)),
            Some((at, _, None)) if at < LINES_MOST => {
                self.scanned = at;
                Ok(None)
            }
            None if bytes.len() < LINES_MOST => {
                self.scanned = bytes.len();
                Ok(None)
            }
            _ => Err(Ambiguous(long)),
        }
    }

    fn leave(&mut self) {
        (self.state, self.scanned) = (State::Left, 0);
    }
}

/// A Content-Length that no number holds everywhere.
struct TooLong;

/// What follows the head of `request`, as the library will read it (RFC 9112 §6.3).
fn state(request: &httparse::Request<'_, '_>) -> Result<State, TooLong> {
    let of = |name: &'static str| {
        let fields = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value.trim_ascii())
    };
    if of("transfer-encoding").next().is_some() {
        // Another coding at the end is refused.
        return Ok(State::ChunkLine);
    }
    let mut length = 0;
    if let Some(value) = of("content-length").next() {
        let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match text.map(str::parse::<u64>) {
            Some(Ok(number)) if number <= LENGTH_MOST => length = number,
            // More digits than a number has, or none at all.
            Some(Ok(_)) => return Err(TooLong),
            Some(Err(_)) if text.is_some_and(|text| !text.is_empty()) => return Err(TooLong),
            // Refused.
            _ => return Ok(State::Left),
        }
    }
    Ok(match length {
        0 if of("upgrade").next().is_some() => State::Upgrade(false),
        0 => State::Head,
        length => State::Body(length),
    })
}

/// What the library does not tell of `target`.
fn note(method: &str, target: &[u8]) -> Note {
    let mut note = Note { is_refused: target.contains(&b'#'), ..Note::default() };
    if method == "OPTIONS"
        && let Some(at) = target.windows(3).position(|three| three == b"://")
    {
        note.is_asterisk = !target[at + 3..].iter().any(|byte| matches!(byte, b'/' | b'?'));
    }
    if Uri::try_from(target).is_err() && Uri::try_from(&*encoded(target)).is_ok() {
        note.target = Some(target.into());
    }
    note
}

/// `target` with the bytes percent-encoded that the library refuses.
fn encoded(target: &[u8]) -> Vec<u8> {
    let is_utf8 = std::str::from_utf8(target).is_ok();
    let mut text = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if matches!(byte, b'"' | b'<' | b'>' | b'`' | b'^' | b'{' | b'|' | b'}') || !is_utf8 && !byte.is_ascii() {
            text.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            text.push(*byte);
        }
    }
    text
}

/// The length of a head that ends at or behind `from`: two line ends in a row, each CRLF or a bare LF (RFC 9112 §2.2).
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from.min(bytes.len())..]).map(|at| from + at).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
