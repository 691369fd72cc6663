//! A low limit of open files and many connections: the descriptors that the process needs for itself stay available.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::PULSEGATE;

/// The limit of the process.
const OPEN_FILES: usize = 300;
const FLOOD: usize = 400;

async fn livez(health: SocketAddr) -> u16 {
    let asked = async {
        let mut stream = TcpStream::connect(health).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        std::io::Result::Ok(Response::read(&mut stream).await.map_or(0, |answer| answer.status))
    };
    wait_for("/livez", asked).await.unwrap_or_else(|error| panic!("/livez: {error}"))
}

async fn administer(socket: &Path, command: &str) -> String {
    let mut program = Command::new(PULSEGATE);
    program.arg(command).arg("--admin").arg(socket).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } = wait_for(command, program.output()).await.expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command}: {status}\n{out}\n{err}");
    out.into_owned()
}

#[tokio::test]
async fn connections_leave_descriptors_for_health_admin_reload_and_the_app() {
    raise_open_file_limit(2_000);
    let app = NodeApp::bare().await;
    let dir = tempfile::TempDir::with_prefix("pulsegate-").expect("make a temporary directory");
    let socket = dir.path().join("admin.sock");
    let config = Config::to(PULSEGATE, &app.url)
        .listen("workers = 2")
        .admin("health = \"127.0.0.1:0\"")
        .admin(&format!("socket = \"{}\"", socket.display()))
        .with("[limits]\nhandshake = \"60s\"\n");
    let proxy = Proxy::start_with_open_files(config, OPEN_FILES).await;
    let listening = &proxy.logged("listening")[0];
    assert_eq!(listening["open_files"], OPEN_FILES, "{listening}");
    let health: SocketAddr = listening["health"].as_str().and_then(|text| text.parse().ok()).expect("a health port");
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let connections = proxy.connections();

    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        // A reset may arrive before the connect is complete.
        flood.extend(TcpStream::connect(proxy.address).await.ok());
    }
    let refused =
        |line: &OutputLine| line.json["message"] == "connection.refused" && line.json["reason"] == "connections";
    let line = proxy.line("a refusal", refused).await.json;
    assert!(line["mend"].as_str().is_some_and(|mend| mend.contains("LimitNOFILE")), "{line}");
    for _ in 0..6 {
        assert_eq!(livez(health).await, 200);
    }
    assert!(administer(&socket, "conns").await.contains("open"));
    administer(&socket, "reload").await;
    neighbour.echoes().await;
    assert_eq!(proxy.count(|line| line.text.contains("os error 24")), 0, "{}", proxy.transcript());

    drop(flood);
    proxy.releases(connections).await;
    // A refused client may connect now.
    wait_until("a connection is served", || proxy.connections(), |count| *count <= connections).await;
    let mut stream = proxy.tls().await;
    assert_eq!(proxy.ask(&mut stream, b"GET /request HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 200);
    drop((stream, neighbour));
    proxy.finish().await;
}
