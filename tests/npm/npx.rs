//! `npx` with an empty cache: the first run, signals, and the tarball that needs no registry.

use std::fs;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::process::{OutputStream, Process, send};
use rustix::process::Signal;
use tokio::process::Command;

use super::packed::tarballs;
use super::running::{DEV, ended_in_order, ends_by_sigterm, ends_with, serves};
use super::sandbox::{LIMIT, Node, Sandbox, program_of, programs};

/// Every npx of the tests, with the Node to run it with.
const NPXS: [(&str, Node); 3] = [
    ("npm-10/bin/npx-cli.js", Node::Spawning),
    ("npm-11/bin/npx-cli.js", Node::Spawning),
    ("npm-11/bin/npx-cli.js", Node::Replacing),
];

fn npx(sandbox: &Sandbox, script: &str) -> Command {
    let mut command = sandbox.tool(script);
    command.args(["--yes", "pulsegate"]);
    command
}

#[tokio::test]
async fn sigterm_to_npx_ends_the_program_in_order() {
    for (script, node) in NPXS {
        let sandbox = Sandbox::new(node).await;
        ends_by_sigterm(&sandbox, npx(&sandbox, script)).await;
    }
}

/// In a terminal every process gets SIGINT, and npx passes it on once more. A second one would abort a drain.
#[tokio::test]
async fn one_ctrl_c_in_a_terminal_counts_once() {
    for (script, node) in NPXS {
        let sandbox = Sandbox::new(node).await;
        let mut npx = npx(&sandbox, script);
        npx.args(DEV);
        let words = [npx.as_std().get_program()].into_iter().chain(npx.as_std().get_args());
        let line: Vec<_> = words.map(|word| word.to_str().expect("text")).collect();
        let mut command = sandbox.command("script");
        command.args(["--quiet", "--command", &line.join(" "), "/dev/null"]);
        let mut process = Process::start("script", &mut command);
        process.line_within(LIMIT, "it listens", |line| line.text.contains("listening")).await;
        let found = programs(&process);
        let [program] = found[..] else { panic!("one program expected: {found:?}\n{}", process.transcript()) };
        process.write_input("\x03").await;
        process.line("the signal", |line| line.text.contains("SIGINT")).await;
        let output = ends_with(process, program, &sandbox).await;
        assert_eq!(output.matches("SIGINT").count(), 1, "{output}");
    }
}

/// As an installed program that a service manager starts.
#[tokio::test]
async fn a_signal_to_the_launcher_ends_the_program_in_order() {
    for node in [Node::Spawning, Node::Replacing] {
        let sandbox = Sandbox::new(node).await;
        let mut install = sandbox.tool("npm-11/bin/npm-cli.js");
        install.args(["install", "pulsegate"]);
        sandbox.succeeds(install).await;
        let mut command = sandbox.command(sandbox.path("project/node_modules/.bin/pulsegate"));
        command.args(DEV);
        let mut process = Process::start_without_input("pulsegate", &mut command);
        process.line("the guide of dev", |line| line.text.contains("Ctrl-C ends it")).await;
        let below = programs(&process);
        assert_eq!(below.len(), usize::from(node == Node::Spawning), "a launcher is replaced where that is possible");
        process.terminate();
        assert_eq!(process.ended().await.code(), Some(0), "{}", process.transcript());
        assert!(below.into_iter().all(|program| program_of(program).is_none()), "{}", process.transcript());
        ended_in_order(&sandbox);
    }
}

#[tokio::test]
async fn the_tarball_of_both_needs_no_registry() {
    let sandbox = Sandbox::new(Node::Spawning).await;
    // Nothing listens there.
    sandbox.write("home/.npmrc", "registry=http://127.0.0.1:9/\nfetch-retries=0\n");
    let tarball = tarballs().whole();
    let name = tarball.file_name().expect("a name");
    fs::copy(&tarball, sandbox.path("project").join(name)).expect("copy a file");
    for script in ["npm-10/bin/npx-cli.js", "npm-11/bin/npx-cli.js"] {
        let mut command = sandbox.tool(script);
        command.args(["--yes", &format!("./{}", name.to_str().expect("text"))]).args(DEV);
        let (process, program) = serves(script, command).await;
        send(program, Signal::TERM);
        ends_with(process, program, &sandbox).await;
    }
    assert_eq!(sandbox.fetched(), [""; 0]);
}

#[tokio::test]
async fn a_browser_gets_its_first_heartbeat_from_a_cold_npx() {
    let sandbox = Sandbox::new(Node::Replacing).await;
    let started = std::time::Instant::now();
    let mut npx = npx(&sandbox, "npm-11/bin/npx-cli.js");
    npx.args(DEV);
    let (process, program) = serves("npx", npx).await;
    let served = started.elapsed();
    let guide = process.text_of(OutputStream::Stdout);
    let word = |mark: &str| {
        let rest = guide.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {guide}")).1;
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let browser = Browser::visit(&word("https      "), word("curl --cacert ").as_ref()).await;
    process.line("a heartbeat", |line| line.text.contains("heartbeat.pong")).await;
    println!("dev served after {served:?}, the first heartbeat came after {:?}", started.elapsed());
    drop(browser);
    process.terminate();
    ends_with(process, program, &sandbox).await;
}
