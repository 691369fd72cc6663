//! The traffic at the proxy's end of one connection, as the simulated network and the proxy's own calls show it.

use std::fmt;
use std::time::Duration;

use crate::frames::{CLOSE, CONTINUATION, Decoder, PONG, TEXT};

/// Fewer unacknowledged bytes than this are a probe, not a backlog.
const BACKLOG: usize = 256;
/// Marks that are closer together than this are one.
const COALESCE: Duration = Duration::from_millis(2);

/// Marks that a record shows.
const SHOWN: usize = 12;

/// Instants at which something happened, in order.
#[derive(Default)]
pub struct Marks(Vec<Duration>);

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[self.0.len().saturating_sub(SHOWN)..];
        write!(f, "{} marks, the last {shown:?}", self.0.len())
    }
}

impl Marks {
    fn add(&mut self, at: Duration) {
        match &mut self.0[..] {
            // The first of a burst stays, and so does its last.
            [.., before, last] if at - *before < COALESCE => *last = at,
            _ => self.0.push(at),
        }
    }

    pub fn last(&self) -> Option<Duration> {
        self.0.last().copied()
    }

    /// Returns the last one before `at`.
    pub fn before(&self, at: Duration) -> Option<Duration> {
        let end = self.0.partition_point(|mark| *mark < at);
        end.checked_sub(1).map(|last| self.0[last])
    }
}

/// The record of one connection at the proxy's end.
#[derive(Debug)]
pub struct LegWire {
    /// Set where bytes on the wire are encrypted: then frames are recorded where the proxy reads them.
    pub is_encrypted: bool,
    /// Bytes of the peer arrived.
    pub bytes: Marks,
    /// A frame of the peer was complete; a Pong; one of data; a heartbeat message.
    pub frames: Marks,
    pub pongs: Marks,
    pub data: Marks,
    pub beats: Marks,
    inbound: Decoder,
    /// The start of the peer's frame under way.
    pub inside_since: Option<Duration>,
    pub close_in: Option<(Duration, u16)>,
    pub fin_in: Option<Duration>,
    pub reset_in: Option<Duration>,
    /// The peer acknowledged bytes; and with more than a probe still outstanding.
    pub acks: Marks,
    pub slow_acks: Marks,
    pub unacked: usize,
    /// The start of the unacknowledged bytes.
    pub unacked_since: Option<Duration>,
    /// The start of the time with a full send buffer, and its last full instant.
    pub full_since: Option<Duration>,
    pub full_last: Option<Duration>,
    outbound: Decoder,
    /// The time of the proxy's last write, and the start of its frame under way.
    pub wrote_last: Option<Duration>,
    pub out_inside_since: Option<Duration>,
    pub out_inside_last: Option<Duration>,
    /// The first Close that the proxy wrote.
    pub close_out: Option<(Duration, u16)>,
    /// Frames that the proxy wrote behind its Close.
    pub after_close: usize,
    /// The times at which the proxy ended its direction, and at which it released the connection.
    pub fin_out: Option<Duration>,
    pub gone: Option<Duration>,
    pub was_aborted: bool,
}

impl LegWire {
    pub fn new(is_encrypted: bool) -> Self {
        Self {
            is_encrypted,
            bytes: Marks::default(),
            frames: Marks::default(),
            pongs: Marks::default(),
            data: Marks::default(),
            beats: Marks::default(),
            inbound: Decoder::new(125),
            inside_since: None,
            close_in: None,
            fin_in: None,
            reset_in: None,
            acks: Marks::default(),
            slow_acks: Marks::default(),
            unacked: 0,
            unacked_since: None,
            full_since: None,
            full_last: None,
            outbound: Decoder::new(125),
            wrote_last: None,
            out_inside_since: None,
            out_inside_last: None,
            close_out: None,
            after_close: 0,
            fin_out: None,
            gone: None,
            was_aborted: false,
        }
    }

