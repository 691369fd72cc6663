//! The command of the app: its environment, its start, and the faults of a start.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, id};
use std::{io, iter};

use rustix::process::{Pid, geteuid};
use thiserror::Error;

use super::exit::AppExit;
use super::process::AppProcess;
use super::terminal_input::TerminalInput;
use crate::config::{UpstreamTarget, nearest};
use crate::platform::{parent_death, process_family};

/// Programs that start Node apps, for a suggestion.
const STARTERS: [&str; 9] = ["node", "npm", "npx", "pnpm", "yarn", "bun", "deno", "nodemon", "tsx"];

/// The command that starts the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCommand {
    program: OsString,
    arguments: Vec<OsString>,
}

impl fmt::Display for AppCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

/// A command that could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// There is no such program.
    #[error("cannot start the app: there is no program `{program}`{}; {remedy}", place(.program))]
    NotFound {
        /// The first word of the command.
        program: String,
        /// The way out.
        remedy: String,
    },
    /// The file needs another program, which does not exist.
    #[error(
        "cannot start the app: the interpreter or loader of `{program}` does not exist; correct the file's first line, or \
         install what it names"
    )]
    NoInterpreter {
        /// The first word of the command.
        program: String,
    },
    /// The file may not be executed.
    #[error("cannot start the app: `{program}` is not executable; {remedy}")]
    NotExecutable {
        /// The first word of the command.
        program: String,
        /// The way out.
        remedy: String,
    },
    /// The system could not start it, or provide what it needs.
    #[error("cannot start the app `{program}`: {source}")]
    System {
        /// The first word of the command.
        program: String,
        /// The system's error.
        source: io::Error,
    },
}

impl SpawnError {
    /// Returns the exit code: 127 for a program that does not exist and 126 for one that cannot be executed, as a shell's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } | Self::NoInterpreter { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::System { .. } => 1,
        }
    }
}

impl AppCommand {
    /// Returns the command of these words, of which the first is the program; `None` for no words.
    pub fn of(words: &[OsString]) -> Option<Self> {
        let (program, arguments) = words.split_first()?;
        Some(Self { program: program.clone(), arguments: arguments.to_vec() })
    }

    /// Starts the app in a process group of its own, with `PORT` and `HOST` if `address` is a TCP port. Its output is that
    /// of pulsegate, and so is its input unless that is a terminal. `on_exit` is called once its first process has ended, on
    /// a thread of its own, and `afterwards` once [`AppProcess::exited`] has completed. The thread that calls this must live
    /// as long as the process: its end is that of the app.
    ///
    /// From then on orphans among all descendants of pulsegate become its children.
    ///
    /// # Errors
    ///
    /// A [`SpawnError`] for a program that does not exist or cannot be executed.
    pub fn start(
        &self,
        address: &UpstreamTarget,
        on_exit: impl FnOnce(AppExit) + Send + 'static,
        afterwards: impl FnOnce() + Send + 'static,
    ) -> Result<AppProcess, SpawnError> {
        let system = |source| SpawnError::System { program: self.program_text(), source };
        let (input, terminal) = TerminalInput::open().map_err(system)?.unzip();
        // Where the system has no such thing, the app's own group is all that is ended.
        process_family::adopt_orphans();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).process_group(0).env(process_family::MARK, id().to_string());
        parent_death::ends_with_parent(&mut command);
        if let UpstreamTarget::Tcp { host, port } = address {
            command.env("PORT", port.to_string()).env("HOST", host_for(host).to_string());
        }
        if let Some(input) = &input {
            command.stdin(input.for_app().map_err(system)?);
        }
        let child = command.spawn().map_err(|source| self.spawn_error(source))?;
        if let Some(input) = input {
            input.relay(Pid::from_raw(child.id().cast_signed())).map_err(system)?;
        }
        AppProcess::watch(child.id(), terminal, on_exit, afterwards).map_err(system)
    }

    /// Returns the reason for which the command may have found nothing to run in `folder`, and the way out.
    pub fn missing_file(&self, folder: &Path) -> Option<String> {
        if ["npm", "pnpm", "yarn", "bun"].iter().any(|name| self.program == *name)
            && let Some(fault) = unreadable(OsStr::new("package.json"), folder)
        {
            return Some(fault);
        }
        let scripts = ["js", "mjs", "cjs", "ts", "mts", "cts"];
        let is_script =
            |word: &&OsString| Path::new(word).extension().is_some_and(|it| scripts.iter().any(|end| it == *end));
        self.arguments.iter().filter(is_script).find_map(|word| unreadable(word, folder))
    }

    fn program_text(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    fn spawn_error(&self, source: io::Error) -> SpawnError {
        let program = self.program_text();
        let (file, has_folder) = (Path::new(&program), program.contains('/'));
        let local = Path::new("node_modules/.bin").join(&program);
        match source.kind() {
            io::ErrorKind::NotFound if has_folder && file.exists() => SpawnError::NoInterpreter { program },
            io::ErrorKind::NotFound if !has_folder && local.exists() => {
                let remedy = format!("it is in node_modules/.bin: write `npx {program}`");
                SpawnError::NotFound { program, remedy }
            }
            io::ErrorKind::NotFound => {
                let remedy = match nearest(&program, STARTERS) {
                    _ if program.is_empty() => "name one, such as `node server.js`".to_owned(),
                    _ if file.is_file() => format!("to run the file, write `node {program}`"),
                    Some(near) if near != program => format!("did you mean `{near}`?"),
                    _ => "install it, or write its path".to_owned(),
                };
                SpawnError::NotFound { program, remedy }
            }
            io::ErrorKind::PermissionDenied => {
                let is_hidden = file.metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
                let remedy = if is_hidden {
                    not_allowed("enter its folder")
                } else if file.is_dir() {
                    "it is a folder: name a program, such as `node server.js`".to_owned()
                } else {
                    format!("write `node {program}`, or run `chmod +x {program}`")
                };
                SpawnError::NotExecutable { program, remedy }
            }
            _ => SpawnError::System { program, source },
        }
    }
}

