//! A client or an app: it sends as planned, checks what it receives, and keeps a record of both.

mod message;
mod outbox;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};
use tokio::time::sleep;

use crate::frames::{self, BINARY, CLOSE, Decoder, Frame, PING, PONG, TEXT};
use crate::plan::{Behaviour, EndKind, Reading, Talk};
use crate::transport::{Breaker, now};
pub use message::Message;
use outbox::Outbox;

/// The time that a client waits for the end of the stream after its closing handshake.
const END_WAIT: Duration = Duration::from_secs(5);
/// The time that an end reads on after it has sent its Close.
const CLOSE_WAIT: Duration = Duration::from_secs(60);
/// The longest message that is echoed.
const ECHO_MAX: usize = 64 * 1024;

/// A byte stream of an end.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// One of the two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    App,
}

impl Side {
    /// Returns the first byte of its messages.
    pub fn tag(self) -> u8 {
        match self {
            Self::Client => b'C',
            Self::App => b'A',
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Client => Self::App,
            Self::App => Self::Client,
        }
    }
}

/// The record of what an end sent and received.
#[derive(Debug, Default)]
pub struct PeerRecord {
    /// Messages that were queued, and that arrived whole.
    pub sent: u32,
    pub received: u32,
    /// The Close that it sent, and how many messages before it.
    pub close_sent: Option<(Duration, u16, u32)>,
    /// Set where that was its own, not the answer to one.
    pub began_close: bool,
    pub close_received: Option<(Duration, u16)>,
    /// The stream ended, or broke.
    pub eof: Option<Duration>,
    pub broke: Option<Duration>,
    /// Descriptions of what must never arrive.
    pub faults: Vec<String>,
    pub pings: u32,
    pub pongs: u32,
}

/// The heartbeat that a route requires of its clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beats {
    /// The client answers the text `ping`.
    pub answers_text: bool,
    /// The period at which the client sends the text `ping`.
    pub every: Option<Duration>,
}

/// One end of a session.
struct Peer {
    side: Side,
    behaviour: Behaviour,
    beats: Beats,
    record: Rc<RefCell<PeerRecord>>,
    outbox: Rc<Outbox>,
    breaker: Breaker,
    /// Own pings without an answer.
    pinged: RefCell<VecDeque<u32>>,
    /// The number of arrivals of each ping of the other end.
    pings_seen: RefCell<BTreeMap<Vec<u8>, u32>>,
}

/// Runs one end until its connection is over.
pub async fn run(
    (io, breaker): (Box<dyn Io>, Breaker),
    side: Side,
    (behaviour, beats): (Behaviour, Beats),
    record: Rc<RefCell<PeerRecord>>,
) {
    let (read, write) = tokio::io::split(io);
    let outbox = Rc::new(Outbox::new(side, behaviour.stopped));
    let peer = Rc::new(Peer {
        side,
        behaviour,
        beats,
        record,
        outbox: Rc::clone(&outbox),
        breaker,
        pinged: RefCell::default(),
        pings_seen: RefCell::default(),
    });
    let mut writing = tokio::task::spawn_local(outbox.write_to(write));
    let scripts = [
        tokio::task::spawn_local(Rc::clone(&peer).talk()),
        tokio::task::spawn_local(Rc::clone(&peer).ping()),
        tokio::task::spawn_local(Rc::clone(&peer).beat()),
        tokio::task::spawn_local(Rc::clone(&peer).end()),
    ];
    peer.read(read).await;
    for script in scripts {
        script.abort();
    }
    peer.outbox.finish();
    // Queued bytes go out, if the other end still takes them.
    if tokio::time::timeout(END_WAIT, &mut writing).await.is_err() {
        writing.abort();
    }
}

