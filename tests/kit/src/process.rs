//! Child processes: output lines, signals, descendants, exit.

use std::collections::BTreeSet;
use std::fs;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::wait::{TIMEOUT, within};

/// A running program whose output is kept line by line. It is killed on drop, with all its descendants.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
    readers: [JoinHandle<()>; 2],
}

/// An output stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The result of a program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The lines of standard output.
    pub out: String,
    /// The lines of standard error.
    pub err: String,
}

impl Finished {
    /// Fails unless the exit code is 0 and standard error is empty.
    #[track_caller]
    pub fn succeeded(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:#?}");
        self
    }

    /// Fails unless the exit code is `code` and standard error contains all of `words`.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

/// One line of output.
#[derive(Clone, Debug)]
pub struct OutputLine {
    /// The stream to which it was written.
    pub stream: OutputStream,
    /// The text as it was written.
    pub text: String,
    /// The line as JSON; null when it is none.
    pub json: Value,
    /// The time at which it was read.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<OutputLine>>,
    more: Notify,
}

impl Output {
    fn lines(&self) -> MutexGuard<'_, Vec<OutputLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `command` and reads both of its output streams.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command, Stdio::piped())
    }

    /// As [`Self::start`], with an empty standard input.
    pub fn start_without_input(name: &str, command: &mut Command) -> Self {
        Self::spawn(name, command, Stdio::null())
    }

    /// Runs `command` with an empty standard input to its end; fails after [`TIMEOUT`].
    pub async fn run(name: &str, command: &mut Command) -> Finished {
        Self::start_without_input(name, command).finish().await
    }

