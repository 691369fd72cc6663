//! The program under test, run to its end.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PULSEGATE;

/// Longer than any of this takes on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a run has come to.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    /// That it ended well and had nothing to complain about.
    #[track_caller]
    pub fn succeeded(&self) -> &Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:#?}");
        self
    }

    /// That it failed with `code`, and with an error that has all of `words` in it.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

/// The program with `arguments`; in a folder without a configuration, and with no variable that speaks to it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PULSEGATE);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command
}

/// Runs it with `arguments` to its end.
pub async fn run(arguments: &[&str]) -> Run {
    end(command(arguments).spawn().expect("the program starts")).await
}

/// Runs `command` to its end.
pub async fn finish(mut command: Command) -> Run {
    end(command.spawn().expect("the program starts")).await
}

/// Waits for the end of a running one.
pub async fn end(child: Child) -> Run {
    let Output { status, stdout, stderr } =
        within("the end of the program", child.wait_with_output()).await.expect("waited for");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// The output of `work`, which has to come in time.
pub async fn within<F: Future>(what: &str, work: F) -> F::Output {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: nothing within {DEADLINE:?}"))
}
