//! The record of one endpoint: the frames that it sent and received, their times, and the end of its connection.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::frame::{CLOSE, Frame};

/// The end of a connection, as the endpoint saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN, over TLS after a `close_notify`; `END_STREAM` over HTTP/2.
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
    /// The time at which its first byte was passed to the socket.
    pub started: Instant,
    /// The time at which the socket had taken its last byte.
    pub done: Option<Instant>,
}

/// The answer to a Ping or to a heartbeat message.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The time at which the question was received.
    pub asked: Instant,
    /// The time at which the socket had taken the answer.
    pub done: Option<Instant>,
}

/// All observations of one endpoint on its session.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The start of the run, from which times are printed.
    pub start: Instant,
    /// The time at which the upgrade was complete.
    pub opened: Option<Instant>,
    /// The response that refused the upgrade.
    pub refused: Option<String>,
    /// True if permessage-deflate was agreed.
    pub deflate: bool,
    /// Complete frames, with the time of their last byte.
    pub received: Vec<(Frame, Instant)>,
    /// True if a frame has begun to arrive and is not complete.
    pub within_frame: bool,
    /// Bytes received.
    pub bytes: u64,
    /// The time at which the last byte was received.
    pub last_read: Option<Instant>,
    /// The rule that a received frame broke, as its parser found.
    pub violation: Option<&'static str>,
    /// Frames sent.
    pub sent: Vec<Sent>,
    /// The time at which the socket last took bytes.
    pub last_write: Option<Instant>,
    /// Answers, in the order of the questions.
    pub answers: Vec<Answer>,
    /// The time at which the endpoint died by plan.
    pub died: Option<Instant>,
    /// The time at which it ended its direction.
    pub finished: Option<Instant>,
    /// The time at which it reset the connection.
    pub reset: Option<Instant>,
    /// The end of the connection, and its time.
    pub end: Option<(End, Instant)>,
    /// The time at which the peer's end reached the kernel, read or not.
    pub hung_up: Option<Instant>,
}

impl Trace {
    /// Returns an empty record.
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

    /// Returns the codes and reasons of received Closes.
    pub fn closes(&self) -> Vec<(u16, String)> {
        self.received.iter().filter_map(|(frame, _)| frame.close()).collect()
    }

    /// Returns the first Close that was sent.
    pub fn closed(&self) -> Option<(u16, String)> {
        self.sent.iter().filter(|sent| sent.done.is_some()).find_map(|sent| sent.frame.close())
    }

    /// Returns the time of the first sign of the end: a Close, FIN or RST.
    pub fn first_end(&self) -> Option<Instant> {
        let close = self.received.iter().find(|(frame, _)| frame.opcode() == CLOSE).map(|(_, at)| *at);
        [close, self.end.map(|(_, at)| at), self.hung_up].into_iter().flatten().min()
    }

    /// Returns the time at which the peer had ended the connection.
    pub fn gone(&self) -> Option<Instant> {
        [self.end.map(|(_, at)| at), self.hung_up].into_iter().flatten().min()
    }

    /// Returns the milliseconds from the start of the run.
    pub fn ms(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.start).as_millis()
    }
}

/// A record that is being written.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Trace>>);

impl Shared {
    /// Returns an empty record.
    pub fn new(start: Instant) -> Self {
        Self(Arc::new(Mutex::new(Trace::new(start))))
    }

    /// Locks the record.
    pub fn lock(&self) -> MutexGuard<'_, Trace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a copy.
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
