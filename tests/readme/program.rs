//! A program under test: every line that it prints, on either stream, in the order of arrival.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any of this takes on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running program; dropping it kills it.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        forward(child.stdout.take().expect("piped"), sender.clone());
        forward(child.stderr.take().expect("piped"), sender);
        Self { child, lines, seen: String::new() }
    }

    /// The next line that contains `part`.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen = format!("{}{line}\n", self.seen);
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {part:?} ({error}); it printed:\n{}", self.seen),
            }
        }
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "no signal {name}");
    }

    /// Waits for the end of both its streams, and of itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen = format!("{}{line}\n", self.seen),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("it can be waited for"),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it printed:\n{}", self.seen),
            }
        }
    }

    /// What it has printed, as far as it was waited for.
    pub(crate) fn transcript(&self) -> &str {
        &self.seen
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has ended, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
