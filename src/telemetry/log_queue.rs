//! The queue of log lines and the thread that writes them. Workers only append to the queue: while the reader of the
//! log is stopped or the disk is full, sessions are served and probed as usual, and lines are lost instead.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::Chain;

/// The maximum size of queued lines in bytes: the last lines of about 20,000 sessions.
const CAPACITY: usize = 16 * 1024 * 1024;

/// The maximum size in bytes of the buffer that is reused; a larger one is freed.
const KEPT: usize = 64 * 1024;

/// The time limit for writing the last lines at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before another attempt, if the log is non-blocking and full.
const RETRY: Duration = Duration::from_millis(20);

/// A bounded queue of lines for one log.
#[derive(Clone, Debug)]
pub(super) struct LogQueue(Arc<Shared>);

/// A guard that waits on drop until every line is written, for one second at most.
#[derive(Debug)]
#[must_use = "lines that are still queued are lost without it"]
pub struct Flush(LogQueue);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when lines are queued, and when they are written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, in order.
    queued: Vec<u8>,
    /// The number of bytes that the thread is writing.
    in_flight: usize,
    /// The number of lines lost since the last report of a loss.
    lost: u64,
    /// The error of the last failed write, if it lost one of these lines.
    error: Option<io::Error>,
}

impl LogQueue {
    /// Starts the thread that writes to `log`. Fails when the thread cannot be created.
    pub(super) fn start(log: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let queue = Self(Arc::default());
        let writer = queue.clone();
        // Not joined: a write to a log that is never read does not return, and must not delay the exit.
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(log))?;
        let flush = Flush(queue.clone());
        Ok((queue, flush))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.queued.len() + state.in_flight + line.len() > CAPACITY {
            state.lost += 1;
            return;
        }
        state.queued.extend_from_slice(line);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Writes queued lines for as long as the process runs.
    fn run(&self, log: impl Write) {
        let mut log = Log { log, torn: false };
        let mut lines = Vec::new();
        loop {
            self.take(&mut lines);
            let (written, result) = log.write(&lines);
            let lost = match result {
                Ok(()) => self.taken_loss(),
                Err(error) => {
                    self.lose(&lines[written..], error);
                    None
                }
            };
            lines.clear();
            lines.shrink_to(KEPT);
            // Reported as a line of the same log, once it accepts lines again.
            if let Some((lines, error)) = lost {
                report(lines, error);
            }
        }
    }

    /// Waits for lines and swaps them with `written`, which is an empty buffer.
    fn take(&self, written: &mut Vec<u8>) {
        let mut state = self.lock();
        state.in_flight = 0;
        self.0.changed.notify_all();
        while state.queued.is_empty() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(written, &mut state.queued);
        state.in_flight = written.len();
    }

    fn lose(&self, lines: &[u8], error: io::Error) {
        let mut state = self.lock();
        state.lost += memchr::memchr_iter(b'\n', lines).count() as u64;
        state.error = Some(error);
    }

    /// Takes the loss that has not been reported yet: lines and the last error.
    fn taken_loss(&self) -> Option<(u64, Option<io::Error>)> {
        let mut state = self.lock();
        (state.lost > 0).then(|| (mem::take(&mut state.lost), state.error.take()))
    }
}

/// A log and the state of its last line.
struct Log<W> {
    log: W,
    /// Set if the last line lacks its end.
    torn: bool,
}

impl<W: Write> Log<W> {
    /// Writes `lines` up to the first error. Returns the number of bytes written.
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            // Separates the next line from one that a full disk has cut.
            if let (0, Err(error)) = self.write_bytes(b"\n") {
                return (0, Err(error));
            }
            self.torn = false;
        }
        let (written, result) = self.write_bytes(lines);
        self.torn = written > 0 && lines[written - 1] != b'\n';
        (written, result)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.log.write(&bytes[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

fn report(lines: u64, error: Option<io::Error>) {
    match error {
        Some(error) => {
            tracing::warn!(lines, error = %Chain(&error), mend = "free space where standard error is written", "log lines lost");
        }
        None => {
            let error = "the reader of standard error was too slow";
            tracing::warn!(lines, error, mend = "use a faster reader, or raise log.level", "log lines lost");
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let state = self.0.lock();
        let is_pending = |state: &mut State| state.in_flight > 0 || !state.queued.is_empty();
        // After the timeout the remaining lines are lost, as in a crash.
        drop(self.0.0.changed.wait_timeout_while(state, FLUSH_TIMEOUT, is_pending));
    }
}

impl Write for &LogQueue {
    /// Queues `line`, one whole event, or counts it as lost; never fails and never waits for the log.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests;
