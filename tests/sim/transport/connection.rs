//! One end of a connection, without input or output: segments and the time go in, segments come out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::segment::{Kind, MAX_PAYLOAD, Segment};
use crate::wire::LegWire;

/// The longest time between two retransmissions.
const RTO_MAX: Duration = Duration::from_secs(8);

/// The sizes and times of a host's connections.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes that wait for the reader at most: the window.
    pub receive: usize,
    /// Bytes that are written and not acknowledged at most.
    pub send: usize,
    /// The first time-out of a retransmission.
    pub rto: Duration,
}

/// One end of a connection.
#[expect(clippy::struct_excessive_bools, reason = "each direction opens and ends by itself, as in TCP")]
pub struct Connection {
    pub id: u32,
    pub peer: SocketAddr,
    pub is_open: bool,
    tuning: Tuning,
    /// Written and not acknowledged; begins at `acked`.
    queue: BytesMut,
    pub acked: u64,
    pub written: u64,
    /// Position of the next byte to send, and the furthest that was ever sent.
    next: u64,
    furthest: u64,
    fin: bool,
    fin_sent: bool,
    fin_acked: bool,
    /// Position up to which the peer can take bytes.
    peer_until: u64,
    timer: Option<Duration>,
    rto: Duration,
    /// The bytes of a segment on a slow link and the time between two; and the time of the next.
    pace: Option<(usize, Duration)>,
    paced_until: Duration,
    /// Received and not read.
    pub buffer: BytesMut,
    received: u64,
    early: BTreeMap<u64, Bytes>,
    fin_at: Option<u64>,
    announced: u64,
    /// The peer aborted the connection.
    pub is_reset: bool,
    /// This end did.
    pub is_aborted: bool,
    /// The stream was dropped.
    is_orphan: bool,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    /// The record of the judge; the proxy's ends have one.
    pub wire: Option<Rc<RefCell<LegWire>>>,
    pub outbox: Vec<Segment>,
}

impl Connection {
    pub fn new(id: u32, peer: SocketAddr, tuning: Tuning) -> Self {
        Self {
            id,
            peer,
            is_open: false,
            tuning,
            queue: BytesMut::new(),
            acked: 0,
            written: 0,
            next: 0,
            furthest: 0,
            fin: false,
            fin_sent: false,
            fin_acked: false,
            peer_until: 0,
            timer: None,
            rto: tuning.rto,
            pace: None,
            paced_until: Duration::ZERO,
            buffer: BytesMut::new(),
            received: 0,
            early: BTreeMap::new(),
            fin_at: None,
            announced: tuning.receive as u64,
            is_reset: false,
            is_aborted: false,
            is_orphan: false,
            reader: None,
            writer: None,
            wire: None,
            outbox: Vec::new(),
        }
    }

    /// Returns whether the stream of the peer has ended and everything before was received.
    pub fn is_at_end(&self) -> bool {
        self.fin_at == Some(self.received)
    }

    /// Returns the number of bytes that were never sent.
    pub fn untransmitted(&self) -> u64 {
        self.written - self.furthest
    }

    /// Sends `bytes` in each `every` at most.
    pub fn set_pace(&mut self, bytes: usize, every: Duration) {
        self.pace = Some((bytes, every));
    }

    /// Returns the time at which to call [`Self::expire`].
    pub fn deadline(&self) -> Option<Duration> {
        let is_usable = self.is_open && !self.is_aborted && !self.is_reset;
        let is_paced = self.pace.is_some() && self.has_unsent() && is_usable;
        let paced = is_paced.then_some(self.paced_until);
        [self.timer, paced].into_iter().flatten().min()
    }

    /// Returns whether there are bytes that the peer has room for.
    fn has_unsent(&self) -> bool {
        // The end may be acknowledged after it was to be sent again.
        let ends = self.fin && !self.fin_sent && !self.fin_acked && self.next == self.written;
        self.next < self.written.min(self.peer_until) || ends
    }

    /// Sends the first segment, or the answer to it.
    pub fn open(&mut self, kind: Kind, now: Duration) {
        self.is_open = kind == Kind::Opened;
        self.push(kind, 0, Bytes::new());
        if kind == Kind::Open {
            self.timer = Some(now + self.rto);
        }
    }

