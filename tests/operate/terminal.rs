//! A terminal of util-linux' script(1), for commands whose behaviour depends on one.

use std::path::Path;
use std::process::Stdio;

use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::PULSEGATE;

/// The program on a terminal of its own.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: String,
}

impl Terminal {
    /// Starts the program with `arguments` on a terminal of 60 columns and 16 rows.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`start`](Self::start), with these variables in the environment.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &Path)]) -> Self {
        let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let program = format!("'{}' {}", PULSEGATE, quoted.join(" "));
        // The settings of the terminal afterwards are part of the result. A Ctrl-C reaches the shell, too, which would
        // end before it has printed that.
        let line = format!(
            "trap : INT; stty cols 60 rows 16; before=$(stty -g); {program}; echo \"exit $?\"; [ \"$before\" = \"$(stty -g)\" ] && echo restored"
        );
        Self::run_with(&line, variables)
    }

    /// Starts a command line of a shell.
    pub fn run(line: &str) -> Self {
        Self::run_with(line, &[])
    }

    fn run_with(line: &str, variables: &[(&str, &Path)]) -> Self {
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", line, "/dev/null"]).env("SHELL", "/bin/sh").kill_on_drop(true);
        command.envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("no script(1) of util-linux: {error}"));
        let keys = child.stdin.take().expect("stdin is piped");
        Self { child, keys, shown: String::new() }
    }

    /// Waits until `text` has been shown since the last wait; returns everything up to its end.
    pub async fn shows(&mut self, text: &str) -> String {
        let out = self.child.stdout.as_mut().expect("stdout is piped");
        let waiting = async {
            let mut buffer = [0; 4096];
            loop {
                if let Some(at) = self.shown.find(text) {
                    let rest = self.shown.split_off(at + text.len());
                    return Ok(std::mem::replace(&mut self.shown, rest));
                }
                match out.read(&mut buffer).await {
                    Ok(length) if length > 0 => self.shown.push_str(&String::from_utf8_lossy(&buffer[..length])),
                    _ => return Err(()),
                }
            }
        };
        let ended = wait_for(&format!("{text:?} on the terminal"), waiting).await;
        ended.unwrap_or_else(|()| panic!("the terminal ended without {text:?}: {:?}", self.shown))
    }

    /// Types `bytes`.
    pub async fn types(&mut self, bytes: &[u8]) {
        self.keys.write_all(bytes).await.expect("typed");
        self.keys.flush().await.expect("typed");
    }
}