/// The ports from which one is chosen for an app. Systems give others, from 32,768 or 49,152 on, to whoever asks for any: such a
/// port could be taken before the app listens.
const APP_PORTS: Range<u16> = 20_000..32_768;
/// The number of ports that are tried before the system is asked for one.
const PORTS_TRIED: usize = 100;

/// Returns a TCP port of loopback that is free now, and none of `others`.
///
/// # Errors
///
/// The system has no free port.
pub fn free_port(others: &[u16]) -> io::Result<u16> {
    let is_free = |port: &u16| !others.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    if let Some(port) = iter::repeat_with(|| fastrand::u16(APP_PORTS)).take(PORTS_TRIED).find(is_free) {
        return Ok(port);
    }
    // The listeners of refused ports stay open meanwhile, so that each attempt yields another port.
    let mut refused = Vec::new();
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if !others.contains(&port) {
            return Ok(port);
        }
        refused.push(listener);
    }
}

/// Returns the address on which an app must listen that is reached at `host`.
fn host_for(host: &str) -> IpAddr {
    host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Returns the reason for which `name` cannot be read in `folder`, and the way out.
fn unreadable(name: &OsStr, folder: &Path) -> Option<String> {
    let (path, is_absolute) = (folder.join(name), Path::new(name).is_absolute());
    let (name, folder) = (name.to_string_lossy(), folder.display());
    match File::open(path).err()?.kind() {
        io::ErrorKind::NotFound if is_absolute => Some(format!("there is no {name}: correct its path")),
        io::ErrorKind::NotFound => Some(format!("there is no {name} in {folder}: start it in the app's folder")),
        io::ErrorKind::PermissionDenied if is_absolute => Some(format!("{name}: {}", not_allowed("read it"))),
        io::ErrorKind::PermissionDenied => Some(format!("{name} in {folder}: {}", not_allowed("read it"))),
        _ => None,
    }
}

/// Returns a sentence about what the user may not do, and the way out.
fn not_allowed(what: &str) -> String {
    format!(
        "the user {} may not {what}: allow it with chmod, for the folders above too, or start pulsegate as its owner",
        geteuid().as_raw()
    )
}

/// Returns where a program was searched.
fn place(program: &str) -> &'static str {
    if program.contains('/') { "" } else { " in the folders of PATH" }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn command(words: &[&str]) -> AppCommand {
        AppCommand::of(&words.iter().map(OsString::from).collect::<Vec<_>>()).expect("a program")
    }

    fn refused(words: &[&str]) -> SpawnError {
        let target = UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: 1 };
        command(words).start(&target, |_| {}, || {}).expect_err("it cannot start")
    }

    #[test]
    fn a_program_that_does_not_exist_is_named_with_the_way_out() {
        assert_snapshot!(refused(&["nod", "server.js"]), @"cannot start the app: there is no program `nod` in the folders of PATH; did you mean `node`?");
        assert_snapshot!(refused(&["Cargo.toml"]), @"cannot start the app: there is no program `Cargo.toml` in the folders of PATH; to run the file, write `node Cargo.toml`");
        assert_snapshot!(refused(&["./none/such"]), @"cannot start the app: there is no program `./none/such`; install it, or write its path");
        assert_snapshot!(refused(&["./src"]), @"cannot start the app: `./src` is not executable; it is a folder: name a program, such as `node server.js`");
        assert_snapshot!(refused(&["./Cargo.toml"]), @"cannot start the app: `./Cargo.toml` is not executable; write `node ./Cargo.toml`, or run `chmod +x ./Cargo.toml`");
        assert_snapshot!(refused(&[""]), @"cannot start the app: there is no program `` in the folders of PATH; name one, such as `node server.js`");
        assert_eq!([refused(&["nod"]), refused(&["./src"])].map(|error| error.exit_code()), [127, 126]);
    }

    #[test]
    fn a_folder_without_an_app_is_recognised() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let missing = |words: &[&str]| command(words).missing_file(dir.path());
        assert!(missing(&["npm", "start"]).is_some_and(|text| text.starts_with("there is no package.json in /")));
        assert!(missing(&["node", "server.js"]).is_some_and(|text| text.starts_with("there is no server.js in /")));
        for name in ["package.json", "server.js"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        assert_eq!(
            [missing(&["npm", "start"]), missing(&["node", "server.js"]), missing(&["node", "-e", "1"])],
            [None, None, None]
        );
    }

    #[test]
    fn a_free_port_is_none_of_the_others() {
        let port = free_port(&[]).expect("a port");
        assert!(APP_PORTS.contains(&port), "{port} is given to whoever asks for any");
        assert_ne!(free_port(&[port]).expect("another port"), port);
    }
}
