//! `npx` with an empty cache: the first run, signals, and the tarball that needs no registry.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::{OutputStream, Process, send};
use pulsegate_test_kit::wait::wait_until;
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

/// An app that reports its sessions, and a page that opens one and reports its end.
const APP: &str = r"
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const page = `<!doctype html><title>app</title><script>
  const socket = new WebSocket('wss://' + location.host + '/');
  socket.onclose = ({ code }) => console.log(JSON.stringify({ event: 'close', code }));
</script>`;
const report = (event) => console.log(JSON.stringify(event));

const server = createServer((request, response) => response.setHeader('content-type', 'text/html').end(page));
new WebSocketServer({ server }).on('connection', (socket) => {
  report({ event: 'open' });
  socket.on('close', (code) => report({ event: 'close', code }));
});
server.listen(process.env.PORT, process.env.HOST);
";

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
    sandbox.write("project/server.js", "require('http').createServer().listen(process.env.PORT, process.env.HOST);");
    for script in ["npm-10/bin/npx-cli.js", "npm-11/bin/npx-cli.js"] {
        let mut command = sandbox.tool(script);
        command.args(["--yes", &format!("./{}", name.to_str().expect("text"))]).args(DEV);
        command.args(["--", "node", "server.js"]);
        let (process, program) = serves(script, command).await;
        send(program, Signal::TERM);
        ends_with(process, program, &sandbox).await;
    }
    assert_eq!(sandbox.fetched(), [""; 0]);
}

/// The way of a stranger, with an app of their own in a folder that has nothing else.
#[tokio::test]
async fn the_first_heartbeat_in_a_browser_is_enforced_from_a_cold_npx() {
    let sandbox = Sandbox::new(Node::Replacing).await;
    sandbox.write("project/server.js", APP);
    symlink(project("child").join("node_modules"), sandbox.path("project/node_modules")).expect("the app's libraries");
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let mut npx = npx(&sandbox, "npm-11/bin/npx-cli.js");
    npx.args(DEV).args(["--interval", "1s", "--timeout", "3s", "--", "node", "server.js"]);
    let (process, program) = serves("npx", npx).await;
    let served = seconds();
    let guide = process.text_of(OutputStream::Stdout);
    let word = |mark: &str| {
        let rest = guide.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {guide}")).1;
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let browser = Browser::visit(&word("https      "), word("curl --cacert ").as_ref()).await;
    process.event("open", |_| true).await;
    let opened = seconds();
    // A live client answers, again and again, and is left alone.
    let pongs = || process.count(|line| line.text.contains("heartbeat.pong"));
    wait_until("two heartbeats", pongs, |pongs| *pongs >= 2).await;
    assert!(process.events("close").is_empty(), "{}", process.transcript());
    let answered = seconds();
    // A mute one is closed, and the app's own handler runs.
    send(browser.network_service(), Signal::STOP);
    let close = process.event_line("close", |_| true).await;
    assert_eq!(close.json["code"], 4408, "{}", process.transcript());
    let closed = seconds();
    send(browser.network_service(), Signal::CONT);
    let page = browser.event("close", |_| true).await;
    assert_eq!(page["code"], 1012, "the client reads the Close that waited for it: {}", process.transcript());
    println!(
        "seconds from a cold npx: {served:.1} served, {opened:.1} a page open, {answered:.1} two pings answered, \
         {closed:.1} a mute page closed"
    );
    drop(browser);
    process.terminate();
    ends_with(process, program, &sandbox).await;
}
