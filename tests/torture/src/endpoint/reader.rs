//! The reader of an endpoint: it records every frame and passes on those that need an answer.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::{ASKED, Event};
use crate::frame::{CLOSE, PING, Parser, TEXT};
use crate::trace::{End, Shared};

/// The reading half of an endpoint.
pub(super) struct Reader {
    pub(super) trace: Shared,
    pub(super) parser: Parser,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) pace: watch::Receiver<Option<u64>>,
    pub(super) mute: watch::Receiver<bool>,
    pub(super) newest_only: bool,
    pub(super) answers: bool,
}

impl Reader {
    /// Reads at the set pace until the connection ends.
    pub(super) async fn run<S: AsyncRead>(mut self, mut input: ReadHalf<S>, early: Vec<u8>) {
        self.take(&early);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Some(rate) = *self.pace.borrow_and_update() else {
                if self.pace.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let most = usize::try_from(rate / 50).unwrap_or(usize::MAX).clamp(1, buffer.len());
            let started = Instant::now();
            let read = tokio::select! {
                read = input.read(&mut buffer[..most]) => read,
                changed = self.pace.changed() => {
                    if changed.is_err() { std::future::pending::<()>().await }
                    continue;
                }
            };
            let end = match read {
                Ok(0) => End::Fin,
                Ok(count) => {
                    self.take(&buffer[..count]);
                    if rate != u64::MAX {
                        let due = Duration::from_secs_f64(count as f64 / rate as f64);
                        sleep(due.saturating_sub(started.elapsed().min(due / 4))).await;
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => End::Truncated,
                Err(_) => End::Reset,
            };
            self.trace.lock().end = Some((end, Instant::now()));
            let _ = self.events.send(Event::Eof);
            return;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut trace = self.trace.lock();
        trace.bytes += bytes.len() as u64;
        if !bytes.is_empty() {
            trace.last_read = Some(Instant::now());
        }
        if trace.violation.is_some() {
            return;
        }
        let first = trace.received.len();
        let added = self.parser.add(bytes, &mut trace.received);
        trace.within_frame = self.parser.is_within_frame();
        if !*self.mute.borrow() {
            let fresh = &trace.received[first..];
            let newest = fresh.iter().rposition(|(frame, _)| frame.opcode() == PING);
            for (index, (frame, at)) in fresh.iter().enumerate() {
                let event = match frame.opcode() {
                    PING if self.newest_only && newest != Some(index) => continue,
                    PING => Event::Ping(frame.payload.clone(), *at),
                    TEXT if self.answers && frame.payload == ASKED.as_bytes() => Event::Asked(*at),
                    CLOSE => Event::Close(frame.payload.clone()),
                    _ => continue,
                };
                let _ = self.events.send(event);
            }
        }
        if let Err(violation) = added {
            trace.violation = Some(violation);
            let _ = self.events.send(Event::Violation);
        }
    }
}
