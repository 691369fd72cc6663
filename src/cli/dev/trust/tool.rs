//! Programs of the system, run to their end.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Access, access};
use thiserror::Error;

use crate::cli::dev::shell;
use crate::cli::text::truncate;
use crate::config::{UserEnvironment, find_program};

/// The folders of programs below the root of a system.
const FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];
/// The number of characters of a tool's output that an error shows.
const SHOWN: usize = 300;

/// A step that failed. Each text has the way out.
#[derive(Debug, Error)]
pub(super) enum ToolError {
    /// A tool failed.
    #[error("`{command}` {end}{}; run it yourself to see why", quoted(.output))]
    Failed { command: String, end: String, output: String },
    /// A tool could not be started.
    #[error("cannot run `{command}`: {source}")]
    Start { command: String, source: io::Error },
    /// A file could not be written or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// Something that is not ours is in the place of the certificate.
    #[error("{} cannot be used: {source}; remove it", path.display())]
    Occupied { path: PathBuf, source: io::Error },
    /// The user may not change the files of the system.
    #[error("{} is not writable for you, and there is no sudo or doas here; as root, run: {commands}", folder.display())]
    NoSudo { folder: PathBuf, commands: String },
    /// Nobody may change the files of the system.
    #[error("{} cannot be written, not even by root; is its file system read-only?", folder.display())]
    NotEvenRoot { folder: PathBuf },
}

fn quoted(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}

/// The programs of a system.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    folders: Vec<PathBuf>,
}

impl Tools {
    /// Returns those of the system below `root`, or those that the user can run.
    pub(super) fn of(user: &UserEnvironment, root: Option<&Path>) -> Self {
        let below = |root: &Path| FOLDERS.map(|folder| root.join(folder)).to_vec();
        Self { folders: root.map_or_else(|| user.programs.clone(), below) }
    }

    /// Returns the path of a program.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        find_program(&self.folders, name)
    }
}

/// The right by which files of the system are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    /// The process may write there.
    Own,
    /// This program provides it.
    Sudo(PathBuf),
    /// There is no such program.
    Missing,
}

impl Privilege {
    /// Returns the right for files in `folder`, which may have to be made.
    pub(super) fn for_folder(folder: &Path, tools: &Tools) -> Self {
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
        if access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
            return Self::Own;
        }
        tools.find("sudo").or_else(|| tools.find("doas")).map_or(Self::Missing, Self::Sudo)
    }

    /// Returns the words of a command that has this right.
    pub(super) fn command<W: Into<OsString>>(&self, words: impl IntoIterator<Item = W>) -> Vec<OsString> {
        let mut all = Vec::new();
        if let Self::Sudo(sudo) = self {
            all.push(sudo.into());
            // Without a terminal a question for the password would wait for ever.
            if !io::stdin().is_terminal() {
                all.push("-n".into());
            }
        }
        all.extend(words.into_iter().map(Into::into));
        all
    }
}

/// Returns the words of a command as they are typed, without the folder of the program.
pub(super) fn typed(words: &[OsString]) -> String {
    let program = words.first().map(|program| Path::new(program).file_name().unwrap_or(program).to_owned());
    program.iter().chain(words.iter().skip(1)).map(shell::quoted).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end.
///
/// # Errors
///
/// It cannot be started, or fails.
pub(super) fn run(words: &[OsString]) -> Result<String, ToolError> {
    let command = typed(words);
    let Some((program, arguments)) = words.split_first() else { return Ok(String::new()) };
    let output = Command::new(program).args(arguments).stdin(Stdio::inherit()).output();
    let output = output.map_err(|source| ToolError::Start { command: command.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let output_text = truncate(&lines.join(" "), SHOWN);
    Err(ToolError::Failed { command, end: end(output.status), output: output_text })
}

fn end(status: ExitStatus) -> String {
    status.code().map_or_else(|| "was killed".to_owned(), |code| format!("exited with {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_tool_that_fails_is_quoted() {
        assert_eq!(run(&words(&["/bin/sh", "-c", "echo out"])).expect("it runs"), "out\n");
        let error = run(&words(&["/bin/sh", "-c", "echo reason >&2; exit 3"])).expect_err("it fails").to_string();
        assert_eq!(error, "`sh -c 'echo reason >&2; exit 3'` exited with 3: reason; run it yourself to see why");
        let error = run(&words(&["/nonexistent/tool"])).expect_err("there is none").to_string();
        assert!(error.starts_with("cannot run `tool`: "), "{error}");
    }

    #[test]
    fn files_of_root_are_changed_by_sudo() {
        let tools = |folder: &Path| Tools { folders: vec![folder.into()] };
        let folder = tempfile::TempDir::new().expect("a folder");
        assert_eq!(Privilege::for_folder(&folder.path().join("new"), &tools(folder.path())), Privilege::Own);
        // No user may write there, root neither.
        let of_root = Path::new("/proc/self/new");
        assert_eq!(Privilege::for_folder(of_root, &tools(folder.path())), Privilege::Missing);
        let sudo = folder.path().join("sudo");
        std::fs::write(&sudo, "").expect("written");
        let privilege = Privilege::for_folder(of_root, &tools(folder.path()));
        assert_eq!(privilege, Privilege::Sudo(sudo.clone()));
        let command = privilege.command(["rm", "file"]);
        assert_eq!((&command[0], command.last()), (&OsString::from(sudo), Some(&"file".into())));
        assert!(typed(&command).starts_with("sudo "));
    }
}
