//! A walk over the frames that a client sends (RFC 9113 §4.1), before the HTTP/2 library sees them: it counts what the
//! library does not, and takes out what the library would take amiss.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::streams::Streams;

/// Length of a frame's header.
pub(super) const HEADER: usize = 9;
/// Length of what every connection begins with (RFC 9113 §3.4).
const PREFACE: usize = 24;

pub(super) const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// Length of the payload of `RST_STREAM` and `WINDOW_UPDATE`.
const WORD: usize = 4;
/// `PROTOCOL_ERROR` (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;
/// `SETTINGS_INITIAL_WINDOW_SIZE`, and the length of one setting (RFC 9113 §6.5.1).
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const SETTING: usize = 6;

/// DATA frames with less in them cost the library more than they carry.
const SMALL: usize = 256;

/// How long a reset counts.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Empty DATA frames that are taken out at a stretch, and how soon one more may be.
const EMPTY_MOST: u32 = 1000;
const EMPTY_EVERY: Duration = Duration::from_millis(10);

/// A header block that arrives at this rate, in bytes a second, may take longer than `limits.header_read`, up to
/// [`BLOCK_MOST`] times that. These are the figures of Apache's `RequestReadTimeout` (20 to 40 s, at least 500 bytes a
/// second): a modem reaches this rate, and one connection that sends as little as possible ends all the same.
const BLOCK_RATE: f64 = 500.0;
const BLOCK_MOST: u32 = 4;

/// Where the walk stands.
#[derive(Debug)]
pub(super) struct Frames {
    /// The beginning of a frame, kept back until it shows what the frame is: a header, and of some frames what follows.
    held: Vec<u8>,
    /// What is left of the payload in hand, the preface being the first.
    left: usize,
    /// Bytes left of a payload that is taken out.
    skipped: usize,
    /// Whether the payload in hand belongs to a header block, and whether the block ends with it.
    block: Block,
    /// The header block that is under way.
    open_block: Option<OpenBlock>,
    /// The DATA frame of which a part has come.
    data: Option<Part>,
    /// The setting of which a part has come, while the payload in hand is one of settings.
    setting: Option<Vec<u8>>,
    /// The highest number of a stream that the client has opened.
    highest: u32,
    /// Small DATA frames since somebody asked.
    small: usize,
    resets: VecDeque<Instant>,
    /// Streams that are to be reset for what they did.
    broken: Vec<u32>,
    empty: Allowance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Part,
    Last,
}

#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    since: Instant,
    bytes: usize,
}

/// The beginning of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) stream: u32,
    /// Bytes of its payload that have come, and when the last of them did.
    pub(super) len: usize,
    pub(super) at: Instant,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    pub(super) payload: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// The treatment of a frame.
enum FrameFate {
    /// More of it is needed.
    Unknown,
    /// Its header passes, and then its payload.
    Pass,
    /// This many bytes are taken out.
    Drop(usize),
    /// It has been written over; so many bytes of it pass.
    Replaced(usize),
}

impl Header {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let payload = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        Self { payload, kind: bytes[3], flags: bytes[4], stream: word(&bytes[5..]) & 0x7fff_ffff }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame that carries one number.
pub(super) fn short_frame(kind: u8, stream: u32, number: u32) -> [u8; HEADER + WORD] {
    let mut frame = [0; HEADER + WORD];
    (frame[2], frame[3]) = (4, kind);
    frame[5..HEADER].copy_from_slice(&stream.to_be_bytes());
    frame[HEADER..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A `WINDOW_UPDATE` (RFC 9113 §6.9).
pub(super) fn window_update(stream: u32, increment: u32) -> [u8; HEADER + WORD] {
    short_frame(WINDOW_UPDATE, stream, increment)
}

/// A `RST_STREAM` for what a stream did (RFC 9113 §5.4.2).
pub(super) fn protocol_error(stream: u32) -> [u8; HEADER + WORD] {
    short_frame(RST_STREAM, stream, PROTOCOL_ERROR)
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            held: Vec::new(),
            left: PREFACE,
            skipped: 0,
            block: Block::None,
            open_block: None,
            data: None,
            setting: None,
            highest: 0,
            small: 0,
            resets: VecDeque::new(),
            broken: Vec::new(),
            empty: Allowance { left: EMPTY_MOST, refilled: now },
        }
    }

    /// What was kept back of the last bytes; it goes in front of the next.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Walks over `bytes`, which begin with [`Self::held`], and moves together what is to be passed on: so many bytes
    /// at the front.
    ///
    /// A DATA frame without data that ends nothing says nothing (RFC 9113 §6.1), but the library ends the connection
    /// after the hundredth in its life, and with it every session there is. So they are taken out here, as many as an
    /// honest client may come to; a flood is left to the library. A `WINDOW_UPDATE` of zero for a stream is an error of
    /// that stream (§6.9), but the library ends the connection for it: it gets a reset in its place.
    pub(super) fn sift(&mut self, bytes: &mut [u8], now: Instant, streams: &mut Streams) -> usize {
        self.held.clear();
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let rest = bytes.len() - from;
            let len = if self.skipped > 0 {
                let len = self.skipped.min(rest);
                self.skipped -= len;
                from += len;
                continue;
            } else if self.left > 0 {
                let len = self.left.min(rest);
                self.left -= len;
                self.pass(&bytes[from..from + len], now, streams);
                len
            } else {
                match self.judge(&mut bytes[from..], now, streams) {
                    FrameFate::Unknown => {
                        self.held.extend_from_slice(&bytes[from..]);
                        break;
                    }
                    FrameFate::Drop(len) => {
                        from += len;
                        continue;
                    }
                    FrameFate::Pass => HEADER,
                    FrameFate::Replaced(len) => len,
                }
            };
            if from > to {
                bytes.copy_within(from..from + len, to);
            }
            from += len;
            to += len;
            if self.left == 0 {
                (self.data, self.setting) = (None, None);
                if self.block == Block::Last {
                    (self.block, self.open_block) = (Block::None, None);
                }
            }
        }
        to
    }

