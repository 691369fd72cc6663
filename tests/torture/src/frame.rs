//! WebSocket frames (RFC 6455 §5.2): an encoder, and a streaming parser that keeps a hash of each payload. Written for
//! this judge alone, which shares no code with the program or with its other tests.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Instant;

/// A further fragment of a message.
pub const CONTINUATION: u8 = 0;
/// A text message.
pub const TEXT: u8 = 1;
/// A binary message.
pub const BINARY: u8 = 2;
/// A Close.
pub const CLOSE: u8 = 8;
/// A Ping.
pub const PING: u8 = 9;
/// A Pong.
pub const PONG: u8 = 10;

/// Payloads up to this size are kept.
const KEPT: u64 = 125;

/// The maximum size of a tiny payload. Equal consecutive messages of such a size are one entry.
const TINY: u64 = 8;

/// A frame that was sent or received.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV1 to RSV3 and the opcode.
    pub first: u8,
    /// The masking key.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
    /// A hash of the payload as it is on the wire.
    pub hash: u64,
    /// The unmasked payload, if it is short.
    pub payload: Vec<u8>,
    /// The number of consecutive equal frames.
    pub repeats: u64,
}

impl Frame {
    /// Returns the opcode.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    /// Returns true if both have the same bytes, whatever their number of repeats.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.first, self.key, self.length, self.hash) == (other.first, other.key, other.length, other.hash)
    }

    /// Returns true for a tiny binary message. A flood consists of millions of them.
    fn is_tiny(&self) -> bool {
        self.first == 0x80 | BINARY && self.length <= TINY
    }

    /// Returns true if it belongs to a message.
    pub fn is_data(&self) -> bool {
        self.opcode() < CLOSE
    }

    /// Returns the code and the reason of a Close; 1005 if it is empty.
    pub fn close(&self) -> Option<(u16, String)> {
        (self.opcode() == CLOSE).then(|| match self.payload.split_first_chunk::<2>() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
            None => (1005, String::new()),
        })
    }

    /// Returns the frame and its bytes, for a given first byte and key.
    pub fn encode(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> (Self, Vec<u8>) {
        let mut bytes = head(first, key, payload.len() as u64);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        mask(&mut bytes[start..], key, 0);
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes[start..]);
        let kept = if payload.len() as u64 <= KEPT { payload.to_vec() } else { Vec::new() };
        (Self { first, key, length: payload.len() as u64, hash: hasher.finish(), payload: kept, repeats: 1 }, bytes)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.opcode() {
            CONTINUATION => "continuation".to_owned(),
            TEXT => "text".to_owned(),
            BINARY => "binary".to_owned(),
            CLOSE => format!("Close {:?}", self.close()),
            PING => "Ping".to_owned(),
            PONG => "Pong".to_owned(),
            other => format!("opcode {other}"),
        };
        let more = if self.first & 0x80 == 0 { "+" } else { "" };
        let shown = String::from_utf8_lossy(&self.payload[..self.payload.len().min(12)]).into_owned();
        write!(f, "{kind}{more} {}B {shown:?}", self.length)?;
        if self.repeats > 1 { write!(f, " x {}", self.repeats) } else { Ok(()) }
    }
}

/// Returns the header of a frame, with its length in the shortest form.
pub fn head(first: u8, key: Option<[u8; 4]>, length: u64) -> Vec<u8> {
    let masked: u8 = if key.is_some() { 0x80 } else { 0x00 };
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(masked | short),
        (_, Ok(medium)) => {
            bytes.push(masked | 0x7E);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 0x7F);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(key.into_iter().flatten());
    bytes
}

/// Masks or unmasks bytes, the first of which is byte `offset` of its payload.
pub fn mask(bytes: &mut [u8], key: Option<[u8; 4]>, offset: usize) {
    let Some(key) = key else { return };
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= key[(offset + index) % 4];
    }
}