impl Peer {
    async fn read(&self, mut read: ReadHalf<Box<dyn Io>>) {
        let mut decoder = Decoder::new(usize::MAX);
        let mut message = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            self.outbox.stopped().await;
            let most = match self.behaviour.reading {
                Reading::Prompt => buffer.len(),
                Reading::Slow { bytes_per_second } => {
                    sleep(Duration::from_millis(100)).await;
                    (bytes_per_second / 10).clamp(1, buffer.len())
                }
            };
            let until = self.deadline();
            let wait = until.map_or(Duration::from_secs(3600), |until| until.saturating_sub(now()));
            let Ok(outcome) = tokio::time::timeout(wait, read.read(&mut buffer[..most])).await else { return };
            match outcome {
                Ok(0) => {
                    self.record.borrow_mut().eof.get_or_insert(now());
                    return;
                }
                Err(_) => {
                    self.record.borrow_mut().broke.get_or_insert(now());
                    return;
                }
                Ok(len) => {
                    let mut found = Vec::new();
                    decoder.feed(&buffer[..len], |frame| found.push(frame));
                    for frame in &found {
                        self.take(frame, &mut message);
                    }
                }
            }
        }
    }

    /// Returns the time until which it reads.
    fn deadline(&self) -> Option<Duration> {
        let record = self.record.borrow();
        let sent = record.close_sent?.0;
        match record.close_received {
            Some((received, _)) => Some(received.max(sent) + END_WAIT),
            None => Some(sent + CLOSE_WAIT),
        }
    }

    fn take(&self, frame: &Frame, message: &mut Vec<u8>) {
        if self.record.borrow().close_received.is_some() {
            return self.fault(format!("a frame of kind {} behind the Close", frame.opcode));
        }
        match frame.opcode {
            PING => self.pinged(&frame.payload),
            PONG => self.ponged(&frame.payload),
            CLOSE => self.closed(frame.close_code()),
            _ => {
                message.extend(&frame.payload);
                if frame.is_final {
                    let whole = std::mem::take(message);
                    self.message(&whole);
                }
            }
        }
    }

    fn message(&self, payload: &[u8]) {
        match (self.side, payload) {
            (Side::Client, b"ping") if self.beats.answers_text => {
                if self.is_answering() {
                    self.send(TEXT, b"pong");
                }
                return;
            }
            (Side::Client, b"pong") if self.beats.every.is_some() => return,
            _ => {}
        }
        let mut record = self.record.borrow_mut();
        let expected = record.received;
        if let Some(fault) = Message::check(payload, self.side.other().tag(), expected) {
            record.faults.push(fault);
            return;
        }
        record.received += 1;
        drop(record);
        if self.behaviour.echoes && payload.len() <= ECHO_MAX {
            self.send_message(payload.len(), 1);
        }
    }

    fn pinged(&self, payload: &[u8]) {
        if payload.first() == Some(&self.side.other().tag()) && payload.len() == 5 {
            let mut seen = self.pings_seen.borrow_mut();
            let times = seen.entry(payload.to_vec()).or_default();
            *times += 1;
            // A ping that a later answer overtook is sent once more.
            let most = if self.side == Side::Client { 2 } else { 1 };
            if *times > most {
                self.fault(format!("the ping {payload:?} came {times} times"));
            }
        } else if self.side == Side::App {
            self.fault(format!("the ping {payload:?} is not the client's"));
        }
        if self.is_answering() {
            self.send(PONG, payload);
        }
    }

    fn ponged(&self, payload: &[u8]) {
        let mut pinged = self.pinged.borrow_mut();
        let number = match payload {
            [tag, number @ ..] if *tag == self.side.tag() => number.try_into().ok().map(u32::from_be_bytes),
            _ => None,
        };
        match number.and_then(|number| pinged.iter().position(|other| *other == number)) {
            Some(at) => {
                pinged.drain(..=at);
                self.record.borrow_mut().pongs += 1;
            }
            None => self.fault(format!("the pong {payload:?} answers none of {pinged:?}")),
        }
    }

    fn closed(&self, code: u16) {
        let mut record = self.record.borrow_mut();
        record.close_received = Some((now(), code));
        let answers = record.close_sent.is_none() && !self.outbox.is_finished();
        drop(record);
        if answers {
            self.send_close(code);
        }
        // The server ends the connection first (RFC 6455 §7.1.1).
        if self.side == Side::App {
            self.outbox.finish();
        }
    }

    fn is_answering(&self) -> bool {
        self.behaviour.mute_from.is_none_or(|at| now() < at)
    }

    fn fault(&self, fault: String) {
        self.record.borrow_mut().faults.push(fault);
    }

    fn send(&self, opcode: u8, payload: &[u8]) {
        if self.record.borrow().close_sent.is_none() {
            self.outbox.push(frames::encode(opcode, true, payload, self.outbox.mask()));
        }
    }

    fn send_close(&self, code: u16) {
        let mut record = self.record.borrow_mut();
        record.close_sent = Some((now(), code, record.sent));
        let payload = if code == 1005 { Vec::new() } else { code.to_be_bytes().to_vec() };
        self.outbox.push(frames::encode(CLOSE, true, &payload, self.outbox.mask()));
    }

    /// Queues the next message, of `len` bytes in `fragments` frames.
    fn send_message(&self, len: usize, fragments: usize) {
        let mut record = self.record.borrow_mut();
        if record.close_sent.is_some() || self.outbox.is_finished() {
            return;
        }
        let payload = Message::payload(self.side.tag(), record.sent, len);
        let part = payload.len().div_ceil(fragments);
        let count = payload.chunks(part).count();
        for (at, chunk) in payload.chunks(part).enumerate() {
            let opcode = if at == 0 { BINARY } else { frames::CONTINUATION };
            self.outbox.push(frames::encode(opcode, at + 1 == count, chunk, self.outbox.mask()));
        }
        record.sent += 1;
    }

    async fn talk(self: Rc<Self>) {
        match self.behaviour.talk {
            Talk::Nothing => {}
            Talk::Messages { every, len, fragments } => loop {
                sleep(every).await;
                self.outbox.stopped().await;
                if self.outbox.waiting() < 1 << 20 {
                    self.send_message(len, fragments);
                }
            },
            Talk::Flood { at, count, len } => {
                sleep(at.saturating_sub(now())).await;
                self.outbox.stopped().await;
                for _ in 0..count {
                    self.send_message(len, 1);
                }
            }
            Talk::Huge { at, len, chunk, every } => {
                sleep(at.saturating_sub(now())).await;
                self.outbox.stopped().await;
                self.outbox.trickle(chunk, every);
                self.send_message(len, 1);
            }
        }
    }

    async fn ping(self: Rc<Self>) {
        let Some(every) = self.behaviour.pings else { return };
        loop {
            sleep(every).await;
            self.outbox.stopped().await;
            let number = self.record.borrow().pings;
            if self.record.borrow().close_sent.is_some() {
                return;
            }
            self.record.borrow_mut().pings += 1;
            self.pinged.borrow_mut().push_back(number);
            self.send(PING, &[&[self.side.tag()][..], &number.to_be_bytes()].concat());
        }
    }

    async fn beat(self: Rc<Self>) {
        let Some(every) = self.beats.every else { return };
        loop {
            sleep(every).await;
            self.outbox.stopped().await;
            if self.is_answering() {
                self.send(TEXT, b"ping");
            }
        }
    }

    async fn end(self: Rc<Self>) {
        let Some((at, kind)) = self.behaviour.end else { return };
        sleep(at.saturating_sub(now())).await;
        self.outbox.stopped().await;
        if self.record.borrow().close_sent.is_some() {
            return;
        }
        match kind {
            EndKind::Close(code) | EndKind::CloseAndFin(code) => {
                self.record.borrow_mut().began_close = true;
                self.send_close(code);
                if matches!(kind, EndKind::CloseAndFin(_)) {
                    self.outbox.finish();
                }
            }
            EndKind::Fin => self.outbox.finish(),
            EndKind::Reset => self.breaker.abort(),
        }
    }
}
