//! Messages on their way through, for a heartbeat that is made of messages: short ones that may be one are looked at,
//! and held back where they must not pass before they are known. All others are stepped over.

use flate2::{Decompress, FlushDecompress, Status};

use crate::heartbeat::{MessageKind, MessageMatcher};
use crate::ws::{FrameHeader, Limits, Opcode, RSV_ALL, RSV_DEFLATE, Sender, unmask};

/// The maximum number of empty fragments that are held; a message with more is no heartbeat.
const MOST_EMPTY: usize = 64;
/// A message up to this size that has come whole needs no allocation.
const SMALL: usize = 256;
/// The bytes that a sender removes from the end of a compressed message (RFC 7692 §7.2.1).
const DEFLATE_TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Follows the messages of one direction.
#[derive(Debug)]
pub(super) struct Tap {
    from: Sender,
    message: Message,
}

/// The message that the stream stands in.
#[derive(Debug)]
enum Message {
    /// None.
    Between,
    /// One that does not matter, or no longer.
    Passing,
    /// One that may matter, and whose end has not come.
    Gathering(Box<Gathering>),
}

#[derive(Debug)]
struct Gathering {
    opcode: Opcode,
    compressed: bool,
    /// Its bytes so far, unmasked.
    payload: Vec<u8>,
    /// The key of the frame that the stream stands in, how many of its bytes have come, and how many have not.
    mask: Option<[u8; 4]>,
    position: usize,
    left: u64,
    /// Its fragments without content.
    empty: usize,
    /// Its frames as they came, where it is held back.
    held: Vec<u8>,
}

/// The treatment of a piece of a data frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It passes.
    Pass,
    /// It is held back.
    Hold,
    /// The held bytes pass, and then this.
    Release,
    /// With it the message is known; what was held is still held.
    Message(MessageKind),
}

impl Tap {
    pub(super) fn new(from: Sender) -> Self {
        Self { from, message: Message::Between }
    }

    /// Returns whether a part of a message is held back.
    pub(super) fn holds(&self) -> bool {
        matches!(&self.message, Message::Gathering(gathering) if !gathering.held.is_empty())
    }

    /// The memory that a message takes whose end has not come.
    pub(super) fn kept(&self) -> usize {
        match &self.message {
            Message::Gathering(gathering) => gathering.payload.capacity() + gathering.held.capacity(),
            Message::Between | Message::Passing => 0,
        }
    }