    /// Small DATA frames since [`Self::forget_small`].
    pub(super) fn small(&self) -> usize {
        self.small
    }

    pub(super) fn forget_small(&mut self) {
        self.small = 0;
    }

    /// Streams that the client has reset within the last 10 s, or has forced a reset of.
    pub(super) fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Streams that are to be reset for what they did; the library takes them for reset by the client.
    pub(super) fn take_broken(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.broken)
    }

    /// The DATA frame of which a part has come.
    pub(super) fn data(&self) -> Option<Part> {
        self.data
    }

    /// Returns the instant by which the header block under way must end; every byte of it that has come puts that off.
    pub(super) fn block_until(&self, header_read: Duration) -> Option<Instant> {
        let OpenBlock { since, bytes } = self.open_block?;
        let earned = Duration::from_secs_f64(u32::try_from(bytes).map_or(f64::MAX, f64::from).min(1e6) / BLOCK_RATE);
        Some(since + (header_read + earned).min(header_read * BLOCK_MOST))
    }

    /// The process stood still for `late`, which counts for no header block.
    pub(super) fn excuse(&mut self, late: Duration) {
        if let Some(block) = &mut self.open_block {
            block.since += late;
        }
    }

    /// Decides on the frame at the front of `bytes`.
    fn judge(&mut self, bytes: &mut [u8], now: Instant, streams: &mut Streams) -> FrameFate {
        if bytes.len() < HEADER {
            return FrameFate::Unknown;
        }
        let header = Header::of(bytes);
        // Within a header block no other frame may come (RFC 9113 §4.3), and the library shall say so.
        if self.block == Block::None {
            match header.kind {
                DATA if !header.has(END_STREAM) => {
                    if header.payload == 0 && !header.has(PADDED) && self.empty.take(now) {
                        return FrameFate::Drop(HEADER);
                    }
                    if header.payload > 0 && header.has(PADDED) && streams.is_live(header.stream) {
                        let Some(padding) = bytes.get(HEADER) else { return FrameFate::Unknown };
                        if usize::from(*padding) == header.payload - 1 && self.empty.take(now) {
                            self.skipped = header.payload - 1;
                            // At most 256.
                            streams.credit(header.stream, u32::from(*padding) + 1);
                            return FrameFate::Drop(HEADER + 1);
                        }
                    }
                }
                WINDOW_UPDATE if header.payload == WORD => {
                    let Some(increment) = bytes.get(HEADER..HEADER + WORD) else { return FrameFate::Unknown };
                    let increment = word(increment) & 0x7fff_ffff;
                    if increment == 0 && header.stream > 0 && header.stream <= self.highest {
                        bytes[..HEADER + WORD].copy_from_slice(&protocol_error(header.stream));
                        self.broken.push(header.stream);
                        self.reset(now);
                        return FrameFate::Replaced(HEADER + WORD);
                    }
                    streams.widen(header.stream, increment);
                }
                _ => {}
            }
        }
        self.begin(header, now);
        FrameFate::Pass
    }

    fn begin(&mut self, header: Header, now: Instant) {
        self.left = header.payload;
        match header.kind {
            DATA => {
                self.small += usize::from(header.payload < SMALL);
                self.data = Some(Part { stream: header.stream, len: 0, at: now });
            }
            RST_STREAM => self.reset(now),
            SETTINGS if !header.has(ACK) => self.setting = Some(Vec::new()),
            HEADERS | CONTINUATION => {
                self.highest = self.highest.max(header.stream);
                self.block = if header.has(END_HEADERS) { Block::Last } else { Block::Part };
                self.open_block.get_or_insert(OpenBlock { since: now, bytes: 0 });
            }
            _ => {}
        }
    }

    /// `bytes` of the payload in hand pass.
    fn pass(&mut self, bytes: &[u8], now: Instant, streams: &mut Streams) {
        if let Some(data) = &mut self.data {
            (data.len, data.at) = (data.len + bytes.len(), now);
        } else if let Some(block) = &mut self.open_block {
            block.bytes += bytes.len();
        } else if let Some(setting) = &mut self.setting {
            for byte in bytes {
                setting.push(*byte);
                if setting.len() == SETTING {
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        streams.set_initial_window(word(&setting[2..]));
                    }
                    setting.clear();
                }
            }
        }
    }

    fn reset(&mut self, now: Instant) {
        while self.resets.front().is_some_and(|reset| now.duration_since(*reset) > RESET_WINDOW) {
            self.resets.pop_front();
        }
        self.resets.push_back(now);
    }
}

/// So many at once, and then one for each span of time.
#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.refilled).as_millis() / EMPTY_EVERY.as_millis();
        if let Ok(earned) = u32::try_from(earned)
            && earned > 0
        {
            self.left = EMPTY_MOST.min(self.left.saturating_add(earned));
            self.refilled = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