    /// Processes the first segment of a peer and answers it.
    pub fn accept(&mut self, segment: &Segment, now: Duration) {
        self.peer_until = segment.room;
        self.open(Kind::Opened, now);
    }

    /// Takes as much of `bytes` as there is room for.
    pub fn write(&mut self, bytes: &[u8], now: Duration) -> usize {
        let taken = bytes.len().min(self.tuning.send - self.queue.len());
        self.queue.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        self.output(now);
        let (unacked, is_full) = (self.queue.len(), self.queue.len() == self.tuning.send);
        self.observe(|wire| wire.wrote(now, unacked, is_full));
        taken
    }

    pub fn is_finished(&self) -> bool {
        self.fin || self.is_aborted
    }

    /// Ends this direction behind everything written.
    pub fn finish(&mut self, now: Duration) {
        self.fin = true;
        self.output(now);
    }

    /// Aborts the connection.
    pub fn abort(&mut self) {
        if !self.is_aborted && !self.is_reset {
            self.push(Kind::Reset, self.next, Bytes::new());
        }
        self.is_aborted = true;
        self.timer = None;
        self.wake();
    }

    /// Handles the drop of the stream: unread bytes of the peer make it an abort, as in Linux.
    pub fn orphan(&mut self, now: Duration) {
        self.is_orphan = true;
        if self.buffer.is_empty() { self.finish(now) } else { self.abort() }
    }

    /// Announces new room to the peer once it is a quarter of the window.
    pub fn was_read(&mut self) {
        let until = self.received + self.room();
        if until.saturating_sub(self.announced) >= self.tuning.receive as u64 / 4 {
            self.push(Kind::Data, self.next, Bytes::new());
        }
    }

    /// Processes one segment.
    pub fn input(&mut self, segment: &Segment, now: Duration) {
        if self.is_aborted {
            return self.refuse(segment.kind);
        }
        match segment.kind {
            Kind::Open => return self.push(Kind::Opened, 0, Bytes::new()),
            Kind::Opened => {
                if !self.is_open {
                    (self.is_open, self.timer) = (true, None);
                    self.wake();
                }
            }
            Kind::Reset => {
                self.is_reset = true;
                self.timer = None;
                self.observe(|wire| wire.reset(now));
                return self.wake();
            }
            Kind::Probe => self.push(Kind::Data, self.next, Bytes::new()),
            Kind::Data | Kind::Fin => {}
        }
        self.take_acknowledgement(segment, now);
        if matches!(segment.kind, Kind::Data | Kind::Fin) {
            self.take_payload(segment, now);
        }
        self.output(now);
    }

    /// Acts on a timer that has passed.
    pub fn expire(&mut self, now: Duration) {
        if self.timer.is_none_or(|at| at > now) {
            return self.output(now);
        }
        self.timer = None;
        self.rto = (self.rto * 2).min(RTO_MAX);
        if !self.is_open {
            return self.open(Kind::Open, now);
        }
        (self.next, self.fin_sent) = (self.acked, false);
        if !self.queue.is_empty() && self.peer_until <= self.next {
            self.push(Kind::Probe, self.next, Bytes::new());
            self.timer = Some(now + self.rto);
        } else {
            self.output(now);
        }
    }

    fn refuse(&mut self, kind: Kind) {
        if kind != Kind::Reset {
            self.push(Kind::Reset, self.next, Bytes::new());
        }
    }

