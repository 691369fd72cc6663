//! The layout of HTTP/2 frames (RFC 9113 §4.1, §6).

use h2::Reason;

/// Length of a frame's header.
pub(super) const HEADER: usize = 9;
/// Length of what every connection begins with (RFC 9113 §3.4).
pub(super) const PREFACE: usize = 24;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITIZED: u8 = 0x20;

/// Length of the payload of `RST_STREAM` and `WINDOW_UPDATE`.
pub(super) const WORD: usize = 4;
/// Length of the payload of PRIORITY, and of the same fields in HEADERS.
pub(super) const PRIORITY_FIELDS: usize = 5;
/// Length of the payload of PING.
const OPAQUE: usize = 8;
/// Length of the payload of GOAWAY at least.
const GOAWAY_LEAST: usize = 8;
/// `SETTINGS_INITIAL_WINDOW_SIZE`, and the length of one setting (RFC 9113 §6.5.1).
pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub(super) const SETTING: usize = 6;
/// The longest payload, `SETTINGS_MAX_FRAME_SIZE`, which the proxy leaves as it is.
const LONGEST: usize = 16 * 1024;
/// The largest window (RFC 9113 §6.9.1).
pub(super) const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct H2FrameHeader {
    pub(super) payload: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl H2FrameHeader {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let payload = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        Self { payload, kind: bytes[3], flags: bytes[4], stream: word(&bytes[5..]) & 0x7fff_ffff }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns the error of a connection whose client has sent this frame, as far as its header shows one. `highest` is
    /// the highest stream that the client has opened.
    ///
    /// The library lets some of these pass and answers others with `PROTOCOL_ERROR` throughout.
    pub(super) fn fault(self, highest: u32) -> Option<Reason> {
        // Streams of the server's do not exist: it pushes nothing.
        let is_idle = self.stream > highest || self.stream.is_multiple_of(2);
        match self.kind {
            _ if self.payload > LONGEST => Some(Reason::FRAME_SIZE_ERROR),
            DATA if self.stream == 0 || is_idle => Some(Reason::PROTOCOL_ERROR),
            SETTINGS if self.has(ACK) && self.payload > 0 => Some(Reason::FRAME_SIZE_ERROR),
            SETTINGS if !self.payload.is_multiple_of(SETTING) => Some(Reason::FRAME_SIZE_ERROR),
            PING if self.payload != OPAQUE => Some(Reason::FRAME_SIZE_ERROR),
            RST_STREAM | WINDOW_UPDATE if self.payload != WORD => Some(Reason::FRAME_SIZE_ERROR),
            RST_STREAM if is_idle => Some(Reason::PROTOCOL_ERROR),
            PRIORITY if self.payload != PRIORITY_FIELDS => Some(Reason::FRAME_SIZE_ERROR),
            GOAWAY if self.payload < GOAWAY_LEAST => Some(Reason::FRAME_SIZE_ERROR),
            GOAWAY if self.stream != 0 => Some(Reason::PROTOCOL_ERROR),
            PUSH_PROMISE => Some(Reason::PROTOCOL_ERROR),
            _ => None,
        }
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
    short_frame(RST_STREAM, stream, Reason::PROTOCOL_ERROR.into())
}

/// The number that `bytes` begin with.
pub(super) fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
