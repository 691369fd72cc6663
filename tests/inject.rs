//! `pulsegate inject`: manifests as tools and people write them, judged by a program without its code.

mod config;
mod manifests;
mod refusals;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::PULSEGATE;

/// The result of one run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    /// Fails unless the exit code is 0; returns standard output.
    #[track_caller]
    fn text(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        String::from_utf8(self.out).expect("UTF-8")
    }
}

/// Runs `pulsegate inject` with `input` on standard input, for at most a minute.
fn inject<'a>(arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Ran {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", PULSEGATE, "inject"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout(1) runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    // A program that refuses its arguments closes the pipe unread.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    Ran { code: output.status.code(), out: output.stdout, err: String::from_utf8(output.stderr).expect("UTF-8") }
}

/// Returns a path below this folder.
fn place(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(relative)
}
