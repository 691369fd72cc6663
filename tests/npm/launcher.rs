//! The launcher alone: exit codes, signals, `PULSEGATE_BINARY`, and platforms without a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use pulsegate_test_kit::process::Process;
use tokio::process::Command;

use super::packed::{platform, succeeds, tarballs};
use super::sandbox::{Node, Sandbox};

/// A launcher beside its program, unpacked.
struct Launcher {
    sandbox: Sandbox,
}

impl Launcher {
    async fn unpacked(node: Node) -> Self {
        let sandbox = Sandbox::new(node).await;
        let mut command = std::process::Command::new("tar");
        command.arg("-xzf").arg(tarballs().whole()).arg("-C").arg(sandbox.path("project"));
        succeeds(&mut command);
        Self { sandbox }
    }

    fn script(&self) -> PathBuf {
        self.sandbox.path("project/package/bin/pulsegate.js")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(self.script());
        command.args(arguments);
        command
    }

    /// Writes a script of Node as a program; returns its path.
    fn program(&self, source: &str) -> PathBuf {
        let file = self.sandbox.path("program");
        let version = "if (process.argv[2] === '--version') console.log('pulsegate of a test');";
        fs::write(&file, format!("#!/usr/bin/env node\n{version} else {{ {source} }}\n")).expect("write a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("make it executable");
        file
    }

    /// Returns the launcher with a script of Node as its program.
    fn with_program(&self, source: &str) -> Command {
        let mut command = self.command(&["dev"]);
        command.env("PULSEGATE_BINARY", self.program(source));
        command
    }
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_program() {
    for node in [Node::Spawning, Node::Replacing] {
        let launcher = Launcher::unpacked(node).await;
        launcher.sandbox.prints_its_version(launcher.command(&[])).await;
        launcher.sandbox.run(launcher.command(&["nonsense"])).await.failed(2, &["nonsense"]);
        let absent = launcher.sandbox.run(launcher.command(&["check", "-c", "absent.toml"])).await;
        assert_eq!(absent.code, Some(78), "{absent:#?}");
    }
}

#[tokio::test]
async fn arguments_and_environment_reach_the_program_as_they_are() {
    for node in [Node::Spawning, Node::Replacing] {
        let launcher = Launcher::unpacked(node).await;
        let mut command =
            launcher.with_program("console.log(JSON.stringify([process.argv.slice(2), process.env.GIVEN]))");
        command.args(["", "two words", "--", "$HOME", "ä"]).env("GIVEN", "a=b");
        let finished = launcher.sandbox.succeeds(command).await;
        assert_eq!(finished.out, "[[\"dev\",\"\",\"two words\",\"--\",\"$HOME\",\"ä\"],\"a=b\"]\n");
    }
}

#[tokio::test]
async fn every_signal_reaches_the_program_and_its_exit_code_returns() {
    const PROGRAM: &str = "
        for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM']) process.on(name, () => {
            console.log(name);
            if (name === 'SIGTERM') process.exit(7);
        });
        setInterval(() => {}, 1e6);
        console.log('ready');";
    for node in [Node::Spawning, Node::Replacing] {
        let launcher = Launcher::unpacked(node).await;
        let mut process = Process::start_without_input("the launcher", &mut launcher.with_program(PROGRAM));
        process.line("ready", |line| line.text == "ready").await;
        process.hang_up();
        process.line("SIGHUP", |line| line.text == "SIGHUP").await;
        process.interrupt();
        process.line("SIGINT", |line| line.text == "SIGINT").await;
        process.terminate();
        assert_eq!(process.ended().await.code(), Some(7), "{}", process.transcript());
    }
}

/// As `npx` does where its shell is replaced by the launcher.
#[tokio::test]
async fn a_parent_that_passes_a_signal_on_and_ends_sends_one_signal() {
    const PARENT: &str = "
        const child = require('child_process').spawn(process.argv[1], ['dev'], { stdio: 'inherit' });
        process.on('SIGTERM', () => { child.kill('SIGTERM'); process.exit(0); });";
    // Lives on for four looks at the parent.
    const PROGRAM: &str = "
        process.on('SIGTERM', () => { console.log('SIGTERM'); setTimeout(() => process.exit(0), 1000); });
        console.log('ready');
        setInterval(() => {}, 1e6);";
    for node in [Node::Spawning, Node::Replacing] {
        let launcher = Launcher::unpacked(node).await;
        let file = launcher.program(PROGRAM);
        let mut command = launcher.sandbox.command("node");
        command.args(["-e", PARENT]).arg(launcher.script()).env("PULSEGATE_BINARY", file);
        command.env("npm_config_user_agent", "npm/11");
        let mut process = Process::start_without_input("the parent", &mut command);
        process.line("ready", |line| line.text == "ready").await;
        process.terminate();
        process.ended().await;
        assert_eq!(process.count(|line| line.text == "SIGTERM"), 1, "{}", process.transcript());
    }
}

