//! A program under test for tests without a runtime of their own.

use std::process::{Command, ExitStatus};

use pulsegate_test_kit::process::Process;
use tokio::runtime::Runtime;

/// A running program; it is killed on drop.
pub(crate) struct Program {
    process: Process,
    runtime: Runtime,
    /// The number of lines up to the last one that was waited for.
    seen: usize,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let name = format!("{command:?}");
        let command = std::mem::replace(command, Command::new(""));
        let process = {
            let _context = runtime.enter();
            Process::start_without_input(&name, &mut command.into())
        };
        Self { process, runtime, seen: 0 }
    }

    /// Returns the next line that contains `part`, on either stream.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let search = self.process.line_after(self.seen, part, |line| line.text.contains(part));
        let (seen, line) = self.runtime.block_on(search);
        self.seen = seen;
        line.text
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        match name {
            "INT" => self.process.interrupt(),
            "TERM" => self.process.terminate(),
            "STOP" => self.process.stop(),
            "CONT" => self.process.resume(),
            other => panic!("no signal {other}"),
        }
    }

    /// Waits for the end of the program and of its output.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.runtime.block_on(self.process.ended())
    }

    /// Returns everything that it has printed.
    pub(crate) fn transcript(&self) -> String {
        self.process.transcript()
    }
}