    fn spawn(name: &str, command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name} does not start: {error}; ./tests/install installs what the tests need"),
        };
        let output = Arc::<Output>::default();
        let (stdout, stderr) = (child.stdout.take().expect("stdout is piped"), child.stderr.take());
        let readers = [
            tokio::spawn(read(stdout, OutputStream::Stdout, Arc::clone(&output))),
            tokio::spawn(read(stderr.expect("stderr is piped"), OutputStream::Stderr, Arc::clone(&output))),
        ];
        let id = child.id().expect("a child that was just started has an id");
        let pid = Pid::from_raw(id.cast_signed()).expect("no process has the id 0");
        Self { name: name.into(), pid, stdin: child.stdin.take(), child, output, readers }
    }

    /// Waits until it has ended and everything that it wrote is read; fails after [`TIMEOUT`].
    pub async fn ended(&mut self) -> ExitStatus {
        let status = self.exit_within(TIMEOUT).await;
        for reader in &mut self.readers {
            within(TIMEOUT, "the end of its output", reader).await.expect("the reader does not panic");
        }
        status
    }

    /// As [`Self::ended`]; returns the exit code and all output.
    pub async fn finish(mut self) -> Finished {
        let status = self.ended().await;
        let (out, err) = (self.text_of(OutputStream::Stdout), self.text_of(OutputStream::Stderr));
        Finished { code: status.code(), out, err }
    }

    /// Returns all lines so far of one stream.
    pub fn text_of(&self, stream: OutputStream) -> String {
        let lines = self.output.lines();
        lines.iter().filter(|line| line.stream == stream).fold(String::new(), |text, line| text + &line.text + "\n")
    }

    /// Returns the first line that `matches`, already written or written within [`TIMEOUT`].
    pub async fn line(&self, what: &str, matches: impl Fn(&OutputLine) -> bool) -> OutputLine {
        self.line_within(TIMEOUT, what, matches).await
    }

    /// Returns the first line that `matches`, already written or written within `limit`; a failure shows every line.
    pub async fn line_within(&self, limit: Duration, what: &str, matches: impl Fn(&OutputLine) -> bool) -> OutputLine {
        self.search(limit, 0, what, matches).await.1
    }

    /// As [`Self::line`], behind the first `skipped` lines; returns also the number of lines up to this one.
    pub async fn line_after(
        &self,
        skipped: usize,
        what: &str,
        matches: impl Fn(&OutputLine) -> bool,
    ) -> (usize, OutputLine) {
        self.search(TIMEOUT, skipped, what, matches).await
    }

    async fn search(
        &self,
        limit: Duration,
        skipped: usize,
        what: &str,
        matches: impl Fn(&OutputLine) -> bool,
    ) -> (usize, OutputLine) {
        let search = async {
            loop {
                let more = self.output.more.notified();
                let found = self
                    .output
                    .lines()
                    .iter()
                    .enumerate()
                    .skip(skipped)
                    .find(|(_, line)| matches(line))
                    .map(|(index, line)| (index + 1, line.clone()));
                if let Some(found) = found {
                    return found;
                }
                more.await;
            }
        };
        let found = tokio::time::timeout(limit, search).await;
        found.unwrap_or_else(|_| {
            panic!("{}: no line within {limit:?}: {what}; it wrote:\n{}", self.name, self.transcript())
        })
    }

    /// Returns the first JSON event of this kind that `matches`.
    pub async fn event(&self, event: &str, matches: impl Fn(&Value) -> bool) -> Value {
        self.event_line(event, matches).await.json
    }

    /// As [`Self::event`], with the text of the line and the time at which it was read.
    pub async fn event_line(&self, event: &str, matches: impl Fn(&Value) -> bool) -> OutputLine {
        self.line(&format!("event {event:?}"), |line| line.json["event"] == event && matches(&line.json)).await
    }

    /// Returns all lines so far.
    pub fn lines(&self) -> Vec<OutputLine> {
        self.output.lines().clone()
    }

    /// Returns the JSON events of this kind so far.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.lines().into_iter().map(|line| line.json).filter(|json| json["event"] == event).collect()
    }

    /// Returns the number of lines so far that `matches` accepts.
    pub fn count(&self, matches: impl Fn(&OutputLine) -> bool) -> usize {
        self.output.lines().iter().filter(|line| matches(line)).count()
    }

    /// Returns the last 100 lines of its output, for the message of a failure.
    pub fn transcript(&self) -> String {
        const SHOWN: usize = 100;
        let lines = self.output.lines();
        let (left_out, shown) = lines.split_at(lines.len().saturating_sub(SHOWN));
        let note = if left_out.is_empty() { String::new() } else { format!("({} lines before)\n", left_out.len()) };
        shown.iter().fold(note, |text, line| text + &line.text + "\n")
    }

    /// Writes `text` to its standard input and closes it.
    pub async fn write_input(&mut self, text: &str) {
        let mut stdin = self.stdin.take().expect("stdin is piped");
        stdin.write_all(text.as_bytes()).await.expect("the process reads its input");
    }

    /// Writes one line to its standard input.
    pub async fn write_line(&mut self, line: &Value) {
        let stdin = self.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the process reads its input");
        stdin.flush().await.expect("the process reads its input");
    }

    /// Stops it with SIGSTOP: its sockets stay open and nothing answers.
    pub fn stop(&self) {
        send(self.pid, Signal::STOP);
    }

    /// Continues it with SIGCONT after [`Self::stop`].
    pub fn resume(&self) {
        send(self.pid, Signal::CONT);
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        send(self.pid, Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        send(self.pid, Signal::INT);
    }

    /// Sends SIGHUP, which makes the proxy reload its configuration.
    pub fn hang_up(&self) {
        send(self.pid, Signal::HUP);
    }

    /// Ends it with SIGKILL.
    pub async fn kill(&mut self) {
        send(self.pid, Signal::KILL);
        self.exit_within(TIMEOUT).await;
    }

    /// Waits for its exit; fails after `limit`.
    pub async fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        within(limit, &format!("{} exits", self.name), self.child.wait()).await.expect("the child can be waited for")
    }

    /// Returns the number of its TCP connections in any state, listeners excluded.
    pub fn connections(&self) -> usize {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())) else { return 0 };
        let mut sockets: BTreeSet<String> = descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        // Columns of proc(5): in tcp the state is the fourth and the inode the tenth, in unix the inode the seventh.
        for (table, inode, state) in [("tcp", 9, Some("0A")), ("tcp6", 9, Some("0A")), ("unix", 6, None)] {
            for line in fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default().lines() {
                let columns: Vec<&str> = line.split_whitespace().collect();
                if let Some(inode) = columns.get(inode).filter(|_| state.is_none_or(|state| columns[3] == state)) {
                    sockets.remove(*inode);
                }
            }
        }
        sockets.len()
    }

    /// Returns its `/proc/[pid]/status` (proc(5)).
    pub fn status(&self) -> String {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        fs::read_to_string(path).expect("the process runs")
    }

    /// Returns all its descendants whose command line `matches`.
    pub fn descendants(&self, matches: impl Fn(&str) -> bool) -> Vec<Pid> {
        descendants(self.pid).into_iter().filter(|pid| matches(&command_line(*pid))).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} had written:\n{}", self.name, self.transcript());
        }
        if self.child.id().is_some() {
            let family = descendants(self.pid);
            for pid in family.into_iter().chain([self.pid]) {
                // A descendant may have ended in the meantime.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Sends `signal` to a process that must exist.
pub fn send(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal) {
        panic!("signal {signal:?} to process {pid:?}: {error}");
    }
}

async fn read(source: impl AsyncRead + Unpin, stream: OutputStream, output: Arc<Output>) {
    let mut lines = BufReader::new(source).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let json = serde_json::from_str(&text).unwrap_or_default();
        output.lines().push(OutputLine { stream, text, json, at: Instant::now() });
        output.more.notify_waiters();
    }
}

/// Returns the children, grandchildren and so on of `root`, nearest first.
fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = processes().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&above) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

fn processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in parentheses is arbitrary; the state and the parent follow the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

fn command_line(pid: Pid) -> String {
    let raw = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}
