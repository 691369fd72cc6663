//! A walk over the bytes of an HTTP/1.1 client connection (RFC 9112) before the library parses them: where each request
//! ends, and what the library does not tell of its target.
//!
//! The library takes a bare LF for a part of a trailer line, and so the request behind it for trailers, where another
//! reader sees their end (its chunked decoder looks for CR alone there). Its URI drops fragments, refuses bytes that
//! servers pass, and does not tell an absolute target without a path from one with `/`. Mended there, none of this would
//! be needed. What the library refuses by itself is left to it.

use crate::http::headers::CONTENT_LENGTH_MAX;
use crate::upstream::{is_refused, mask};

/// A chunk is smaller than this many bytes, so that one more digit of its size still has room.
const SIZE_MOST: u64 = 1 << 60;

/// The state of the walk over the bytes of a client.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    head: Head,
    /// The beginning of a header line, where it comes in pieces; of the target too.
    line: Vec<u8>,
    /// Bytes of a line at most: the library refuses longer heads.
    line_most: usize,
    /// Heads that have ended.
    heads: u64,
    /// Targets to be noted, by the number of their head.
    noted: Vec<Noted>,
    fault: Option<Ambiguous>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request: empty lines are no part of it (RFC 9112 §2.2).
    Start,
    Method,
    Target,
    /// The rest of the request line.
    Version,
    Fields,
    /// So many bytes of a body are left.
    Body(u64),
    /// The size of a chunk; `None` before its first digit.
    Size(Option<u64>),
    /// Spaces behind the size.
    SizeEnd(u64),
    Extension(u64),
    SizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    /// A trailer line; `true` at its beginning.
    Trailer(bool),
    TrailerLf(bool),
    /// An upgrade was asked for: what follows its message is not known yet.
    Gate,
    /// The library refuses what comes: all passes.
    Left,
}

/// The parts of the head under way that have come.
#[derive(Debug, Default)]
struct Head {
    /// Set while its method may be OPTIONS.
    may_be_options: bool,
    /// Slashes of its target, up to the one that begins the path.
    slashes: u8,
    is_noted: bool,
    is_upgrade: bool,
    body: BodyFraming,
}

/// The framing of the body behind a head (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFraming {
    Length(u64),
    Chunked,
}

impl Default for BodyFraming {
    fn default() -> Self {
        Self::Length(0)
    }
}

/// The target of a head as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// The number of the head on its connection, from 1.
    pub(super) head: u64,
    pub(super) target: Vec<u8>,
}

/// The end of a request could be seen in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Ambiguous(&'static str);

impl Framing {
    pub(super) fn new(line_most: usize) -> Self {
        Self {
            state: State::Start,
            head: Head::default(),
            line: Vec::new(),
            line_most,
            heads: 0,
            noted: Vec::new(),
            fault: None,
        }
    }

