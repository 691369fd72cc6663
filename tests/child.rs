//! `pulsegate run -- COMMAND` and `pulsegate dev -- COMMAND`: the app is started, waited for, drained and ended.

mod end;
mod family;
mod init;
mod start;
mod terminal;

use std::net::SocketAddr;
use std::path::Path;

use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;
use rustix::process::{Pid, test_kill_process};
use tokio::process::Command;

use crate::PULSEGATE;

/// The exit code of an app that ends in order at SIGTERM.
const IN_ORDER: i32 = 7;

/// Returns the path of a file of the apps' folder.
fn file(name: &str) -> String {
    project("child").join(name).display().to_string()
}

/// Returns a configuration without an app.
fn config() -> Config {
    Config::to(PULSEGATE, "").without_url()
}

/// Starts `run` with these flags and with an app that behaves in this way.
async fn run(config: Config, flags: &[&str], way: &[&str]) -> Proxy {
    run_in(&[], config, flags, way).await
}

/// As [`run`], by a command that runs another one.
async fn run_in(wrapper: &[&str], config: Config, flags: &[&str], way: &[&str]) -> Proxy {
    let app = file("app.js");
    let words: Vec<&str> = flags.iter().copied().chain(["--", "node", &app]).chain(way.iter().copied()).collect();
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    // The program and its other arguments follow.
    let script = format!("exec \"$0\" \"$@\" {}", quoted.join(" "));
    let all: Vec<&str> = wrapper.iter().copied().chain(["sh", "-c", &script]).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]);
    Box::pin(Proxy::start_by(command, SocketAddr::from(([127, 0, 0, 1], 0)), config)).await
}

/// Returns the command of `pulsegate dev` in `folder`, on ports of its own, with these words after its flags.
fn dev(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(PULSEGATE);
    command.args(["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"]).args(words).current_dir(folder);
    command
}

/// Returns the process id in an event of the app.
async fn app_pid(process: &Process) -> Pid {
    pid(&process.event("started", |_| true).await["pid"])
}

fn pid(value: &serde_json::Value) -> Pid {
    let number = value.as_i64().and_then(|number| number.try_into().ok());
    number.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{value} is no process id"))
}

/// Waits until there is no process with this id.
async fn is_gone(pid: Pid) {
    wait_until(&format!("process {pid:?} has ended"), || test_kill_process(pid).is_err(), |gone| *gone).await;
}

/// Fails unless the app answers through the proxy.
async fn answers(proxy: &Proxy) {
    let mut stream = proxy.tls().await;
    let answer = proxy.ask(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}; it wrote:\n{}", proxy.transcript());
}
