//! A certificate and the app by one command, without a file.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use pulsegate::tls::client::{TlsClient, Trust};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::{Finished, Process};
use pulsegate_test_kit::wait::{wait_for, wait_until_async};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::pebble::{Pebble, Terms};
use super::rig::{NAME, ORDER, Ports};
use crate::PULSEGATE;

/// The exit code of the app, which ends in order at SIGTERM.
const IN_ORDER: i32 = 7;

/// The flags of a site with one name, and of one with two.
const FLAGS: [&[&str]; 2] = [
    &["--domain", NAME, "--email", "ops@acme.test"],
    &["--domain=www.acme.test", "--domain=app.acme.test", "--email=ops@acme.test", "--email=dev@acme.test"],
];

/// Returns `run` or `check` in `folder` with these flags and the app.
fn pulsegate(word: &str, flags: &[&str], folder: &Path, ports: Ports, pebble: &Pebble) -> Command {
    let mut command = Command::new(PULSEGATE);
    command.arg(word).args(flags).arg("--").arg("node").arg(project("child").join("app.js")).current_dir(folder);
    // Ports and authority of the test in the place of the public ones.
    for (key, value) in [
        ("LISTEN__ADDRESS", format!("127.0.0.1:{}", ports.tls)),
        ("TLS__ACME__DIRECTORY", pebble.directory.clone()),
        ("TLS__ACME__CA", pebble.ca.display().to_string()),
        ("TLS__ACME__STORAGE", folder.join("acme").display().to_string()),
        ("ADMIN__HEALTH", "off".to_owned()),
        ("ADMIN__SOCKET", "off".to_owned()),
        ("DRAIN__DELAY", "0s".to_owned()),
        ("DRAIN__WINDOW", "0s".to_owned()),
        ("LOG__FORMAT", "json".to_owned()),
    ] {
        command.env(format!("PULSEGATE__{key}"), value);
    }
    command
}

/// Returns the response to a client that trusts the authorities in `ca` alone; `None` if the handshake fails.
async fn get(port: u16, ca: &Path) -> Option<Response> {
    let tcp = wait_for("a connection", TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await.expect("it listens");
    let client = TlsClient::new(&Trust::File(ca.into()), None).expect("a client");
    let mut stream = wait_for("a handshake", client.handshake(NAME, tcp)).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    wait_for("the request", stream.write_all(request.as_bytes())).await.expect("it reads");
    wait_for("a response", Response::read(&mut stream)).await
}

#[tokio::test]
async fn one_command_serves_an_app_with_a_certificate() {
    for flags in FLAGS {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Terms::default()).await;
        let folder = TempDir::with_prefix("pulsegate-acme-").expect("make a temporary directory");
        let root = folder.path().join("root.pem");
        fs::write(&root, pebble.root().await).expect("write the root");
        let mut run = pulsegate("run", flags, folder.path(), ports, &pebble);
        let process = Process::start_without_input("pulsegate", &mut run);
        process.line_within(ORDER, "acme.issued", |line| line.json["message"] == "acme.issued").await;
        let response = wait_until_async("a page over TLS", async || get(ports.tls, &root).await, Option::is_some).await;
        let app = process.event("started", |_| true).await["pid"].clone();
        let response = response.expect("a response");
        assert_eq!((response.status, response.body), (200, format!("app {app}\n")), "{}", process.transcript());
        process.terminate();
        let finished = process.finish().await;
        assert_eq!(finished.code, Some(IN_ORDER), "{finished:#?}");
        assert!(finished.out.contains("\"sigterm\""), "the app ended in order: {finished:#?}");
    }
}

#[tokio::test]
async fn check_takes_the_same_command_line_and_starts_nothing() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let folder = TempDir::with_prefix("pulsegate-acme-").expect("make a temporary directory");
    let check = async |flags: &[&str]| -> Finished {
        Process::run("pulsegate check", &mut pulsegate("check", flags, folder.path(), ports, &pebble)).await
    };
    for (flags, names) in FLAGS.into_iter().zip([NAME, "www.acme.test, app.acme.test"]) {
        let checked = check(flags).await;
        let printed = &checked.succeeded().out;
        for words in
            ["  starts       node ", "/app.js, with PORT=", &format!("  orders       a certificate for {names}\n")]
        {
            assert!(printed.contains(words), "no {words:?} in {printed}");
        }
        assert!(!printed.contains("\"started\""), "{printed}");
    }
    let json = check(&[FLAGS[0], &["--format", "json"]].concat()).await;
    let json: serde_json::Value = serde_json::from_str(&json.succeeded().out).expect("JSON");
    assert!(json["starts"].as_str().is_some_and(|command| command.starts_with("node ")), "{json}");
    // The app is not started, so nothing can connect to it.
    check(&[FLAGS[0], &["--connect"]].concat()).await.failed(2, &["--connect", "cannot be used with"]);
    assert!(!folder.path().join("acme").exists(), "nothing is written");
}