/// Returns the payload of a Close.
pub fn close_payload(close: Option<&(u16, String)>) -> Vec<u8> {
    close.map_or(Vec::new(), |(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// A streaming parser of one direction.
#[derive(Debug)]
pub struct Parser {
    head: Vec<u8>,
    open: Option<Open>,
    masked: bool,
    rsv1: bool,
    /// The bytes of the last frame, if it was a tiny message.
    tiny: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    frame: Frame,
    hasher: DefaultHasher,
    left: u64,
}

impl Parser {
    /// Returns a parser. `masked`: all frames must be masked, or none. `rsv1`: RSV1 may be set on the first frame of a
    /// message, or never.
    pub fn new(masked: bool, rsv1: bool) -> Self {
        Self { head: Vec::new(), open: None, masked, rsv1, tiny: Vec::new() }
    }

    /// Adds bytes and appends the frames that they complete, each with the time.
    ///
    /// # Errors
    ///
    /// Returns the rule that a header breaks.
    pub fn add(&mut self, mut bytes: &[u8], frames: &mut Vec<(Frame, Instant)>) -> Result<(), &'static str> {
        let now = Instant::now();
        loop {
            if let Some(open) = &mut self.open {
                let count = usize::try_from(open.left).unwrap_or(usize::MAX).min(bytes.len());
                let (now_here, rest) = bytes.split_at(count);
                open.hasher.write(now_here);
                if open.frame.length <= KEPT {
                    open.frame.payload.extend_from_slice(now_here);
                }
                open.left -= count as u64;
                bytes = rest;
                if open.left > 0 {
                    return Ok(());
                }
                if let Some(open) = self.open.take() {
                    self.complete(open, now, frames);
                    bytes = self.skip_equal(bytes, now, frames);
                }
            } else if self.head.is_empty() {
                bytes = self.skip_equal(bytes, now, frames);
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            self.head.push(byte);
            bytes = rest;
            if let Some(frame) = self.header()? {
                self.head.clear();
                self.open = Some(Open { left: frame.length, frame, hasher: DefaultHasher::new() });
            }
        }
    }

    fn complete(&mut self, open: Open, now: Instant, frames: &mut Vec<(Frame, Instant)>) {
        let Open { mut frame, hasher, .. } = open;
        self.tiny.clear();
        if frame.is_tiny() {
            self.tiny = head(frame.first, frame.key, frame.length);
            self.tiny.extend_from_slice(&frame.payload);
        }
        mask(&mut frame.payload, frame.key, 0);
        frame.hash = hasher.finish();
        match frames.last_mut() {
            Some((last, at)) if frame.is_tiny() && last.is_like(&frame) => {
                last.repeats += 1;
                *at = now;
            }
            _ => frames.push((frame, now)),
        }
    }

    /// Counts the frames at the front of `bytes` that equal the last one, and returns the bytes after them: an app must
    /// read a flood faster than a proxy relays it.
    fn skip_equal<'a>(&self, bytes: &'a [u8], now: Instant, frames: &mut [(Frame, Instant)]) -> &'a [u8] {
        let (size, Some((last, at))) = (self.tiny.len(), frames.last_mut()) else { return bytes };
        if size == 0 {
            return bytes;
        }
        let count = bytes.chunks_exact(size).take_while(|chunk| *chunk == self.tiny).count();
        if count > 0 {
            last.repeats += count as u64;
            *at = now;
        }
        &bytes[count * size..]
    }

    /// Returns true if a frame has begun and is not complete.
    pub fn is_within_frame(&self) -> bool {
        self.open.is_some() || !self.head.is_empty()
    }

    fn header(&self) -> Result<Option<Frame>, &'static str> {
        let &[first, second, ref rest @ ..] = &self.head[..] else { return Ok(None) };
        let wide = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let keyed = usize::from(second >> 7) * 4;
        if let Some(fault) = self.fault(first, second) {
            return Err(fault);
        }
        if rest.len() < wide + keyed {
            return Ok(None);
        }
        let length = match wide {
            0 => u64::from(second & 0x7F),
            _ => rest[..wide].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        if length >> 63 != 0 {
            return Err("a length with the top bit set");
        }
        let key = (keyed == 4).then(|| [rest[wide], rest[wide + 1], rest[wide + 2], rest[wide + 3]]);
        Ok(Some(Frame { first, key, length, hash: 0, payload: Vec::new(), repeats: 1 }))
    }

    fn fault(&self, first: u8, second: u8) -> Option<&'static str> {
        let opcode = first & 0x0F;
        if matches!(opcode, 3..=7 | 11..) {
            return Some("a reserved opcode");
        }
        if first & 0x30 != 0 || (first & 0x40 != 0 && (!self.rsv1 || opcode == CONTINUATION || opcode >= CLOSE)) {
            return Some("a reserved bit");
        }
        if opcode >= CLOSE && (first & 0x80 == 0 || second & 0x7F > 125) {
            return Some("a long or fragmented control frame");
        }
        let masked = second & 0x80 != 0;
        (self.masked != masked).then_some("a mask where there must be none, or none")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tiny_messages_are_counted_wherever_the_stream_is_cut() {
        let key = Some([1, 2, 3, 4]);
        let (tiny, other, ping) =
            (Frame::encode(0x82, key, b"abc").1, Frame::encode(0x82, key, b"abd").1, Frame::encode(0x89, key, b"").1);
        let stream = [tiny.repeat(40), other, tiny.repeat(2), ping.repeat(3), tiny.repeat(1)].concat();
        for size in 1..stream.len() {
            let (mut parser, mut frames) = (Parser::new(true, false), Vec::new());
            for chunk in stream.chunks(size) {
                parser.add(chunk, &mut frames).expect("the frames are legal");
            }
            let counts: Vec<u64> = frames.iter().map(|(frame, _)| frame.repeats).collect();
            assert_eq!(counts, [40, 1, 2, 1, 1, 1, 1], "in pieces of {size} bytes");
        }
    }
}
