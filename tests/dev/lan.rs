//! `--lan` and `--open`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pulsegate::tls::client::Trust;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::wait_until;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Dev, command, refused, word_after};
use crate::PULSEGATE;
use crate::operate::terminal::Terminal;

/// Returns the program in a network namespace of its own, after this script.
fn in_namespace(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-ec"]);
    command.arg(format!("ip link set lo up\n{script}\nexec \"$@\"")).arg("sh");
    command.args([PULSEGATE, "dev"]).args(arguments).env("XDG_DATA_HOME", "/nonexistent");
    command
}

#[tokio::test]
async fn the_address_of_the_lan_is_found_and_is_in_the_certificate() {
    // Not every kernel has other devices.
    let network = "ip address add 192.168.77.5/24 dev lo\nip route add default dev lo src 192.168.77.5";
    let dev = Dev::from(in_namespace(network, &["--lan"])).await;
    let url = word_after(&dev.guide, "  LAN        ");
    assert_eq!(url, "https://192.168.77.5:8443/");
    assert!(
        dev.guide.contains("             https://192.168.77.5:8443/ca.crt is the CA, for a phone"),
        "{}",
        dev.guide
    );
    dev.log_line("listening address=0.0.0.0:8443").await;
    dev.end().await;
}

#[tokio::test]
async fn a_named_address_is_served_with_a_certificate_for_it() {
    // Every address of this network is this machine's own.
    let dev = Dev::start(&["--listen", "0.0.0.0:0", "--lan=127.0.0.2"]).await;
    assert!(dev.guide.contains(&format!("  LAN        https://127.0.0.2:{}/\n", dev.port)), "{}", dev.guide);
    let trust = Trust::File(dev.authority.clone());
    dev.connect(&trust, "127.0.0.2").await.expect("it is in the certificate");
    let certificate = super::get(dev.trusted().await, "/ca.crt").await;
    assert!(certificate.contains("\r\nContent-Type: application/x-x509-ca-cert\r\n"), "{certificate}");
    let pem = fs::read_to_string(&dev.authority).expect("published");
    assert!(certificate.ends_with(&pem), "{certificate}");
    dev.end().await;
}

#[tokio::test]
async fn a_terminal_shows_a_code_for_phones() {
    let words = ["dev", "--listen", "0.0.0.0:0", "--inspect", "127.0.0.1:0", "--lan=127.0.0.2"];
    let mut terminal = Terminal::start_with(&words, &[("XDG_DATA_HOME", Path::new("/nonexistent"))]);
    terminal.shows("Ctrl-C ends it").await;
    // A corner of the code, black on white.
    terminal.shows("\x1b[30;107m    █▀▀▀▀▀█ ").await;
    terminal.types(b"\x03").await;
    terminal.shows("exit 0").await;
}

#[tokio::test]
async fn a_machine_without_that_address_is_refused_with_the_way_out() {
    let alone = Process::run("pulsegate dev", &mut in_namespace("", &["--lan"])).await;
    alone.failed(1, &["this machine has no address in a local network (", "--lan=192.168.1.5"]);
    refused(&["--lan=192.0.2.1"])
        .await
        .failed(1, &["192.0.2.1 is no address of this machine", "--lan alone finds one"]);
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        let refused = refused(&[&format!("--lan={address}")]).await;
        refused.failed(1, &[address, "is not the address of one machine", "--lan alone finds one"]);
    }
    let narrow = refused(&["--lan=127.0.0.2", "--listen", "127.0.0.1:0"]).await;
    narrow.failed(1, &["--listen 127.0.0.1:0 is for this machine alone", "--listen 0.0.0.0:0"]);
    refused(&["--lan=phone"]).await.failed(2, &["--lan"]);
}

#[tokio::test]
async fn a_browser_is_opened_or_the_url_is_named() {
    let folder = TempDir::new().expect("make a temporary directory");
    let (opener, visited) = (folder.path().join("xdg-open"), folder.path().join("visited"));
    fs::write(&opener, format!("#!/bin/sh\necho \"$1\" > '{}'\n", visited.display())).expect("written");
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).expect("changed");
    let arguments = ["--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--open"];
    let mut with_screen = command(&arguments);
    with_screen.env("DISPLAY", ":99").env("PATH", folder.path());
    let dev = Dev::from(with_screen).await;
    let url = format!("https://localhost:{}/\n", dev.port);
    let read = || fs::read_to_string(&visited).unwrap_or_default();
    wait_until("the browser", read, |visited| *visited == url).await;
    dev.end().await;

    let mut without_screen = command(&arguments);
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"] {
        without_screen.env_remove(name);
    }
    without_screen.env("PATH", folder.path());
    let dev = Dev::from(without_screen).await;
    let sentence = "No browser was opened: there is no screen (DISPLAY is not set); open https://localhost:";
    dev.process.line(sentence, |line| line.text.starts_with(sentence)).await;
    dev.end().await;
}
