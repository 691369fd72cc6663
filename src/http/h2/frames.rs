//! A walk over the frames that a client sends (RFC 9113 §4.1), before the HTTP/2 library sees them: it counts what the
//! library does not, and takes out what the library would take amiss.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Length of a frame's header.
const HEADER: usize = 9;
/// Length of what every connection begins with (RFC 9113 §3.4).
const PREFACE: usize = 24;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// DATA frames with less in them cost the library more than they carry.
const SMALL: usize = 256;

/// How long a reset counts.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Empty DATA frames that are taken out at a stretch, and how soon one more may be.
const EMPTY_MOST: u32 = 1000;
const EMPTY_EVERY: Duration = Duration::from_millis(10);

/// Where the walk stands.
#[derive(Debug)]
pub(super) struct Frames {
    /// The beginning of a frame's header, kept back until the whole of it shows what the frame is.
    held: Vec<u8>,
    /// What is left of the payload in hand, the preface being the first.
    left: usize,
    /// Whether that payload belongs to a header block, and whether the block ends with it.
    block: Block,
    /// Since when a header block is under way.
    block_since: Option<Instant>,
    /// Small DATA frames since somebody asked.
    small: usize,
    resets: VecDeque<Instant>,
    empty: Allowance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Part,
    Last,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
struct Header {
    payload: usize,
    kind: u8,
    flags: u8,
}

impl Header {
    fn of(bytes: &[u8]) -> Self {
        let payload = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        Self { payload, kind: bytes[3], flags: bytes[4] }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            held: Vec::new(),
            left: PREFACE,
            block: Block::None,
            block_since: None,
            small: 0,
            resets: VecDeque::new(),
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
    /// An empty DATA frame that ends nothing says nothing (RFC 9113 §6.1), but the library ends the connection after
    /// the hundredth in its life, and with it every session there is. So they are taken out here, as many as an honest
    /// client may come to; a flood is left to the library.
    pub(super) fn sift(&mut self, bytes: &mut [u8], now: Instant) -> usize {
        self.held.clear();
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let len = if self.left > 0 {
                let len = self.left.min(bytes.len() - from);
                self.left -= len;
                len
            } else if bytes.len() - from < HEADER {
                self.held.extend_from_slice(&bytes[from..]);
                break;
            } else {
                let header = Header::of(&bytes[from..]);
                if self.is_idle_talk(header) && self.empty.take(now) {
                    from += HEADER;
                    continue;
                }
                self.begin(header, now);
                HEADER
            };
            if from > to {
                bytes.copy_within(from..from + len, to);
            }
            from += len;
            to += len;
            if self.left == 0 && self.block == Block::Last {
                (self.block, self.block_since) = (Block::None, None);
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

    /// Streams that the client has reset within the last 10 s.
    pub(super) fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Since when a header block has been under way without an end.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block_since
    }

    fn begin(&mut self, header: Header, now: Instant) {
        self.left = header.payload;
        match header.kind {
            DATA if header.payload < SMALL => self.small += 1,
            RST_STREAM => {
                while self.resets.front().is_some_and(|reset| now.duration_since(*reset) > RESET_WINDOW) {
                    self.resets.pop_front();
                }
                self.resets.push_back(now);
            }
            HEADERS | CONTINUATION => {
                self.block = if header.has(END_HEADERS) { Block::Last } else { Block::Part };
                self.block_since.get_or_insert(now);
            }
            _ => {}
        }
    }

    /// Whether a frame may be left out without anybody missing it. Within a header block none may come (RFC 9113
    /// §4.3), and the library shall say so.
    fn is_idle_talk(&self, header: Header) -> bool {
        let is_empty = header.kind == DATA && header.payload == 0 && !header.has(END_STREAM) && !header.has(PADDED);
        is_empty && self.block == Block::None
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
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// What comes through of `stream`, cut into pieces of `size`.
    fn through(frames: &mut Frames, stream: &[u8], size: usize, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            let mut bytes = frames.held().to_vec();
            bytes.extend_from_slice(piece);
            let kept = frames.sift(&mut bytes, now);
            out.extend_from_slice(&bytes[..kept]);
        }
        out
    }

    #[test]
    fn empty_data_frames_are_taken_out_wherever_the_stream_is_cut() {
        let kept = [
            vec![b'P'; PREFACE],
            frame(HEADERS, END_HEADERS, b"block"),
            frame(DATA, 0, b"hello"),
            frame(DATA, 0, &[0; 300]),
            frame(DATA, END_STREAM, b""),
        ];
        let empty = frame(DATA, 0, b"");
        let sent: Vec<u8> = kept.iter().flat_map(|frame| [frame.clone(), empty.clone()].concat()).collect();
        let sent = [&sent[..PREFACE], &sent[PREFACE..]].concat();
        let now = Instant::now();
        for size in 1..=sent.len() {
            let mut frames = Frames::new(now);
            assert_eq!(through(&mut frames, &sent, size, now), kept.concat(), "pieces of {size}");
            assert!(frames.held().is_empty());
            assert_eq!(frames.small(), 2, "`hello` and the end");
        }
    }

    #[test]
    fn what_may_not_be_missed_stays() {
        let now = Instant::now();
        for stays in [
            [frame(HEADERS, 0, b"part"), frame(DATA, 0, b"")].concat(),
            frame(DATA, PADDED, b""),
            frame(DATA, END_STREAM, b""),
            frame(0x4, 0, b""),
        ] {
            let sent = [vec![b'P'; PREFACE], stays].concat();
            assert_eq!(through(&mut Frames::new(now), &sent, 7, now), sent);
        }
    }

    #[test]
    fn a_flood_of_empty_frames_is_not_hidden() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        let flood = [vec![b'P'; PREFACE], frame(DATA, 0, b"").repeat(2000)].concat();
        let out = through(&mut frames, &flood, 4096, now);
        assert_eq!(out.len(), PREFACE + 1000 * HEADER);
        let later = now + Duration::from_secs(1);
        assert_eq!(through(&mut frames, &frame(DATA, 0, b"").repeat(150), 4096, later).len(), 50 * HEADER);
    }

    #[test]
    fn resets_count_for_ten_seconds() {
        let begun = Instant::now();
        let mut frames = Frames::new(begun);
        through(&mut frames, &[b'P'; PREFACE], 24, begun);
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        for second in 0..20 {
            through(&mut frames, &reset, 64, begun + Duration::from_secs(second));
        }
        assert_eq!(frames.resets(), 11, "those of the seconds 9 to 19");
    }

    #[test]
    fn a_header_block_is_under_way_until_its_last_byte() {
        let begun = Instant::now();
        let mut frames = Frames::new(begun);
        through(&mut frames, &[b'P'; PREFACE], 24, begun);
        through(&mut frames, &frame(HEADERS, 0, b"part"), 64, begun);
        assert_eq!(frames.block_since(), Some(begun));
        let last = frame(CONTINUATION, END_HEADERS, b"rest");
        through(&mut frames, &last[..last.len() - 1], 64, begun + RESET_WINDOW);
        assert_eq!(frames.block_since(), Some(begun));
        through(&mut frames, &last[last.len() - 1..], 64, begun + RESET_WINDOW);
        assert_eq!(frames.block_since(), None);
        through(&mut frames, &frame(HEADERS, END_HEADERS, b""), 64, begun);
        assert_eq!(frames.block_since(), None, "an empty block is over at once");
    }
}
