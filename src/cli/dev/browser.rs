//! `--open`: the page in the user's browser.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::{io, thread};

use crate::config::UserEnvironment;
use crate::telemetry::Chain;

/// The program that opens a URL in the browser of the user's choice.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Opens `url`; `report` gets the sentence about a failure, possibly later and on another thread. A browser that this
/// starts lives on: it is the user's.
pub(super) fn open(url: &str, user: &UserEnvironment, report: impl FnOnce(String) + Send + 'static) {
    let by_hand = format!("open {url} yourself");
    let Some(opener) = user.program(OPENER) else {
        return report(format!("No browser was opened: there is no {OPENER} here; {by_hand}."));
    };
    // A browser for text would take the terminal.
    if !user.has_screen {
        return report(format!("No browser was opened: there is no screen (DISPLAY is not set); {by_hand}."));
    }
    let url = url.to_owned();
    let waiting = thread::Builder::new().name("browser".to_owned()).spawn(move || {
        if let Some(fault) = fault(run(opener, &url)) {
            report(format!("No browser was opened: {OPENER} {fault}; {by_hand}."));
        }
    });
    if let Err(error) = waiting {
        tracing::warn!(target: "pulsegate::dev", error = %Chain(&error), "cannot open a browser");
    }
}

/// Runs the opener to its end, in a process group of its own: Ctrl-C is for pulsegate alone.
fn run(opener: PathBuf, url: &str) -> io::Result<ExitStatus> {
    let mut command = Command::new(opener);
    command.arg(url).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
}

fn fault(ended: io::Result<ExitStatus>) -> Option<String> {
    match ended {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.code().map_or_else(|| "was killed".to_owned(), |code| format!("exited with {code}"))),
        Err(error) => Some(format!("cannot be run ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn reported(user: &UserEnvironment) -> Option<String> {
        let (sender, receiver) = mpsc::channel();
        open("https://localhost:8443/", user, move |sentence| {
            // A test that has ended waits no more.
            let _ = sender.send(sentence);
        });
        // The sender is dropped unused once the opener has succeeded.
        receiver.recv_timeout(Duration::from_secs(20)).ok()
    }

    #[test]
    fn a_browser_that_cannot_be_opened_is_reported_with_the_way_out() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let user = |has_screen| UserEnvironment {
            programs: vec![folder.path().into()],
            has_screen,
            ..UserEnvironment::default()
        };
        let tail = "; open https://localhost:8443/ yourself.";
        let none = reported(&user(true)).expect("no opener");
        assert_eq!(none, format!("No browser was opened: there is no {OPENER} here{tail}"));

        let opener = folder.path().join(OPENER);
        let script = |text: &str| {
            fs::write(&opener, format!("#!/bin/sh\n{text}\n")).expect("written");
            fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).expect("changed");
        };
        script("exit 3");
        let dark = reported(&user(false)).expect("no screen");
        assert!(dark.contains("there is no screen") && dark.ends_with(tail), "{dark}");
        let failed = reported(&user(true)).expect("it fails");
        assert_eq!(failed, format!("No browser was opened: {OPENER} exited with 3{tail}"));
        script(&format!("echo \"$1\" > {}", folder.path().join("opened").display()));
        assert_eq!(reported(&user(true)), None);
        assert_eq!(fs::read_to_string(folder.path().join("opened")).expect("it ran"), "https://localhost:8443/\n");
    }
}
