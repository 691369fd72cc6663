//! A walk over the frames that a client sends (RFC 9113 §4.1), before the HTTP/2 library sees them: it counts what the
//! library does not, and takes out what the library would take amiss.

use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2FrameHeader, HEADER, HEADERS, INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW, PADDED, PREFACE, PRIORITIZED, PRIORITY_FIELDS, RST_STREAM, SETTING, SETTINGS, WINDOW_UPDATE, WORD,
    protocol_error, word,
};
use super::hpack::{BlockContents, Blocks};
use super::huffman::Undecodable;
use super::streams::Streams;
use super::tolerance::Tolerance;

/// DATA frames with less in them cost the library more than they carry.
const SMALL: usize = 256;

/// Empty DATA frames that are taken out at a stretch, and how soon one more may be.
const EMPTY_MOST: u32 = 1000;
const EMPTY_EVERY: Duration = Duration::from_millis(10);

/// A header block that arrives at this rate, in bytes a second, may take longer than `limits.header_read`, up to
/// [`BLOCK_MOST`] times that. These are the figures of Apache's `RequestReadTimeout` (20 to 40 s, at least 500 bytes a
/// second): a modem reaches this rate, and one connection that sends as little as possible ends all the same.
const BLOCK_RATE: f64 = 500.0;
const BLOCK_MOST: u32 = 4;

/// The state of the walk over a client's frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// The beginning of a frame, kept back until it shows what the frame is: a header, and of some frames what follows.
    held: Vec<u8>,
    /// Bytes left of the payload in hand, the preface being the first.
    left: usize,
    /// Bytes left of a payload that is taken out.
    skipped: usize,
    /// Set once a frame has come; the first must be SETTINGS (RFC 9113 §3.4).
    has_begun: bool,
    /// The fault for which the connection is to end: nothing that comes afterwards is looked at.
    fault: Option<ConnectionError>,
    /// The place of the payload in hand in a header block, if it belongs to one.
    block: Block,
    /// The header block that is under way, and its bytes so far if it does not come in one piece.
    open_block: Option<OpenBlock>,
    fields: Vec<u8>,
    blocks: Blocks,
    /// The DATA frame of which a part has come.
    data: Option<DataPrefix>,
    /// The setting of which a part has come, while the payload in hand is one of settings.
    setting: Option<Vec<u8>>,
    /// The highest number of a stream that the client has opened.
    highest: u32,
    /// Small DATA frames since the count was last reset.
    small: usize,
    /// Streams that are to be reset for what they did.
    broken: Vec<u32>,
    /// Streams with pseudo-header fields in their trailers.
    malformed: Vec<u32>,
    /// Streams of which data has come; some may stand here more than once.
    touched: Vec<u32>,
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
    /// The HEADERS frame that it began with.
    first: H2FrameHeader,
    is_trailers: bool,
}

/// The reason for which a connection is ended: one word for logs and metrics, and the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionError {
    pub(super) word: &'static str,
    pub(super) code: Reason,
}

/// The beginning of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataPrefix {
    pub(super) stream: u32,
    /// Bytes of its payload that have come, and when the last of them did.
    pub(super) len: usize,
    pub(super) at: Instant,
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
    /// It ends the connection.
    Fatal(ConnectionError),
}

impl ConnectionError {
    pub(super) fn of(code: Reason) -> Self {
        let word = match code {
            Reason::ENHANCE_YOUR_CALM => "excessive",
            Reason::FLOW_CONTROL_ERROR => "flow_control",
            Reason::FRAME_SIZE_ERROR => "frame_size",
            Reason::COMPRESSION_ERROR => "compression",
            _ => "protocol_error",
        };
        Self { word, code }
    }
}