/// A script such as `pulsegate run & node server.js` may end before the proxy.
#[tokio::test]
async fn a_script_may_leave_the_program_in_the_background() {
    const PARENT: &str = "
        const child = require('child_process').spawn(process.argv[1], ['dev'], { stdio: 'inherit' });
        child.on('spawn', () => process.exit(0));";
    const PROGRAM: &str = "
        process.on('SIGTERM', () => console.log('SIGTERM'));
        setTimeout(() => console.log('alive'), 1000);";
    let launcher = Launcher::unpacked(Node::Spawning).await;
    let file = launcher.program(PROGRAM);
    let mut command = launcher.sandbox.command("node");
    command.args(["-e", PARENT]).arg(launcher.script()).env("PULSEGATE_BINARY", file);
    command.env("npm_config_user_agent", "npm/11").env("npm_lifecycle_script", "pulsegate run & exit");
    let mut process = Process::start_without_input("the parent", &mut command);
    process.ended().await;
    assert_eq!(process.transcript(), "alive\n");
}

#[tokio::test]
async fn a_program_that_a_signal_ends_gives_128_and_the_signal() {
    const PROGRAM: &str = "process.kill(process.pid, 'SIGKILL')";
    let launcher = Launcher::unpacked(Node::Spawning).await;
    assert_eq!(launcher.sandbox.run(launcher.with_program(PROGRAM)).await.code, Some(128 + 9));
    // A shell makes the same number of it.
    drop(launcher);
    let launcher = Launcher::unpacked(Node::Replacing).await;
    let mut process = Process::start_without_input("the launcher", &mut launcher.with_program(PROGRAM));
    assert_eq!(process.ended().await.signal(), Some(9), "{}", process.transcript());
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_refused_in_a_sentence() {
    for node in [Node::Spawning, Node::Replacing] {
        let launcher = Launcher::unpacked(node).await;
        let file = |name: &str, mode: u32| {
            let path = launcher.sandbox.path(name);
            fs::write(&path, [0_u8; 64]).expect("write a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set the mode");
            path
        };
        let cases = [
            (launcher.sandbox.path("absent"), "cannot be read (ENOENT)"),
            (launcher.sandbox.path("home"), "is not a file"),
            (file("data", 0o644), "may not be executed"),
            (file("zeros", 0o755), "is no pulsegate for linux-"),
            (launcher.script(), "is this launcher"),
        ];
        for (path, fault) in cases {
            let mut command = launcher.command(&["dev"]);
            command.env("PULSEGATE_BINARY", &path);
            let shown = format!("pulsegate: PULSEGATE_BINARY={}", path.display());
            let finished = launcher.sandbox.run(command).await;
            finished
                .failed(1, &[&shown, fault, "set PULSEGATE_BINARY to the path of a pulsegate program, or unset it"]);
            assert_eq!(finished.err.lines().count(), 1, "{finished:#?}");
        }
    }
}

#[tokio::test]
async fn a_platform_without_a_program_is_named_with_those_that_have_one() {
    let launcher = Launcher::unpacked(Node::Spawning).await;
    let mut command = launcher.command(&["dev"]);
    command.env("TEST_PLATFORM", "win32");
    let others = format!("only for {}; set PULSEGATE_BINARY", platform());
    launcher.sandbox.run(command).await.failed(1, &["pulsegate: no program for win32-", &others]);
}

#[tokio::test]
async fn a_program_that_lost_its_permission_is_named() {
    let launcher = Launcher::unpacked(Node::Replacing).await;
    let program = format!("project/package/node_modules/@pulsegate/cli-{}/bin/pulsegate", platform());
    let program = launcher.sandbox.path(&program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("set the mode");
    let refused = launcher.sandbox.run(launcher.command(&["dev"])).await;
    refused.failed(1, &[program.to_str().expect("text"), "may not be executed; restore it by installing again"]);
}