    /// Records bytes of the peer that arrived in order.
    pub fn arrived(&mut self, now: Duration, bytes: &[u8]) {
        self.bytes.add(now);
        if !self.is_encrypted {
            self.read(now, bytes);
        }
    }

    /// Records bytes of the peer's stream, decrypted.
    pub fn read(&mut self, now: Duration, bytes: &[u8]) {
        let Self { inbound, frames, pongs, data, beats, close_in, .. } = self;
        let mut ended = false;
        inbound.feed(bytes, |frame| {
            ended = true;
            frames.add(now);
            match frame.opcode {
                PONG => pongs.add(now),
                CLOSE => {
                    close_in.get_or_insert((now, frame.close_code()));
                }
                CONTINUATION..CLOSE => {
                    data.add(now);
                    if frame.opcode == TEXT {
                        beats.add(now);
                    }
                }
                _ => {}
            }
        });
        if !inbound.is_inside() {
            self.inside_since = None;
        } else if ended || self.inside_since.is_none() {
            self.inside_since = Some(now);
        }
    }

    pub fn ended(&mut self, now: Duration) {
        self.fin_in.get_or_insert(now);
    }

    pub fn reset(&mut self, now: Duration) {
        self.reset_in.get_or_insert(now);
    }

    pub fn acknowledged(&mut self, now: Duration, unacked: usize) {
        self.acks.add(now);
        if unacked >= BACKLOG || self.full_since.is_some() {
            self.slow_acks.add(now);
        }
        if self.full_since.take().is_some() {
            self.full_last = Some(now);
        }
        self.outstanding(now, unacked);
    }

    pub fn wrote(&mut self, now: Duration, unacked: usize, is_full: bool) {
        self.outstanding(now, unacked);
        if is_full {
            self.full_since.get_or_insert(now);
            self.full_last = Some(now);
        }
    }

    fn outstanding(&mut self, now: Duration, unacked: usize) {
        self.unacked = unacked;
        if unacked == 0 {
            self.unacked_since = None;
        } else {
            self.unacked_since.get_or_insert(now);
        }
    }

    /// Records `bytes` that the proxy wrote to its stream, before any encryption.
    pub fn sent(&mut self, now: Duration, bytes: &[u8]) {
        self.wrote_last = Some(now);
        let Self { outbound, close_out, after_close, .. } = self;
        let mut ended = false;
        outbound.feed(bytes, |frame| {
            ended = true;
            *after_close += usize::from(close_out.is_some());
            if frame.opcode == CLOSE {
                close_out.get_or_insert((now, frame.close_code()));
            }
        });
        if self.outbound.is_inside() {
            // Between two frames there was room for a probe.
            self.out_inside_since = self.out_inside_since.filter(|_| !ended).or(Some(now));
            self.out_inside_last = Some(now);
        } else if self.out_inside_since.take().is_some() {
            self.out_inside_last = Some(now);
        }
    }

    pub fn finished(&mut self, now: Duration) {
        self.fin_out.get_or_insert(now);
    }

    pub fn dropped(&mut self, now: Duration, was_aborted: bool) {
        self.gone.get_or_insert(now);
        self.was_aborted |= was_aborted;
    }

    /// Returns the instant until which the send buffer was full, if it ever was: `now` while it is.
    pub fn full_until(&self, now: Duration) -> Option<Duration> {
        if self.full_since.is_some() { Some(now) } else { self.full_last }
    }

    /// Returns the first sign of an end that came from the peer.
    pub fn peer_end(&self) -> Option<Duration> {
        [self.close_in.map(|(at, _)| at), self.fin_in, self.reset_in].into_iter().flatten().min()
    }

    /// Returns the first sign of an end that came from the proxy.
    pub fn own_end(&self) -> Option<Duration> {
        [self.close_out.map(|(at, _)| at), self.fin_out, self.gone].into_iter().flatten().min()
    }
}
