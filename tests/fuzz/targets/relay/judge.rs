//! The verdict on what each side received: the frames of the other side, in order and byte for byte, and between them
//! only control frames that the proxy may send.

use super::frames::{Frame, split};
use super::peer::{CLOSE, PING, PONG};

/// The frames that one side sent, up to its Close or the first frame that breaks RFC 6455.
pub struct Said<'a> {
    pub frames: Vec<Frame<'a>>,
    /// The bytes after them.
    rest: &'a [u8],
    /// True if it broke a rule.
    pub broken: bool,
}

/// The part of one side's frames that has passed.
pub struct Passed {
    /// True if everything that it sent has passed.
    pub all: bool,
    /// The code of the Close that the other side received.
    pub close: Option<u16>,
}

impl<'a> Said<'a> {
    pub fn of(bytes: &'a [u8], masked: bool) -> Self {
        let (frames, mut rest) = split(bytes);
        let (mut open, mut valid) = (false, Vec::new());
        for frame in frames {
            if !is_valid(&frame, masked, open) {
                return Self { frames: valid, rest: &[], broken: true };
            }
            if !frame.is_control() {
                open = !frame.fin;
            }
            valid.push(frame);
            if frame.opcode == CLOSE {
                return Self { frames: valid, rest: &[], broken: false };
            }
        }
        // No part of a control frame passes before its end.
        if rest.first().is_some_and(|first| first & 8 != 0) {
            rest = &[];
        }
        Self { frames: valid, rest, broken: false }
    }

    pub fn payloads(&self, opcode: u8) -> Vec<Vec<u8>> {
        self.frames.iter().filter(|frame| frame.opcode == opcode).map(Frame::payload).collect()
    }

    pub fn close(&self) -> Option<u16> {
        self.frames.last().filter(|frame| frame.opcode == CLOSE).map(Frame::code)
    }
}

fn is_valid(frame: &Frame<'_>, masked: bool, open: bool) -> bool {
    let payload = frame.payload();
    let order = match frame.opcode {
        0 => open,
        1 | 2 => !open,
        CLOSE => {
            let allowed = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let sound = payload.len() > 1 && allowed(frame.code()) && std::str::from_utf8(&payload[2..]).is_ok();
            payload.is_empty() || sound
        }
        PING | PONG => true,
        _ => false,
    };
    order
        && frame.mask.is_some() == masked
        && frame.rsv == 0
        && (!frame.is_control() || frame.fin && payload.len() < 126)
}

/// Compares what the other side received (`got`) with `said`. `may_lack` selects control frames of `said` that the
/// proxy may keep back, `may_add` those of its own that it may insert.
pub fn follow(
    said: &Said<'_>,
    got: &[u8],
    masked: bool,
    may_lack: impl Fn(&Frame<'_>) -> bool,
    may_add: impl Fn(&Frame<'_>) -> bool,
) -> Passed {
    let (frames, tail) = split(got);
    let (mut at, mut close) = (0, None);
    let lacks = |from: usize, to: usize| {
        for frame in &said.frames[from..to] {
            assert!(frame.is_control() && may_lack(frame), "lacks {frame:02x?}");
        }
    };
    for frame in &frames {
        assert!(close.is_none(), "something follows a Close: {frame:02x?}");
        let behind = &said.frames[at..];
        let candidates = if frame.is_control() {
            behind.iter().take_while(|other| other.is_control()).count()
        } else {
            behind.iter().position(|other| !other.is_control()).map_or(0, |data| data + 1)
        };
        match behind[..candidates].iter().position(|other| other.raw == frame.raw) {
            Some(found) => {
                lacks(at, at + found);
                at += found + 1;
            }
            None => {
                assert!(
                    frame.is_control(),
                    "a data frame that was not sent, or not then: {:02x?}",
                    beginning(frame.raw)
                );
                assert_eq!(frame.mask.is_some(), masked, "{frame:02x?}");
                assert!(frame.fin && frame.rsv == 0 && frame.payload().len() < 126, "{frame:02x?}");
                assert!(may_add(frame), "a control frame of its own that may not be there: {frame:02x?}");
            }
        }
        if frame.opcode == CLOSE {
            close = Some(frame.code());
            let code = frame.payload().len();
            assert!(code != 1 && !matches!(frame.code(), 1004 | 1006 | 1015), "{frame:02x?}");
            assert!(code == 0 || frame.code() != 1005, "{frame:02x?}");
        }
    }
    assert!(close.is_none() || tail.is_empty(), "something follows a Close: {:02x?}", beginning(tail));
    if !tail.is_empty() && tail[0] & 8 == 0 {
        let data = said.frames[at..].iter().find(|frame| !frame.is_control()).map_or(said.rest, |frame| frame.raw);
        assert!(data.starts_with(tail), "the beginning of a frame that was not sent: {:02x?}", beginning(tail));
    }
    let left = &said.frames[at..];
    let all = tail.is_empty() && left.iter().all(|frame| frame.is_control() && may_lack(frame));
    Passed { all, close }
}

fn beginning(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(24)]
}