    fn take_acknowledgement(&mut self, segment: &Segment, now: Duration) {
        self.peer_until = self.peer_until.max(segment.acked + segment.room);
        let acked = segment.acked.min(self.written);
        let fin_acked = self.fin && segment.acked > self.written;
        if acked <= self.acked && fin_acked == self.fin_acked {
            return;
        }
        if acked > self.acked {
            self.queue.advance(usize::try_from(acked - self.acked).expect("within the queue"));
            self.acked = acked;
            self.next = self.next.max(acked);
            self.furthest = self.furthest.max(acked);
        }
        self.fin_acked |= fin_acked;
        (self.rto, self.timer) = (self.tuning.rto, None);
        let unacked = self.queue.len();
        self.observe(|wire| wire.acknowledged(now, unacked));
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn take_payload(&mut self, segment: &Segment, now: Duration) {
        let was_at_end = self.is_at_end();
        let end = segment.at + segment.data.len() as u64;
        if segment.kind == Kind::Fin {
            self.fin_at = Some(end);
        }
        if self.is_orphan && end > self.received {
            return self.abort();
        }
        if end > self.received && end <= self.received + self.room() {
            self.early.insert(segment.at, segment.data.clone());
        }
        let mut news = BytesMut::new();
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.received) {
            let (at, data) = entry.remove_entry();
            let known = usize::try_from(self.received - at).expect("a segment is short");
            if known < data.len() {
                news.extend_from_slice(&data[known..]);
                self.received = at + data.len() as u64;
            }
        }
        if !news.is_empty() {
            self.observe(|wire| wire.arrived(now, &news));
            self.buffer.extend_from_slice(&news);
        }
        let has_ended = self.is_at_end() && !was_at_end;
        if has_ended {
            self.observe(|wire| wire.ended(now));
        }
        if (has_ended || !news.is_empty())
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        if segment.kind == Kind::Fin || !segment.data.is_empty() {
            self.push(Kind::Data, self.next, Bytes::new());
        }
    }

    /// Sends what the peer has room for.
    fn output(&mut self, now: Duration) {
        while self.is_open && !self.is_aborted && !self.is_reset {
            let from = usize::try_from(self.next - self.acked).expect("within the queue");
            let room = usize::try_from(self.peer_until.saturating_sub(self.next)).unwrap_or(usize::MAX);
            let most = match self.pace {
                Some(_) if now < self.paced_until => break,
                Some((bytes, _)) => bytes,
                None => MAX_PAYLOAD,
            };
            let len = (self.queue.len() - from).min(room).min(most);
            let ends = self.fin && from + len == self.queue.len() && !self.fin_acked && !self.fin_sent;
            if len == 0 && !ends {
                break;
            }
            let data = Bytes::copy_from_slice(&self.queue[from..from + len]);
            self.push(if ends { Kind::Fin } else { Kind::Data }, self.next, data);
            self.next += len as u64;
            self.furthest = self.furthest.max(self.next);
            self.fin_sent |= ends;
            if let Some((_, every)) = self.pace {
                self.paced_until = now + every;
            }
        }
        let waits = !self.queue.is_empty() || self.fin && !self.fin_acked;
        if waits && self.is_open && !self.is_aborted && !self.is_reset {
            self.timer.get_or_insert(now + self.rto);
        }
    }

    fn room(&self) -> u64 {
        self.tuning.receive.saturating_sub(self.buffer.len()) as u64
    }

    fn push(&mut self, kind: Kind, at: u64, data: Bytes) {
        let acked = self.received + u64::from(self.is_at_end());
        self.announced = self.received + self.room();
        let segment = Segment { id: self.id, kind, at, acked, room: self.room(), data };
        self.outbox.push(segment);
    }

    fn wake(&mut self) {
        for waker in [mem::take(&mut self.reader), mem::take(&mut self.writer)].into_iter().flatten() {
            waker.wake();
        }
    }

    fn observe(&self, report: impl FnOnce(&mut LegWire)) {
        if let Some(wire) = &self.wire {
            report(&mut wire.borrow_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_acknowledged_late_leaves_nothing_to_send() {
        let at = Duration::from_millis;
        let tuning = Tuning { receive: 100, send: 100, rto: at(500) };
        let mut connection = Connection::new(1, ([192, 0, 2, 1], 9000).into(), tuning);
        let open = Segment { id: 1, kind: Kind::Open, at: 0, acked: 0, room: 100, data: Bytes::new() };
        connection.set_pace(10, at(1000));
        connection.accept(&open, at(0));
        connection.finish(at(0));
        connection.expire(at(500));
        assert_eq!(connection.deadline(), Some(at(1000)), "it is to be sent again");
        connection.input(&Segment { kind: Kind::Data, acked: 1, ..open }, at(600));
        assert_eq!(connection.deadline(), None);
    }
}
