//! `deploy/compose.yaml`: valid for Docker Compose, and its command makes a proxy in front of a real Express app.

use std::fs;

use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::made::{command, repository, run, succeed, text};
use crate::PULSEGATE;

fn file() -> String {
    fs::read_to_string(repository().join("deploy/compose.yaml")).expect("it is there")
}

/// Returns the value of the only line with this key.
#[track_caller]
fn value(key: &str) -> String {
    let file = file();
    let values: Vec<_> = file.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": ")).collect();
    let [value] = values[..] else { panic!("{key}: {values:?}") };
    value.trim_matches('\'').to_owned()
}

#[test]
fn docker_compose_accepts_the_file() {
    let folder = TempDir::with_prefix("pulsegate-compose-").expect("make a temporary directory");
    let copy = folder.path().join("compose.yaml");
    let config = || {
        let mut command = command("docker-compose");
        command.arg("--file").arg(&copy).arg("config");
        command
    };
    fs::write(&copy, file()).expect("write a file");
    let effective = succeed(&mut config());
    for line in ["network_mode: service:app", "read_only: true", "stop_grace_period: 30s", "/run/pulsegate:mode=0700"] {
        assert!(effective.contains(line), "no {line:?} in {effective}");
    }
    fs::write(&copy, file().replace("network_mode", "network_mod")).expect("write a file");
    let refused = run(&mut config());
    assert!(!refused.status.success() && text(&refused.stderr).contains("network_mod"), "{refused:?}");
}

#[test]
fn clients_reach_the_app_through_the_proxy_alone() {
    let file = file();
    let (app, proxy) = file.split_once("\n  pulsegate:\n").expect("two services");
    assert!(app.contains("HOST: 127.0.0.1") && app.contains("PORT: \"3000\""), "{app}");
    assert!(app.contains("ports:\n      - \"443:8443\"\n") && !proxy.contains("ports:"), "{file}");
    assert!(proxy.contains("depends_on:\n      - app\n"), "Compose stops the proxy before the app: {proxy}");
    let image = fs::read_to_string(repository().join("deploy/Dockerfile")).expect("it is there");
    assert!(image.contains("USER 65532:65532") && file.contains("with the owner 65532"), "{file}");
}

#[tokio::test]
async fn the_command_of_the_file_makes_a_proxy() {
    let folder = TempDir::with_prefix("pulsegate-compose-").expect("make a temporary directory");
    let pki = Pki::make(folder.path());
    let app = NodeApp::bare().await;
    let words: Vec<String> = serde_json::from_str(&value("command")).expect("a list of words");
    let here = words.into_iter().map(|word| match word.as_str() {
        "0.0.0.0:8443" => "127.0.0.1:0".to_owned(),
        "http://127.0.0.1:3000" => app.url.clone(),
        "/etc/pulsegate/tls/tls.crt" => pki.certificate.display().to_string(),
        "/etc/pulsegate/tls/tls.key" => pki.private_key.display().to_string(),
        _ => word,
    });
    let mut command = Command::new(PULSEGATE);
    command.args(here).current_dir(folder.path()).env("PULSEGATE__ORIGINS__ALLOW", value("PULSEGATE__ORIGINS__ALLOW"));
    for port in ["PULSEGATE__ADMIN__HEALTH", "PULSEGATE__ADMIN__SOCKET"] {
        command.env(port, "127.0.0.1:0");
    }
    let mut process = Process::start_without_input("pulsegate", &mut command);
    let listening = process.line("it listens", |line| line.json["message"] == "listening").await;
    let address = listening.json["address"].as_str().unwrap_or_else(|| panic!("no address in {}", listening.text));

    for (origin, status) in [("https://localhost", 101), ("https://elsewhere.example", 403)] {
        let answer = async {
            let tcp = TcpStream::connect(address).await.expect("it listens");
            let name = "localhost".try_into().expect("a name");
            let mut tls = TlsConnector::from(pki.client()).connect(name, tcp).await.expect("TLS");
            let request = format!("{}Origin: {origin}\r\n\r\n", upgrade_head("/ws"));
            tls.write_all(request.as_bytes()).await.expect("written");
            Response::read(&mut tls).await.expect("a response")
        };
        let answer = wait_for("a response", Box::pin(answer)).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.head);
    }
    process.terminate();
    process.ended().await;
}
