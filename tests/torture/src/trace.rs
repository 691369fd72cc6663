//! The record of one endpoint: what it sent and received, when, and how its connection ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::frame::{CLOSE, Frame};

/// The end of a connection, as the endpoint saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN, over TLS behind a `close_notify`; `END_STREAM` over HTTP/2.
    Fin,
    /// A FIN in the middle of TLS.
    Truncated,
    /// A reset.
    Reset,
}

/// A frame that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The frame.
    pub frame: Frame,
    /// When its first byte was handed to the socket.
    pub started: Instant,
    /// When the socket had taken its last byte.
    pub done: Option<Instant>,
}

/// The answer to a Ping or to a heartbeat message.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When the question was received.
    pub asked: Instant,
    /// When the socket had taken the answer.
    pub done: Option<Instant>,
}

/// Everything that one endpoint knows of its session.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The start of the run: times are shown from here.
    pub start: Instant,
    /// When the upgrade was complete.
    pub opened: Option<Instant>,
    /// The answer that refused the upgrade.
    pub refused: Option<String>,
    /// Whether permessage-deflate was agreed.
    pub deflate: bool,
    /// Complete frames, with the time of their last byte.
    pub received: Vec<(Frame, Instant)>,
    /// Whether a frame has begun to come and is not complete.
    pub within_frame: bool,
    /// Bytes received.
    pub bytes: u64,
    /// When the last byte was received.
    pub last_read: Option<Instant>,
    /// The longest time for which bytes of a stopped or paced endpoint may have waited is its own doing; this is the
    /// fault that its parser found.
    pub violation: Option<&'static str>,
    /// Frames sent.
    pub sent: Vec<Sent>,
    /// When the socket last took bytes.
    pub last_write: Option<Instant>,
    /// Answers, in the order of the questions.
    pub answers: Vec<Answer>,
    /// When the endpoint died by plan.
    pub died: Option<Instant>,
    /// When it ended its direction.
    pub finished: Option<Instant>,
    /// When it reset the connection.
    pub reset: Option<Instant>,
    /// How the connection ended, and when.
    pub end: Option<(End, Instant)>,
    /// When the peer's end reached the kernel, read or not.
    pub hung_up: Option<Instant>,
}

impl Trace {
    /// An empty record.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            opened: None,
            refused: None,
            deflate: false,
            received: Vec::new(),
            within_frame: false,
            bytes: 0,
            last_read: None,
            violation: None,
            sent: Vec::new(),
            last_write: None,
            answers: Vec::new(),
            died: None,
            finished: None,
            reset: None,
            end: None,
            hung_up: None,
        }
    }

    /// The codes and reasons of received Closes.
    pub fn closes(&self) -> Vec<(u16, String)> {
        self.received.iter().filter_map(|(frame, _)| frame.close()).collect()
    }

    /// The first Close that was sent.
    pub fn closed(&self) -> Option<(u16, String)> {
        self.sent.iter().filter(|sent| sent.done.is_some()).find_map(|sent| sent.frame.close())
    }

    /// When the first sign of the end came: a Close, FIN or RST.
    pub fn first_end(&self) -> Option<Instant> {
        let close = self.received.iter().find(|(frame, _)| frame.opcode() == CLOSE).map(|(_, at)| *at);
        [close, self.end.map(|(_, at)| at), self.hung_up].into_iter().flatten().min()
    }

    /// When the peer had ended the connection.
    pub fn gone(&self) -> Option<Instant> {
        [self.end.map(|(_, at)| at), self.hung_up].into_iter().flatten().min()
    }

    /// Milliseconds from the start of the run.
    pub fn ms(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.start).as_millis()
    }
}

/// A record that is being written.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Trace>>);

impl Shared {
    /// An empty record.
    pub fn new(start: Instant) -> Self {
        Self(Arc::new(Mutex::new(Trace::new(start))))
    }

    /// The record.
    pub fn lock(&self) -> MutexGuard<'_, Trace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy.
    pub fn snapshot(&self) -> Trace {
        self.lock().clone()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |instant: Option<Instant>| instant.map_or("-".to_owned(), |instant| format!("+{}", self.ms(instant)));
        write!(f, "opened {}; ", at(self.opened))?;
        if let Some(refused) = &self.refused {
            write!(f, "refused {refused:?}; ")?;
        }
        write!(f, "sent {}: ", self.sent.len())?;
        let sent: Vec<_> = self
            .sent
            .iter()
            .map(|sent| {
                let late = if sent.done.is_none() { " (not all)" } else { "" };
                format!("+{} {:?}{late}", self.ms(sent.started), sent.frame)
            })
            .collect();
        shorten(f, &sent)?;
        write!(f, " | received {} ({} bytes): ", self.received.len(), self.bytes)?;
        let received: Vec<_> = self.received.iter().map(|(frame, at)| format!("+{} {frame:?}", self.ms(*at))).collect();
        shorten(f, &received)?;
        if self.within_frame {
            write!(f, "; an incomplete frame")?;
        }
        if let Some(violation) = self.violation {
            write!(f, "; {violation}")?;
        }
        write!(f, " | died {}, FIN sent {}, reset {}", at(self.died), at(self.finished), at(self.reset))?;
        match self.end {
            Some((end, when)) => write!(f, ", {end:?} at +{}", self.ms(when))?,
            None => write!(f, ", no end seen")?,
        }
        write!(f, ", peer's end in the kernel {}", at(self.hung_up))
    }
}

fn shorten(f: &mut fmt::Formatter<'_>, items: &[String]) -> fmt::Result {
    const SHOWN: usize = 12;
    if items.len() <= 2 * SHOWN {
        return f.write_str(&items.join(", "));
    }
    let (first, last) = (&items[..SHOWN], &items[items.len() - SHOWN..]);
    write!(f, "{}, …, {}", first.join(", "), last.join(", "))
}
