//! A client or an app: its frames and its answers.

use std::sync::{Arc, Mutex, MutexGuard};

use super::frames::{Frame, encode, first};
use super::wire::Wire;

pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const CLOSE: u8 = 8;

/// One end of the session, on the far side of a leg.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each may be true with each other")]
pub struct Peer {
    pub wire: Arc<Mutex<Wire>>,
    pub masks: bool,
    /// All bytes that it has sent.
    pub said: Vec<u8>,
    /// Answers that wait for the end of the current frame.
    waiting: Vec<Vec<u8>>,
    /// The payload of the Close that follows that frame.
    owed_close: Option<Vec<u8>>,
    pub inside_frame: bool,
    /// True while a message of its own is between two fragments.
    pub open: bool,
    pub answers: bool,
    pub sent_close: bool,
    pub got_close: bool,
    /// True once it has ended its half, or its connection.
    pub ended: bool,
    /// True if it takes part in a closing handshake and ends when the other side has.
    pub polite: bool,
    seen: usize,
    count: u16,
    pub pings: u32,
}

impl Peer {
    pub fn new(wire: Arc<Mutex<Wire>>, masks: bool) -> Self {
        Self {
            wire,
            masks,
            said: Vec::new(),
            waiting: Vec::new(),
            owed_close: None,
            inside_frame: false,
            open: false,
            answers: true,
            sent_close: false,
            got_close: false,
            ended: false,
            polite: true,
            seen: 0,
            count: 0,
            pings: 0,
        }
    }

    pub fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("no test panics while it holds a wire")
    }

    fn key(&mut self) -> Option<[u8; 4]> {
        self.count = self.count.wrapping_add(1);
        let [high, low] = self.count.to_be_bytes();
        self.masks.then_some([high, low, !high, 0x5A])
    }

    /// Returns the next frame: a data frame that continues the frames before, or a control frame with a payload of its
    /// own.
    pub fn frame(&mut self, kind: u8, len: usize) -> Vec<u8> {
        let key = self.key();
        let (control, ends, longer) = (kind & 7 == 7, kind & 8 != 0, kind & 16 != 0);
        if control {
            let opcode = if ends { PING } else { PONG };
            self.pings += u32::from(ends);
            // No payload is equal to one of the other side, or to the proxy's eight bytes.
            let mut payload = vec![if self.masks { b'c' } else { b'a' }; len % 100 + 9];
            payload[1..3].copy_from_slice(&self.count.to_be_bytes());
            return encode(0x80 | opcode, &payload, key, false);
        }
        let opcode = match (self.open, kind & 1) {
            (true, _) => 0,
            (false, 0) => 1,
            (false, _) => 2,
        };
        self.open = !ends;
        let fill = usize::from(self.count) * 31;
        let payload: Vec<u8> = (fill..fill + len).map(|at| at.to_le_bytes()[0]).collect();
        encode(if ends { 0x80 } else { 0 } | opcode, &payload, key, longer)
    }

    /// Records `bytes` as sent and returns them for the relay, which gets them with the leg.
    pub fn early(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.said.extend_from_slice(&bytes);
        bytes
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.piece(bytes, true, true);
    }

    /// Sends a part of a frame, or of a record. `ends`: it includes the end.
    pub fn piece(&mut self, bytes: &[u8], readable: bool, ends: bool) {
        if self.ended || self.sent_close {
            return;
        }
        self.said.extend_from_slice(bytes);
        self.inside_frame = !ends;
        self.wire().push(bytes, readable);
        if ends {
            for answer in std::mem::take(&mut self.waiting) {
                self.send(&answer);
            }
            if let Some(payload) = self.owed_close.take() {
                self.close(&payload);
            }
        }
    }

    pub fn close(&mut self, payload: &[u8]) {
        if !self.sent_close && !self.ended && !self.inside_frame {
            let frame = {
                let key = self.key();
                encode(0x80 | CLOSE, payload, key, false)
            };
            self.send(&frame);
            self.sent_close = true;
        }
    }

    pub fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.wire().end();
        }
    }

    /// Reads the bytes that have arrived, and answers them.
    pub fn react(&mut self) {
        let delivered = {
            let wire = self.wire();
            wire.delivered()[self.seen.min(wire.delivered().len())..].to_vec()
        };
        let mut rest = &delivered[..];
        while let Some(frame) = first(rest) {
            self.seen += frame.raw.len();
            rest = &rest[frame.raw.len()..];
            self.answer(&frame);
        }
        let over = {
            let wire = self.wire();
            wire.shut || wire.dropped.is_some()
        };
        let both = self.sent_close && self.got_close;
        // A server ends the connection after the closing handshake, a client waits for that.
        if self.polite && (over && !self.inside_frame || both && !self.masks) {
            self.end();
        }
    }

    fn answer(&mut self, frame: &Frame<'_>) {
        let (opcode, payload) = match frame.opcode {
            PING if self.answers => (PONG, frame.payload()),
            CLOSE => {
                self.got_close = true;
                if self.polite {
                    let payload = frame.payload()[..frame.payload().len().min(2)].to_vec();
                    if self.inside_frame {
                        self.owed_close = Some(payload);
                    } else {
                        self.close(&payload);
                    }
                }
                return;
            }
            _ => return,
        };
        let key = self.key();
        let pong = encode(0x80 | opcode, &payload, key, false);
        if self.inside_frame {
            self.waiting.push(pong);
        } else {
            self.send(&pong);
        }
    }
}