    /// Returns the held bytes, which are held no longer.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        match &mut self.message {
            Message::Gathering(gathering) => std::mem::take(&mut gathering.held),
            Message::Between | Message::Passing => Vec::new(),
        }
    }

    /// Takes a piece of a data frame in, header and all where it `starts_frame`.
    pub(super) fn piece(
        &mut self,
        piece: &[u8],
        starts_frame: bool,
        ends_message: bool,
        listener: &mut MessageMatcher,
    ) -> Sight {
        let header = if starts_frame { header(piece, self.from) } else { None };
        let sight = match &self.message {
            Message::Passing => Sight::Pass,
            Message::Between => self.begin(piece, header, ends_message, listener),
            Message::Gathering(_) => self.go_on(piece, header, ends_message, listener),
        };
        if ends_message && !matches!(sight, Sight::Release | Sight::Message(_)) {
            self.message = Message::Between;
        }
        sight
    }

    /// The message is over, and what was held of it has passed or is thrown away.
    pub(super) fn end(&mut self) {
        self.message = Message::Between;
    }

    /// Marks the held bytes as passed; the rest of the message, if there is one, passes, too.
    pub(super) fn pass(&mut self, ends_message: bool) {
        self.message = if ends_message { Message::Between } else { Message::Passing };
    }

    fn begin(
        &mut self,
        piece: &[u8],
        header: Option<FrameHeader>,
        whole: bool,
        listener: &mut MessageMatcher,
    ) -> Sight {
        let Some(header) = header else { return Sight::Pass };
        let compressed = piece[0] & RSV_DEFLATE != 0;
        let payload = &piece[header.len..];
        // The first byte tells most of those apart that are short enough.
        let first = payload.first().map(|byte| byte ^ header.mask.map_or(0, |key| key[0]));
        let start = (!compressed).then_some(first.as_slice());
        if !listener.may_matter(self.from, header.opcode, start, header.payload) {
            self.message = Message::Passing;
            return Sight::Pass;
        }
        if whole && payload.len() <= SMALL {
            let mut unmasked = [0; SMALL];
            let unmasked = &mut unmasked[..payload.len()];
            unmasked.copy_from_slice(payload);
            if let Some(key) = header.mask {
                unmask(unmasked, key);
            }
            return self.judge(header.opcode, compressed, unmasked, true, listener);
        }
        let gathering = Gathering {
            opcode: header.opcode,
            compressed,
            payload: Vec::new(),
            mask: None,
            position: 0,
            left: 0,
            empty: 0,
            held: Vec::new(),
        };
        self.message = Message::Gathering(Box::new(gathering));
        self.go_on(piece, Some(header), whole, listener)
    }

    fn go_on(&mut self, piece: &[u8], header: Option<FrameHeader>, ends: bool, listener: &mut MessageMatcher) -> Sight {
        let Message::Gathering(gathering) = &mut self.message else { return Sight::Pass };
        let limit = listener.limit(self.from);
        gathering.add(piece, header, limit);
        let Gathering { opcode, compressed, ref payload, left, empty, .. } = **gathering;
        let over = payload.len() > limit;
        if ends || over {
            let payload = std::mem::take(&mut gathering.payload);
            return self.judge(opcode, compressed, &payload[..payload.len().min(limit)], !over, listener);
        }
        // The frame has its end still to come; behind it a last one without content may end the message.
        let at_least = left.saturating_add(payload.len() as u64);
        let start = (!compressed).then_some(payload.as_slice());
        if !listener.may_matter(self.from, opcode, start, at_least) || empty > MOST_EMPTY {
            return Sight::Release;
        }
        if listener.holds(self.from) {
            gathering.held.extend_from_slice(piece);
            return Sight::Hold;
        }
        Sight::Pass
    }

    /// Returns the meaning of a message, `whole` or as far as it was kept.
    fn judge(
        &mut self,
        opcode: Opcode,
        compressed: bool,
        payload: &[u8],
        whole: bool,
        listener: &mut MessageMatcher,
    ) -> Sight {
        Sight::Message(if compressed {
            match inflate(payload, whole, listener.limit(self.from)) {
                Some((inflated, all)) => listener.classify(self.from, opcode, &inflated, whole && all),
                None => listener.unreadable(self.from),
            }
        } else {
            listener.classify(self.from, opcode, payload, whole)
        })
    }
}

impl Gathering {
    /// Takes in as much of a piece as may matter: one byte over `limit` shows that the message is too long.
    fn add(&mut self, piece: &[u8], header: Option<FrameHeader>, limit: usize) {
        let mut bytes = piece;
        if let Some(header) = header {
            bytes = &piece[header.len..];
            self.mask = header.mask;
            self.position = 0;
            self.left = header.payload;
            self.empty += usize::from(header.payload == 0);
        }
        let from = self.payload.len();
        self.payload.extend_from_slice(&bytes[..bytes.len().min((limit + 1).saturating_sub(from))]);
        if let Some(mut key) = self.mask {
            key.rotate_left(self.position % 4);
            unmask(&mut self.payload[from..], key);
        }
        self.position += bytes.len();
        self.left = self.left.saturating_sub(bytes.len() as u64);
    }
}

/// The header at the front of a piece that the scanner has let pass.
fn header(piece: &[u8], from: Sender) -> Option<FrameHeader> {
    let any = Limits { rsv: RSV_ALL, ..Limits::default() };
    FrameHeader::parse(piece, from, &any).ok().flatten()
}

/// The first `limit` bytes of a compressed message, or of its beginning if it is not `whole`, and whether those are all;
/// `None` where it refers to messages before it.
fn inflate(payload: &[u8], whole: bool, limit: usize) -> Option<(Vec<u8>, bool)> {
    let mut inflated = Vec::with_capacity(limit + 1);
    let mut stream = Decompress::new(false);
    for part in [payload, if whole { &DEFLATE_TAIL } else { &[] }] {
        match stream.decompress_vec(part, &mut inflated, FlushDecompress::Sync) {
            Ok(Status::Ok | Status::BufError | Status::StreamEnd) => {}
            Err(_) => return None,
        }
    }
    let all = inflated.len() <= limit;
    inflated.truncate(limit);
    Some((inflated, all))
}

#[cfg(test)]
mod tests;
