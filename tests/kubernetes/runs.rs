//! The app of the example behind the built program, with the configuration that the component and the chart render.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::{OutputLine, Process};
use pulsegate_test_kit::wait::wait_for;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::made::{Charts, kustomize, proxy_toml, root};
use crate::PULSEGATE;

const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Writes the head of a request and reads the response.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str) -> Response {
    let exchange = async {
        stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("written");
        Response::read(stream).await.expect("a response")
    };
    wait_for("a response", Box::pin(exchange)).await
}

async fn tcp(address: SocketAddr) -> TcpStream {
    wait_for("a connection", TcpStream::connect(address)).await.expect("it listens")
}

/// Returns the port in a field of the line `listening`.
fn port(listening: &OutputLine, field: &str) -> u16 {
    let address = listening.json[field].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
    address.unwrap_or_else(|| panic!("no address in {}", listening.text)).port()
}

/// Runs the app and the proxy, and asks over IPv4 and IPv6 as clients, pages and the kubelet do.
async fn serves(configuration: &str) {
    let mut app = Command::new("node");
    // The packages are those of the tests' own app, which are the same.
    app.arg("server.js").current_dir(root().join("deploy/kubernetes/example/app"));
    app.env("NODE_PATH", project("express").join("node_modules")).env("PORT", "0");
    let mut app = Process::start_without_input("server.js", &mut app);
    let listening = app.line("the app listens", |line| line.text.starts_with("listening ")).await;
    let url = listening.text.replace("listening ", "http://127.0.0.1:");

    let folder = TempDir::with_prefix("pulsegate-kubernetes-").expect("make a directory");
    let pki = Pki::make(folder.path());
    fs::write(folder.path().join("proxy.toml"), configuration).expect("write the configuration");
    let mut proxy = Command::new(PULSEGATE);
    proxy.args(["run", "-c", "proxy.toml"]).current_dir(folder.path());
    // As in the file, but for the ports and folders, which are those of a pod.
    for (key, value) in [
        ("LISTEN__ADDRESS", "[::]:0"),
        ("ADMIN__HEALTH", "[::]:0"),
        ("ADMIN__SOCKET", folder.path().join("admin.sock").to_str().expect("a path that is text")),
        ("TLS__CERTIFICATE", pki.certificate.to_str().expect("a path that is text")),
        ("TLS__PRIVATE_KEY", pki.private_key.to_str().expect("a path that is text")),
        ("UPSTREAM__URL", &url),
    ] {
        proxy.env(format!("PULSEGATE__{key}"), value);
    }
    let mut proxy = Process::start_without_input("pulsegate", &mut proxy);
    let listening = proxy.line("it listens", |line| line.json["message"] == "listening").await;
    let (https, health) = (port(&listening, "address"), port(&listening, "health"));

    for ip in LOCALHOST {
        let connect = async || {
            let name = "localhost".try_into().expect("a name");
            let handshake = TlsConnector::from(pki.client()).connect(name, tcp((ip, https).into()).await);
            wait_for("TLS", handshake).await.expect("the certificate is trusted")
        };
        let page = ask(&mut connect().await, "GET / HTTP/1.1\r\nHost: localhost\r\n").await;
        assert_eq!(page.body, format!("Hello {ip} by https\n"), "{page:?}");
        for (origin, status) in [("https://localhost", 101), ("https://elsewhere.example", 403)] {
            let head = format!("{}Origin: {origin}\r\n", upgrade_head("/ws"));
            let answer = ask(&mut connect().await, &head).await;
            assert_eq!(answer.status, status, "{origin}: {}", answer.head);
        }
        for path in ["/startupz", "/livez", "/readyz", "/metrics"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
            let answer = ask(&mut tcp((ip, health).into()).await, &head).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
    }
    proxy.terminate();
    proxy.ended().await;
    app.terminate();
    assert!(app.ended().await.success(), "{}", app.transcript());
}

#[tokio::test]
async fn the_app_runs_behind_the_configuration_of_the_component() {
    serves(&proxy_toml(&kustomize("deploy/kubernetes/example/overlay"))).await;
}

#[tokio::test]
async fn the_app_runs_behind_the_configuration_of_the_chart() {
    serves(&proxy_toml(&Charts::build("helm4").render("express-example", &[]))).await;
}

/// The lock file of the example holds what the tests have tried.
#[test]
fn the_packages_of_the_example_are_those_of_the_tests() {
    let read = |file: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(root().join(file)).expect("it is there")).expect("JSON")
    };
    let (example, tests) =
        (read("deploy/kubernetes/example/app/package-lock.json"), read("tests/express/package-lock.json"));
    let packages = example["packages"].as_object().expect("packages");
    assert!(packages.len() > 50, "only {}", packages.len());
    for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
        assert_eq!(package["version"], tests["packages"][path]["version"], "{path}");
    }
}