/// Returns whether one more frame with this header may come at `now`; to be asked once for each.
fn is_borne(header: H2FrameHeader, now: Instant, tolerance: &mut Tolerance) -> bool {
    match header.kind {
        DATA | HEADERS => true,
        SETTINGS if !header.has(ACK) => tolerance.settings(now),
        RST_STREAM => tolerance.reset(now),
        _ => tolerance.frame(now),
    }
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            held: Vec::new(),
            left: PREFACE,
            skipped: 0,
            has_begun: false,
            fault: None,
            block: Block::None,
            open_block: None,
            fields: Vec::new(),
            blocks: Blocks::default(),
            data: None,
            setting: None,
            highest: 0,
            small: 0,
            broken: Vec::new(),
            malformed: Vec::new(),
            touched: Vec::new(),
            empty: Allowance { left: EMPTY_MOST, refilled: now },
        }
    }

    /// Returns the bytes that were kept back; they go in front of the next.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Walks over `bytes`, which begin with [`Self::held`], and moves together what is to be passed on: so many bytes
    /// at the front.
    ///
    /// A DATA frame without data that ends nothing has no meaning (RFC 9113 §6.1), but the library ends the connection
    /// after the hundredth in its life, and with it every session there is. So they are taken out here, as many as an
    /// honest client may come to; a flood is left to the library. A `WINDOW_UPDATE` of zero for a stream is an error of
    /// that stream (§6.9), but the library ends the connection for it: it gets a reset in its place.
    ///
    /// A frame that the library lets pass although it ends a connection is a [`ConnectionError`], and so is one that it answers with
    /// another code than the RFC has for it: from there on nothing is passed on.
    pub(super) fn sift(&mut self, bytes: &mut [u8], now: Instant, streams: &mut Streams) -> usize {
        self.held.clear();
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() && self.fault.is_none() {
            let rest = bytes.len() - from;
            let len = if self.skipped > 0 {
                let len = self.skipped.min(rest);
                self.skipped -= len;
                from += len;
                continue;
            } else if self.left > 0 {
                let len = self.left.min(rest);
                self.left -= len;
                self.pass(&mut bytes[from..from + len], now, streams);
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
                    FrameFate::Fatal(fault) => {
                        self.fault = Some(fault);
                        break;
                    }
                    FrameFate::Pass => HEADER,
                    FrameFate::Replaced(len) => len,
                }
            };
            if self.left == 0 {
                self.end_frame(streams);
            }
            if self.fault.is_some() {
                // Without its end the library does not look at the frame.
                break;
            }
            if from > to {
                bytes.copy_within(from..from + len, to);
            }
            from += len;
            to += len;
        }
        to
    }

    /// Returns why the connection is to end.
    pub(super) fn fault(&self) -> Option<ConnectionError> {
        self.fault
    }

    /// Nothing more is looked at: the connection ends with `fault`.
    pub(super) fn stop(&mut self, fault: ConnectionError) {
        self.fault.get_or_insert(fault);
    }

    /// Small DATA frames since [`Self::forget_small`].
    pub(super) fn small(&self) -> usize {
        self.small
    }

    pub(super) fn forget_small(&mut self) {
        self.small = 0;
    }

    /// Streams that are to be reset for what they did; the library takes them for reset by the client.
    pub(super) fn take_broken(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.broken)
    }

    /// Returns the streams whose trailers had pseudo-header fields (RFC 9113 §8.1), which the library has left out.
    pub(super) fn take_malformed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.malformed)
    }

    /// Returns the streams of which data has come since this was last asked, each once.
    pub(super) fn take_touched(&mut self) -> Vec<u32> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// The DATA frame of which a part has come.
    pub(super) fn data(&self) -> Option<DataPrefix> {
        self.data
    }

    /// Returns the instant by which the header block under way must end; every byte of it that has come puts that off.
    pub(super) fn block_until(&self, header_read: Duration) -> Option<Instant> {
        let OpenBlock { since, bytes, .. } = self.open_block?;
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
        let header = H2FrameHeader::of(bytes);
        // Within a header block no other frame may come (RFC 9113 §4.3), and the library shall say so.
        if self.block == Block::None {
            if let Some(fault) = self.find_fault(header) {
                return FrameFate::Fatal(fault);
            }
            if header.kind == WINDOW_UPDATE && bytes.len() < HEADER + WORD {
                return FrameFate::Unknown;
            }
            if !is_borne(header, now, &mut streams.tolerance) {
                return FrameFate::Fatal(ConnectionError { word: "flood", code: Reason::ENHANCE_YOUR_CALM });
            }
            match header.kind {
                // The whole block is looked at before the library sees any of it.
                HEADERS if header.has(END_HEADERS) && bytes.len() < HEADER + header.payload => {
                    let is_trailers = header.stream <= self.highest;
                    let open = OpenBlock { since: now, bytes: 0, first: header, is_trailers };
                    self.open_block.get_or_insert(open).bytes = bytes.len() - HEADER;
                    return FrameFate::Unknown;
                }
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
                WINDOW_UPDATE => {
                    let increment = word(&bytes[HEADER..]) & 0x7fff_ffff;
                    if increment == 0 && header.stream > 0 && header.stream <= self.highest {
                        bytes[..HEADER + WORD].copy_from_slice(&protocol_error(header.stream));
                        self.broken.push(header.stream);
                        streams.tolerance.lose(now);
                        return FrameFate::Replaced(HEADER + WORD);
                    }
                    streams.widen(header.stream, increment);
                }
                // Types that are not known are ignored (§5.5): the library need not see them.
                kind if kind > CONTINUATION => {
                    self.skipped = header.payload;
                    return FrameFate::Drop(HEADER);
                }
                _ => {}
            }
        }
        self.begin(header, now, streams);
        FrameFate::Pass
    }

    /// Returns why the connection is to end with a frame that has this header.
    fn find_fault(&mut self, header: H2FrameHeader) -> Option<ConnectionError> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first && (header.kind != SETTINGS || header.has(ACK)) {
            return Some(ConnectionError::of(Reason::PROTOCOL_ERROR));
        }
        header.fault(self.highest).map(ConnectionError::of)
    }

    fn begin(&mut self, header: H2FrameHeader, now: Instant, streams: &mut Streams) {
        self.left = header.payload;
        match header.kind {
            DATA => {
                self.small += usize::from(header.payload < SMALL);
                self.data = Some(DataPrefix { stream: header.stream, len: 0, at: now });
                if header.payload > 0 {
                    streams.tolerance.data(header.payload);
                    if self.touched.last() != Some(&header.stream) {
                        self.touched.push(header.stream);
                    }
                }
            }
            SETTINGS if !header.has(ACK) => self.setting = Some(Vec::new()),
            HEADERS | CONTINUATION => {
                let is_trailers = header.stream <= self.highest;
                if header.kind == HEADERS && !is_trailers {
                    self.highest = header.stream;
                    streams.tolerance.request();
                }
                self.block = if header.has(END_HEADERS) { Block::Last } else { Block::Part };
                self.open_block.get_or_insert(OpenBlock { since: now, bytes: 0, first: header, is_trailers });
            }
            _ => {}
        }
    }

    /// `bytes` of the payload in hand pass.
    fn pass(&mut self, bytes: &mut [u8], now: Instant, streams: &mut Streams) {
        if let Some(data) = &mut self.data {
            (data.len, data.at) = (data.len + bytes.len(), now);
        } else if let Some(block) = &mut self.open_block {
            block.bytes += bytes.len();
            if self.fields.is_empty() && self.block == Block::Last && bytes.len() == block.first.payload {
                let block = *block;
                self.read_block(block, bytes, streams);
            } else {
                self.fields.extend_from_slice(bytes);
            }
        } else if let Some(setting) = &mut self.setting {
            for byte in &*bytes {
                setting.push(*byte);
                if setting.len() == SETTING {
                    let value = word(&setting[2..]);
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        if value > LARGEST_WINDOW {
                            self.fault = Some(ConnectionError::of(Reason::FLOW_CONTROL_ERROR));
                            return;
                        }
                        streams.set_initial_window(value);
                    }
                    setting.clear();
                }
            }
        }
    }

    /// The frame in hand has come in whole.
    fn end_frame(&mut self, streams: &mut Streams) {
        (self.data, self.setting) = (None, None);
        if self.block == Block::Last {
            self.block = Block::None;
            if let Some(block) = self.open_block.take()
                && !self.fields.is_empty()
            {
                let mut fields = std::mem::take(&mut self.fields);
                self.read_block(block, &mut fields, streams);
            }
        }
    }

    /// Looks at a header block that has come in whole: the payload of its HEADERS frame, and those that continue it.
    ///
    /// A path that the library refuses gets stand-ins if the block is one frame, which has not passed yet. The library
    /// refuses it in a block of several frames, which is longer than `limits.header_bytes` by default.
    fn read_block(&mut self, block: OpenBlock, bytes: &mut [u8], streams: &mut Streams) {
        let OpenBlock { first, is_trailers, .. } = block;
        let padded = first.has(PADDED);
        let head = usize::from(padded) + if first.has(PRIORITIZED) { PRIORITY_FIELDS } else { 0 };
        let padding = if padded { bytes.first().copied().map_or(0, usize::from) } else { 0 };
        // The library refuses a frame that is shorter than its own fields.
        let Some(end) = first.payload.checked_sub(padding).filter(|end| *end >= head) else { return };
        let read = if bytes.len() == first.payload {
            self.blocks.read(&mut bytes[head..end])
        } else {
            self.blocks.read(&mut [&bytes[head..end], &bytes[first.payload..]].concat())
        };
        match read {
            Ok(BlockContents { has_pseudo: true, .. }) if is_trailers => self.malformed.push(first.stream),
            Ok(BlockContents { path: Some(path), .. }) => streams.targets.note(first.stream, path),
            Ok(_) => {}
            Err(Undecodable) => self.fault = Some(ConnectionError::of(Reason::COMPRESSION_ERROR)),
        }
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
mod tests;
