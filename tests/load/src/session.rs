//! The client's end of one WebSocket.
//!
//! A session is driven by [`Session::turn`], which may be dropped at any await: all state is in the session, so that a
//! scenario can wait for a session and for its orders at once. It reads and writes in the same turn: a client that only
//! wrote until its message was sent would deadlock with an echo that streams.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::frame::{self, Decoder, FrameError, Header, Opcode, Part};
use crate::pattern::Pattern;

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// The read buffer of all sessions of a thread, used by one at a time: 9,000 of them need no 9,000 buffers.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// The reaction of a session to the peer's Pings and Closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manners {
    /// Answers each, as RFC 6455 §5.5 demands.
    #[default]
    Answers,
    /// Reads but never answers: a dead client to a heartbeat.
    Silent,
}

/// The outcome of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Bytes were read and processed; [`Session::seen`] returns their summary.
    Progress,
    /// The connection has ended.
    Ended,
}

/// A Close frame of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The time at which it was read.
    pub at: Instant,
    /// Its code; [`None`] in an empty Close.
    pub code: Option<u16>,
}

/// A summary of all frames received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Pings of the peer.
    pub pings: u64,
    /// The peer's Close.
    pub close: Option<Close>,
    /// Pongs that answer the session's own Pings.
    pub pongs: u64,
    /// Pongs that match none of them.
    pub stray_pongs: u64,
    /// The longest time from reading a Ping to having written its Pong, for Pongs that are written.
    pub slowest_answer: Duration,
}

/// One WebSocket over any byte stream.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    manners: Manners,
    decoder: Decoder,
    /// Payload of the control frame in progress.
    control: Vec<u8>,
    outbound: Outbound,
    pattern: Arc<Pattern>,
    /// The expected rest of the echo in progress: a place in the pattern.
    expected: Option<Range<usize>>,
    phase: Phase,
    seen: Seen,
    /// The time at which the oldest Ping without a written Pong was read.
    owed_since: Option<Instant>,
    /// Payloads of own Pings that are unanswered, oldest first.
    asked: VecDeque<[u8; 8]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Open,
    CloseSent,
    /// The client's direction has ended without a Close: nothing more is written.
    HalfClosed,
}

/// Bytes to be written.
#[derive(Debug, Default)]
struct Outbound {
    bytes: Vec<u8>,
    sent: usize,
    /// False while a TLS stream may have taken bytes that it has not yet written.
    flushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Returns a session on an upgraded stream; `early` was read after the response to the upgrade.
    pub fn new(stream: S, mut early: Vec<u8>, pattern: Arc<Pattern>, manners: Manners) -> Result<Self, SessionError> {
        let mut session = Self {
            stream,
            manners,
            decoder: Decoder::default(),
            control: Vec::new(),
            outbound: Outbound { flushed: true, ..Outbound::default() },
            pattern,
            expected: None,
            phase: Phase::Open,
            seen: Seen::default(),
            owed_since: None,
            asked: VecDeque::new(),
        };
        session.absorb(&mut early)?;
        Ok(session)
    }

    /// Returns the summary of all frames received so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Sends the message number `sequence` of session `index` and waits until all of it is echoed unchanged.
    pub async fn echo(&mut self, index: usize, sequence: u64, length: usize) -> Result<(), SessionError> {
        self.queue_message(index, sequence, length, 1, false);
        self.echoed().await
    }

    /// Queues the message number `sequence` of session `index` in `fragments` frames, with a Ping of its own between
    /// the first two frames if `ping` is set. Its echo is expected from now on.
    pub fn queue_message(&mut self, index: usize, sequence: u64, length: usize, fragments: usize, ping: bool) {
        let place = self.pattern.place(index, sequence, length);
        let step = length.div_ceil(fragments.max(1)).max(1);
        let pattern = Arc::clone(&self.pattern);
        let mut rest = pattern.bytes(place.clone());
        let mut opcode = pattern.opcode();
        loop {
            let (fragment, behind) = rest.split_at(step.min(rest.len()));
            rest = behind;
            let key = fastrand::u32(..).to_ne_bytes();
            let fin = rest.is_empty();
            frame::encode_masked_fragment(fin, opcode, key, fragment, &mut self.outbound.bytes);
            if ping && opcode != Opcode::Continuation {
                self.queue_ping(sequence);
            }
            if fin {
                break;
            }
            opcode = Opcode::Continuation;
        }
        self.expected = Some(place);
    }

    /// Queues a message of one byte whose echo is not expected.
    pub fn queue_last_word(&mut self) {
        let key = fastrand::u32(..).to_ne_bytes();
        frame::encode_masked(self.pattern.opcode(), key, b".", &mut self.outbound.bytes);
    }

