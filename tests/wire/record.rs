//! The record of one endpoint: the received frames with their times, and the end of the connection.

use std::fmt;
use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};

/// The end of a connection, as its peer saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A FIN.
    Fin,
    /// A RST, or another error of the socket.
    Reset(String),
    /// A violation of TLS.
    Tls(String),
}

/// Everything that one endpoint has received since its upgrade.
#[derive(Clone)]
pub(crate) struct Record {
    /// The time of the upgrade.
    pub(crate) since: Instant,
    /// The frames, each with the arrival time of its last byte. Empty data frames are counted only.
    pub(crate) frames: Vec<(Frame, Instant)>,
    /// The number of empty data frames.
    pub(crate) empty: usize,
    /// The number of bytes.
    pub(crate) bytes: usize,
    /// The first bytes, as they arrived.
    pub(crate) start: Vec<u8>,
    /// The bytes of the frame that is not complete yet.
    pub(crate) partial: Vec<u8>,
    /// The arrival time of the last data frame.
    pub(crate) last_data_at: Option<Instant>,
    /// The arrival time of the `close_notify` of TLS.
    pub(crate) notified_at: Option<Instant>,
    /// The end of the connection, and its time.
    pub(crate) end: Option<(End, Instant)>,
}

/// The number of first bytes that are kept.
const START: usize = 128 * 1024;

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            frames: Vec::new(),
            empty: 0,
            bytes: 0,
            start: Vec::new(),
            partial: Vec::new(),
            last_data_at: None,
            notified_at: None,
            end: None,
        }
    }

    /// Adds received bytes, and returns the index of the first frame that they completed.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> usize {
        let (first, now) = (self.frames.len(), Instant::now());
        self.bytes += bytes.len();
        self.start.extend(bytes.iter().take(START.saturating_sub(self.start.len())));
        self.partial.extend(bytes);
        let mut parsed = 0;
        while let Some((frame, size)) = Frame::parse(&self.partial[parsed..]) {
            parsed += size;
            if frame.opcode() < CLOSE {
                self.last_data_at = Some(now);
            }
            if frame.payload.is_empty() && frame.opcode() < CLOSE {
                self.empty += 1;
            } else {
                self.frames.push((frame, now));
            }
        }
        self.partial.drain(..parsed);
        first
    }

    /// Returns the payloads of the data frames.
    pub(crate) fn messages(&self) -> Vec<&[u8]> {
        self.frames.iter().filter(|(frame, _)| frame.opcode() < CLOSE).map(|(frame, _)| &*frame.payload).collect()
    }

    /// Returns the payloads of the text frames.
    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = self.frames.iter().filter(|(frame, _)| frame.opcode() == TEXT);
        texts.map(|(frame, _)| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
    }

    /// Returns the codes and reasons of all Closes.
    pub(crate) fn closes(&self) -> Vec<(u16, String)> {
        self.frames.iter().filter_map(|(frame, _)| frame.close()).collect()
    }

    /// Returns the codes of all Closes.
    pub(crate) fn codes(&self) -> Vec<u16> {
        self.closes().into_iter().map(|(code, _)| code).collect()
    }

    /// Returns the payloads of the frames with this opcode.
    pub(crate) fn payloads(&self, opcode: u8) -> Vec<&[u8]> {
        self.frames.iter().filter(|(frame, _)| frame.opcode() == opcode).map(|(frame, _)| &*frame.payload).collect()
    }

    /// Returns the arrival time of the first Close.
    pub(crate) fn closed_at(&self) -> Option<Instant> {
        self.frames.iter().find(|(frame, _)| frame.opcode() == CLOSE).map(|(_, at)| *at)
    }

    /// Returns whether the end was a FIN.
    pub(crate) fn ended_with_fin(&self) -> bool {
        matches!(self.end, Some((End::Fin, _)))
    }

    /// Returns the time from `start` to the end of the connection.
    pub(crate) fn ended_after(&self, start: Instant) -> Duration {
        let Some((_, at)) = self.end else { panic!("the connection has not ended: {self:?}") };
        at.saturating_duration_since(start)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let after = |at: &Instant| at.saturating_duration_since(self.since).as_secs_f64();
        write!(f, "{} bytes, {} frames, {} empty ones", self.bytes, self.frames.len(), self.empty)?;
        let hidden = self.frames.len().saturating_sub(2 * SHOWN);
        for (index, (frame, at)) in self.frames.iter().enumerate() {
            if hidden > 0 && index == SHOWN {
                write!(f, "; …")?;
            }
            if hidden > 0 && (SHOWN..SHOWN + hidden).contains(&index) {
                continue;
            }
            let kind = match frame.opcode() {
                CONTINUATION => "continuation".into(),
                TEXT => "text".into(),
                BINARY => "binary".into(),
                CLOSE => format!("Close {:?}", frame.close()),
                PING => "Ping".into(),
                PONG => "Pong".into(),
                other => format!("opcode {other}"),
            };
            let payload = String::from_utf8_lossy(&frame.payload[..frame.payload.len().min(20)]);
            write!(f, "; +{:.3} {kind} {}B {payload:?}", after(at), frame.payload.len())?;
        }
        if !self.partial.is_empty() {
            write!(f, "; {} bytes of an incomplete frame", self.partial.len())?;
        }
        if let Some(at) = &self.notified_at {
            write!(f, "; close_notify at +{:.3}", after(at))?;
        }
        match &self.end {
            Some((end, at)) => write!(f, "; {end:?} at +{:.3}", after(at)),
            None => write!(f, "; open at +{:.3}", after(&Instant::now())),
        }
    }
}