    /// Walks over `bytes`, the next that have come, and returns how many of them pass. The others do not until
    /// [`Self::release`], or never, where there is a [`Self::fault`].
    pub(super) fn walk(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Gate {
            match self.step(&mut bytes[at..]) {
                Ok(len) => at += len,
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        at
    }

    /// Returns why nothing more passes.
    pub(super) fn fault(&self) -> Option<Ambiguous> {
        self.fault
    }

    /// Returns whether what comes waits for [`Self::release`].
    pub(super) fn is_gated(&self) -> bool {
        self.state == State::Gate
    }

    /// Returns how many heads have ended.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes the targets that were noted.
    pub(super) fn take_noted(&mut self) -> Vec<Noted> {
        std::mem::take(&mut self.noted)
    }

    /// The upgrade that was asked for does not take place: what follows is a request.
    pub(super) fn release(&mut self) {
        self.head.is_upgrade = false;
        if self.state == State::Gate {
            self.state = State::Start;
        }
    }

    /// Walks over the bytes at the front of `bytes`, which is not empty, and returns how many they are.
    fn step(&mut self, bytes: &mut [u8]) -> Result<usize, Ambiguous> {
        let byte = bytes[0];
        let state = match self.state {
            State::Start if matches!(byte, b'\r' | b'\n') => State::Start,
            State::Start => {
                self.head = Head { may_be_options: byte == b'O', ..Head::default() };
                self.state = State::Method;
                return Ok(0);
            }
            State::Method => return Ok(self.method(bytes)),
            State::Target => return Ok(self.target(bytes)),
            State::Version => return Ok(self.version(bytes)),
            State::Fields => return Ok(self.fields(bytes)),
            State::Body(left) => return Ok(self.payload(bytes, left, State::Body)),
            State::Chunk(left) => return Ok(self.payload(bytes, left, State::Chunk)),
            State::Size(size) => match (byte, size) {
                (b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F', size) => {
                    let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                    let size = size.unwrap_or(0) << 4 | digit;
                    if size >= SIZE_MOST {
                        return Err(Ambiguous("a chunk is too large"));
                    }
                    State::Size(Some(size))
                }
                (b'\t' | b' ', Some(size)) => State::SizeEnd(size),
                (b';', Some(size)) => State::Extension(size),
                (b'\r', Some(size)) => State::SizeLf(size),
                (b'\n', _) => return Err(Ambiguous("a chunk line ends in a bare LF")),
                _ => return Err(Ambiguous("a chunk has no size")),
            },
            State::SizeEnd(size) => match byte {
                b'\t' | b' ' => State::SizeEnd(size),
                b';' => State::Extension(size),
                b'\r' => State::SizeLf(size),
                b'\n' => return Err(Ambiguous("a chunk line ends in a bare LF")),
                _ => return Err(Ambiguous("a chunk has no size")),
            },
            State::Extension(size) => {
                return self.skip_line(bytes, State::SizeLf(size), "a chunk line ends in a bare LF");
            }
            State::SizeLf(size) => match (byte, size) {
                (b'\n', 0) => State::Trailer(true),
                (b'\n', size) => State::Chunk(size),
                _ => return Err(Ambiguous("a chunk line has a bare CR")),
            },
            State::ChunkCr if byte == b'\r' => State::ChunkLf,
            State::ChunkLf if byte == b'\n' => State::Size(None),
            State::ChunkCr | State::ChunkLf => return Err(Ambiguous("a chunk is not followed by CRLF")),
            State::Trailer(true) if byte == b'\r' => State::TrailerLf(true),
            State::Trailer(_) => {
                return self.skip_line(bytes, State::TrailerLf(false), "a trailer line ends in a bare LF");
            }
            State::TrailerLf(is_end) => match byte {
                b'\n' if is_end => self.after_message(),
                b'\n' => State::Trailer(true),
                _ => return Err(Ambiguous("a trailer line has a bare CR")),
            },
            State::Gate | State::Left => return Ok(bytes.len()),
        };
        self.state = state;
        Ok(1)
    }

    fn method(&mut self, bytes: &[u8]) -> usize {
        match memchr::memchr2(b' ', b'\n', bytes) {
            Some(at) => {
                self.state = if bytes[at] == b' ' { State::Target } else { State::Left };
                at + 1
            }
            None => bytes.len(),
        }
    }

    /// A piece of the target. What the library refuses of its path and query gets stand-ins.
    fn target(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr::memchr2(b' ', b'\n', bytes);
        let len = end.unwrap_or(bytes.len());
        let piece = &mut bytes[..len];
        let is_first = self.line.is_empty() && self.head.slashes == 0;
        if is_first && self.head.may_be_options && piece.first().is_some_and(|byte| *byte != b'/') {
            self.head.is_noted = true;
        }
        let is_odd = piece.iter().any(|byte| is_refused(*byte) || *byte == b'#');
        self.head.is_noted |= is_odd;
        if (self.head.is_noted || end.is_none() || !self.line.is_empty()) && self.line.len() <= self.line_most {
            self.line.extend_from_slice(piece);
        }
        if is_odd || self.head.slashes < 3 {
            self.mask(is_first, is_odd, piece);
        }
        let Some(at) = end else { return bytes.len() };
        let target = std::mem::take(&mut self.line);
        if self.head.is_noted {
            self.noted.push(Noted { head: self.heads + 1, target });
        }
        self.state = if bytes[at] == b' ' { State::Version } else { State::Left };
        at + 1
    }

    /// The beginning of a path is a slash at the front, or the third one, or a question mark behind two.
    fn mask(&mut self, is_first: bool, is_odd: bool, piece: &mut [u8]) {
        if is_first && piece.first() == Some(&b'/') {
            self.head.slashes = 3;
        }
        let mut start = 0;
        while self.head.slashes < 3 && start < piece.len() {
            match piece[start] {
                b'/' => self.head.slashes += 1,
                b'?' if self.head.slashes == 2 => self.head.slashes = 3,
                _ => {}
            }
            start += 1;
        }
        if is_odd {
            mask(&mut piece[start..]);
        }
    }

    fn version(&mut self, bytes: &[u8]) -> usize {
        match memchr::memchr(b'\n', bytes) {
            Some(at) => {
                self.state = State::Fields;
                at + 1
            }
            None => bytes.len(),
        }
    }

    /// Walks over as many header lines as there are.
    fn fields(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.state == State::Fields {
            at += self.field(&mut bytes[at..]);
        }
        at
    }

    /// A header line, or a piece of one.
    #[inline]
    fn field(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        if (end.is_none() || !self.line.is_empty()) && self.line.len() <= self.line_most {
            self.line.extend_from_slice(piece);
        }
        let Some(at) = end else { return bytes.len() };
        let line = std::mem::take(&mut self.line);
        let line = if line.is_empty() { piece } else { &line };
        match line.strip_suffix(b"\r").unwrap_or(line) {
            [] => {
                self.heads += 1;
                self.state = match self.head.body {
                    BodyFraming::Chunked => State::Size(None),
                    BodyFraming::Length(0) => self.after_message(),
                    BodyFraming::Length(length) => State::Body(length),
                };
            }
            line => {
                if let Err(Unreadable) = self.head.field(line) {
                    // The library answers a control character with a 400.
                    bytes[at] = 0;
                    self.state = State::Left;
                }
            }
        }
        at + 1
    }

    fn payload(&mut self, bytes: &[u8], left: u64, same: fn(u64) -> State) -> usize {
        let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
        self.state = match left - here {
            0 if matches!(self.state, State::Chunk(_)) => State::ChunkCr,
            0 => self.after_message(),
            left => same(left),
        };
        usize::try_from(here).unwrap_or(bytes.len())
    }

    /// Skips a line up to its CR, behind which `then` comes.
    fn skip_line(&mut self, bytes: &[u8], then: State, bare: &'static str) -> Result<usize, Ambiguous> {
        match memchr::memchr2(b'\r', b'\n', bytes) {
            Some(at) if bytes[at] == b'\r' => {
                self.state = then;
                Ok(at + 1)
            }
            Some(0) => Err(Ambiguous(bare)),
            // Bytes before it pass: they may be all that the library sees of the body.
            Some(at) => Ok(at),
            None => {
                if let State::Trailer(is_start) = &mut self.state {
                    *is_start = false;
                }
                Ok(bytes.len())
            }
        }
    }

    /// Returns the state behind a message.
    fn after_message(&self) -> State {
        if self.head.is_upgrade { State::Gate } else { State::Start }
    }
}

/// A Content-Length that not every reader can hold.
struct Unreadable;

impl Head {
    /// A whole line of the head. Framing is read as the library reads it (RFC 9112 §6.3), where it does not refuse it.
    fn field(&mut self, line: &[u8]) -> Result<(), Unreadable> {
        let value = |name: &str| {
            let (found, rest) = line.split_at_checked(name.len())?;
            let is_it = found.eq_ignore_ascii_case(name.as_bytes()) && rest.first() == Some(&b':');
            is_it.then(|| rest[1..].trim_ascii())
        };
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value("content-length") {
                    let length = length(value)?;
                    // Chunks win, whichever stands first.
                    if self.body != BodyFraming::Chunked {
                        self.body = BodyFraming::Length(length);
                    }
                }
            }
            b't' | b'T' if value("transfer-encoding").is_some() => self.body = BodyFraming::Chunked,
            b'u' | b'U' => self.is_upgrade |= value("upgrade").is_some(),
            _ => {}
        }
        Ok(())
    }
}

/// Reads a length. The library refuses what is no number.
fn length(value: &[u8]) -> Result<u64, Unreadable> {
    if !value.iter().all(u8::is_ascii_digit) {
        return Ok(0);
    }
    let length = value.iter().try_fold(0_u64, |length, digit| {
        length.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|length| *length <= CONTENT_LENGTH_MAX)
    });
    length.ok_or(Unreadable)
}

#[cfg(test)]
mod tests;
