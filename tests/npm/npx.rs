//! `npx` with an empty cache: the first run, signals, and the tarball that needs no registry.

use std::fs;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::process::{OutputStream, Process, send};
use rustix::process::{Pid, Signal};
use tokio::process::Command;

use super::packed::tarballs;
use super::sandbox::{LIMIT, Node, Sandbox, program_of, programs};

/// Every npx of the tests, with the Node to run it with.
const NPXS: [(&str, Node); 3] = [
    ("npm-10/bin/npx-cli.js", Node::Spawning),
    ("npm-11/bin/npx-cli.js", Node::Spawning),
    ("npm-11/bin/npx-cli.js", Node::Replacing),
];

/// `pulsegate dev` on free ports.
const DEV: [&str; 5] = ["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"];

/// Starts the command and waits until `pulsegate dev` serves; returns also the process of the program.
async fn serves(name: &str, mut command: Command) -> (Process, Pid) {
    let process = Process::start_without_input(name, &mut command);
    process.line_within(LIMIT, "the guide of dev", |line| line.text.contains("Ctrl-C ends it")).await;
    let found = programs(&process);
    let [program] = found[..] else { panic!("one program expected: {found:?}\n{}", process.transcript()) };
    (process, program)
}

fn npx(sandbox: &Sandbox, script: &str) -> Command {
    let mut command = sandbox.tool(script);
    command.args(["--yes", "pulsegate"]).args(DEV);
    command
}

/// Waits for the end of the process and of the program; fails unless the program has ended in order. Returns its output.
async fn ends_with(mut process: Process, program: Pid, sandbox: &Sandbox) -> String {
    // Its output ends with the last process that writes to it.
    process.ended().await;
    assert_eq!(program_of(program), None, "{}", process.transcript());
    ended_in_order(sandbox);
    process.transcript()
}

/// Fails if `dev` has left its certificate behind, which it removes at its end.
fn ended_in_order(sandbox: &Sandbox) {
    let left = fs::read_dir(sandbox.path("tmp")).expect("a folder").flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".pem")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn sigterm_to_npx_ends_the_program_in_order() {
    for (script, node) in NPXS {
        let sandbox = Sandbox::new(node).await;
        let (process, program) = serves(script, npx(&sandbox, script)).await;
        process.terminate();
        process.line("the signal", |line| line.text.contains("signal") && line.text.contains("SIGTERM")).await;
        ends_with(process, program, &sandbox).await;
    }
}

/// In a terminal every process gets SIGINT, and npx passes it on once more. A second one would abort a drain.
#[tokio::test]
async fn one_ctrl_c_in_a_terminal_counts_once() {
    for (script, node) in NPXS {
        let sandbox = Sandbox::new(node).await;
        let npx = npx(&sandbox, script);
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
    let (process, program) = serves("npx", npx(&sandbox, "npm-11/bin/npx-cli.js")).await;
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