    fn queue_ping(&mut self, sequence: u64) {
        let payload = sequence.to_be_bytes();
        frame::encode_masked(Opcode::Ping, fastrand::u32(..).to_ne_bytes(), &payload, &mut self.outbound.bytes);
        self.asked.push_back(payload);
    }

    /// Waits until the message in progress is echoed unchanged, and every own Ping is answered.
    pub async fn echoed(&mut self) -> Result<(), SessionError> {
        while self.expected.is_some() || !self.asked.is_empty() {
            let ended = self.turn().await? == Turn::Ended;
            // The end may have arrived with the last bytes of the echo.
            if ended && (self.expected.is_some() || !self.asked.is_empty()) {
                return Err(self.ended());
            }
        }
        Ok(())
    }

    /// Closes with 1000, waits for the peer's Close and the end, then closes the stream.
    pub async fn close(&mut self) -> Result<(), SessionError> {
        self.close_with(1000).await
    }

    /// Closes with another code in the same way.
    pub async fn close_with(&mut self, code: u16) -> Result<(), SessionError> {
        self.queue_close(&code.to_be_bytes());
        while self.turn().await? == Turn::Progress {}
        if self.seen.close.is_none() {
            return Err(SessionError::Ended { code: None });
        }
        // The peer has ended already: an error has no consequence.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Writes the queued bytes, then ends the client's direction without a Close. Reading goes on.
    pub async fn half_close(&mut self) -> Result<(), SessionError> {
        let written = poll_fn(|context| match self.poll_send(context) {
            Ok(None) if self.outbound.bytes.is_empty() && self.outbound.flushed => Poll::Ready(Ok(None)),
            Ok(None) => Poll::Pending,
            end => Poll::Ready(end),
        });
        if written.await?.is_some() {
            return Err(self.ended());
        }
        self.phase = Phase::HalfClosed;
        Ok(self.stream.shutdown().await?)
    }

    /// Drives the session to its end and ignores what it receives.
    pub async fn drain(&mut self) -> Result<(), SessionError> {
        while self.turn().await? == Turn::Progress {}
        Ok(())
    }

    /// Changes the reaction to the peer's Pings and Closes from now on.
    pub fn set_manners(&mut self, manners: Manners) {
        self.manners = manners;
    }

    /// Returns the stream below. Bytes that are not yet written are dropped.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Returns the longest time for which a Ping of the peer was unanswered, counted from when it was read. One that is
    /// still unanswered counts too.
    pub fn slowest_answer(&self) -> Duration {
        let owed = self.owed_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.seen.slowest_answer.max(owed)
    }

    /// Writes the queued bytes, then waits for bytes and processes them. Safe to drop at any time.
    pub async fn turn(&mut self) -> Result<Turn, SessionError> {
        poll_fn(|context| self.poll_turn(context)).await
    }

    /// Releases the memory of large messages.
    pub fn shrink(&mut self) {
        self.outbound.bytes.shrink_to_fit();
    }

    /// Returns the error for a session that ended although it was needed.
    pub fn ended(&self) -> SessionError {
        SessionError::Ended { code: self.seen.close.and_then(|close| close.code) }
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Result<Turn, SessionError>> {
        let read = READ.with_borrow_mut(|scratch| {
            if let Some(turn) = self.poll_send(context)? {
                return Poll::Ready(Ok(turn));
            }
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Err(error) => Poll::Ready(ending(error)),
                Ok(()) if buffer.filled().is_empty() => Poll::Ready(Ok(Turn::Ended)),
                Ok(()) => Poll::Ready(self.absorb(buffer.filled_mut()).map(|()| Turn::Progress)),
            }
        });
        let turn = ready!(read)?;
        // Replies are written in the turn that queued them.
        Poll::Ready(match turn {
            Turn::Progress => self.poll_send(context).map(|end| end.unwrap_or(turn)),
            Turn::Ended => Ok(turn),
        })
    }

    /// Writes as much as the stream takes; returns a turn only if the stream has ended.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<Option<Turn>, SessionError> {
        let Outbound { bytes, sent, flushed } = &mut self.outbound;
        while *sent < bytes.len() {
            *flushed = false;
            match Pin::new(&mut self.stream).poll_write(context, &bytes[*sent..]) {
                Poll::Ready(Ok(written)) => *sent += written,
                Poll::Ready(Err(error)) => return ending(error).map(Some),
                Poll::Pending => return Ok(None),
            }
        }
        bytes.clear();
        *sent = 0;
        if !*flushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => {
                    *flushed = true;
                    if let Some(since) = self.owed_since.take() {
                        self.seen.slowest_answer = self.seen.slowest_answer.max(since.elapsed());
                    }
                }
                Poll::Ready(Err(error)) => return ending(error).map(Some),
                Poll::Pending => {}
            }
        }
        Ok(None)
    }

    fn absorb(&mut self, mut input: &mut [u8]) -> Result<(), SessionError> {
        while let Some(part) = self.decoder.next(&mut input)? {
            match part {
                Part::Header(header) if header.mask.is_some() => return Err(SessionError::Masked),
                Part::Header(header) => self.begin(header)?,
                Part::Payload { header, bytes, last } if header.opcode.is_control() => {
                    self.control.extend_from_slice(bytes);
                    if last {
                        self.answer(header.opcode);
                        self.control.clear();
                    }
                }
                Part::Payload { header, bytes, last } => {
                    let expected = self.expected.as_mut().ok_or(SessionError::Unasked)?;
                    let place = expected.start..expected.start + bytes.len();
                    if self.pattern.bytes(place) != bytes {
                        return Err(SessionError::Differs);
                    }
                    expected.start += bytes.len();
                    if last && header.fin {
                        match expected.len() {
                            0 => self.expected = None,
                            missing => return Err(SessionError::Short { missing }),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks the header of a frame: it must be a valid part of the echo.
    fn begin(&mut self, header: Header) -> Result<(), SessionError> {
        match (header.opcode, &self.expected) {
            (kind @ (Opcode::Text | Opcode::Binary), _) if kind != self.pattern.opcode() => Err(SessionError::Differs),
            (Opcode::Text | Opcode::Binary | Opcode::Continuation, None) => Err(SessionError::Unasked),
            (Opcode::Binary | Opcode::Continuation, Some(rest)) if header.length > rest.len() as u64 => {
                Err(SessionError::Long { surplus: header.length - rest.len() as u64 })
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, opcode: Opcode) {
        match opcode {
            Opcode::Ping => {
                self.seen.pings += 1;
                if self.manners == Manners::Answers && self.phase == Phase::Open {
                    let key = fastrand::u32(..).to_ne_bytes();
                    frame::encode_masked(Opcode::Pong, key, &self.control, &mut self.outbound.bytes);
                    self.owed_since.get_or_insert_with(Instant::now);
                }
            }
            Opcode::Pong if self.asked.front().is_some_and(|payload| payload[..] == self.control[..]) => {
                self.asked.pop_front();
                self.seen.pongs += 1;
            }
            Opcode::Pong => self.seen.stray_pongs += 1,
            Opcode::Close => {
                let code = self.control.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
                self.seen.close.get_or_insert(Close { at: Instant::now(), code });
                if self.manners == Manners::Answers {
                    let echo = self.control.clone();
                    self.queue_close(&echo);
                }
            }
            _ => {}
        }
    }

    fn queue_close(&mut self, payload: &[u8]) {
        if self.phase == Phase::Open {
            self.phase = Phase::CloseSent;
            frame::encode_masked(Opcode::Close, fastrand::u32(..).to_ne_bytes(), payload, &mut self.outbound.bytes);
        }
    }
}

/// Returns [`Turn::Ended`] for a connection that the peer cut off, and the error otherwise.
fn ending(error: io::Error) -> Result<Turn, SessionError> {
    match error.kind() {
        // rustls reports a TCP end without close_notify as `UnexpectedEof`.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => Ok(Turn::Ended),
        _ => Err(SessionError::Io(error)),
    }
}

/// The unexpected end of a session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer violated RFC 6455.
    #[error("the proxy broke RFC 6455")]
    Frame(#[from] FrameError),
    /// The server masked a frame.
    #[error("the proxy sent a masked frame")]
    Masked,
    /// The peer ended the session.
    #[error("the session was ended from the other side ({})", code.map_or("no Close code".into(), |code| format!("Close {code}")))]
    Ended {
        /// The code of its Close, if there was one.
        code: Option<u16>,
    },
    /// Data arrived without a message in progress.
    #[error("data came back although no message was under way")]
    Unasked,
    /// The echo differs from the message.
    #[error("an echo differs from the message that was sent")]
    Differs,
    /// The echo is too short.
    #[error("an echo ended {missing} bytes too early")]
    Short {
        /// Missing bytes.
        missing: usize,
    },
    /// The echo is too long.
    #[error("an echo is {surplus} bytes too long")]
    Long {
        /// Surplus bytes.
        surplus: u64,
    },
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
