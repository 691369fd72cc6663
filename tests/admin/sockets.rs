//! The listeners of the admin API: a unix socket, a port, a port with TLS.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::proxy::Config;
use pulsegate_test_kit::wait::wait_for;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;
use crate::admin::rig::{Reply, Rig, exchange, request};

/// Returns the output of a proxy that cannot start with its admin socket at `path`.
async fn fails_to_start(path: &Path) -> String {
    let dir = TempDir::new().expect("make a temporary directory");
    let pki = Pki::make(dir.path());
    let config = Config::to(PULSEGATE, "http://127.0.0.1:9").admin("health = \"off\"");
    let config = config.admin(&format!("socket = {:?}", path.display().to_string()));
    let file = dir.path().join("proxy.toml");
    fs::write(&file, config.toml(([127, 0, 0, 1], 0).into(), &pki)).expect("write the configuration");
    let mut command = Command::new(PULSEGATE);
    command.arg("run").arg("-c").arg(&file).stdin(Stdio::null()).kill_on_drop(true);
    let output = wait_for("its end", command.output()).await.expect("it starts");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[tokio::test]
async fn the_unix_socket_is_the_owners_and_goes_with_the_program() {
    let rig = Rig::start().await;
    let path = rig.socket();
    let found = fs::symlink_metadata(&path).expect("it is there");
    assert!(found.file_type().is_socket());
    assert_eq!(format!("{:o}", found.permissions().mode() & 0o7777), "600");
    assert_eq!(rig.listening("admin"), path.display().to_string());

    let output = fails_to_start(&path).await;
    for word in [path.to_str().expect("UTF-8"), "admin.socket", "in use by a running program", "use another path"] {
        assert!(output.contains(word), "no {word:?} in {output}");
    }
    rig.get("/v1/info").await;

    let Rig { proxy, dir: _dir, app: _app, .. } = rig;
    proxy.finish().await;
    assert!(!path.exists(), "it is removed at the end");
}

#[tokio::test]
async fn what_a_killed_program_leaves_behind_is_replaced_and_a_file_is_not() {
    let mut rig = Rig::start().await;
    let path = rig.socket();
    rig.proxy.kill().await;
    assert!(path.exists(), "a killed process removes nothing");

    let socket = format!("socket = {:?}", path.display().to_string());
    let config = Config::to(PULSEGATE, &rig.app.url).admin("health = \"off\"").admin(&socket);
    let successor = pulsegate_test_kit::proxy::Proxy::start(config).await;
    let mut stream = wait_for("connect", tokio::net::UnixStream::connect(&path)).await.expect("the successor listens");
    let info = exchange(&mut stream, &request("GET", "/v1/info", ["Host: localhost"], "")).await;
    assert_eq!(info.status, 200, "{info:?}");
    drop(stream);
    successor.finish().await;

    fs::write(&path, "precious").expect("write a file");
    let output = fails_to_start(&path).await;
    assert!(output.contains("is no socket; remove it or use another path"), "{output}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    fs::remove_file(&path).expect("it is ours");
    // A bound socket without a listener is the leftover of a dead program, too.
    drop(UnixListener::bind(&path).expect("bind"));
    let output = fails_to_start(&path.join("below")).await;
    assert!(output.contains("admin.sock/below (admin.socket): Not a directory"), "{output}");
}

#[tokio::test]
async fn a_port_of_the_loopback_answers_without_a_token() {
    let (app, _sessions) = pulsegate_test_kit::fake_app::FakeApp::sessions().await;
    let config = Config::to(PULSEGATE, &app.url).admin("health = \"off\"").admin("socket = \"127.0.0.1:0\"");
    let proxy = pulsegate_test_kit::proxy::Proxy::start(config).await;
    let address = proxy.logged("listening").swap_remove(0)["admin"].as_str().expect("an address").to_owned();
    let ask = async |host: &str, origin: Option<&str>| {
        let mut stream = wait_for("connect", TcpStream::connect(&address)).await.expect("it listens");
        let headers = [format!("Host: {host}")].into_iter().chain(origin.map(|origin| format!("Origin: {origin}")));
        let headers: Vec<_> = headers.collect();
        exchange(&mut stream, &request("GET", "/v1/info", headers.iter().map(String::as_str), "")).await
    };
    let own = format!("http://{address}");
    for (host, origin) in [(address.as_str(), None), ("localhost:1", None), (&address, Some(own.as_str()))] {
        let reply = ask(host, origin).await;
        assert_eq!((reply.status, &reply.json["admin_token"]), (200, &false.into()), "{host} {origin:?} {reply:?}");
    }
    ask("rebound.example", None).await.refuses(421, "host", &["rebound.example", "admin.socket"]);
    ask("rebound.example", Some("http://rebound.example")).await.refuses(421, "host", &[]);
    ask(&address, Some("https://evil.example")).await.refuses(403, "origin", &["evil.example"]);
    ask(&address, Some("http://127.0.0.1:1")).await.refuses(403, "origin", &[]);
    proxy.finish().await;
}

#[tokio::test]
async fn a_port_with_tls_accepts_nothing_else_and_requires_the_token() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let dir = TempDir::new().expect("make a temporary directory");
    let file = dir.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).expect("write the token");
    let token_file = format!("token_file = {:?}", file.display().to_string());
    let (app, _sessions) = pulsegate_test_kit::fake_app::FakeApp::sessions().await;
    let config = Config::to(PULSEGATE, &app.url).admin("health = \"off\"").admin("socket = \"127.0.0.1:0\"");
    let proxy = pulsegate_test_kit::proxy::Proxy::start(config.admin("tls = true").admin(&token_file)).await;
    let listening = proxy.logged("listening").swap_remove(0);
    let address = listening["admin"].as_str().expect("an address").trim_start_matches("https://").to_owned();

    let connect = async || {
        let tcp = wait_for("connect", TcpStream::connect(&address)).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        wait_for("the handshake", TlsConnector::from(proxy.pki.client()).connect(name, tcp))
            .await
            .expect("it is trusted")
    };
    let ask = async |headers: &[&str]| -> Reply {
        let headers = ["Host: localhost"].into_iter().chain(headers.iter().copied());
        exchange(&mut connect().await, &request("GET", "/v1/info", headers, "")).await
    };
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let found = ask(&[&bearer]).await;
    assert_eq!((found.status, &found.json["admin_token"]), (200, &true.into()), "{found:?}");
    assert_eq!(ask(&[&bearer, "Origin: https://localhost"]).await.status, 200);
    ask(&[&bearer, "Origin: http://localhost"]).await.refuses(403, "origin", &[]);

    let almost = format!("Authorization: Bearer {}0", &TOKEN[1..]);
    let longer = format!("{bearer}0");
    let basic = format!("Authorization: Basic {TOKEN}");
    for headers in [
        &[] as &[&str],
        &[&almost],
        &[&longer],
        &[&bearer, &bearer],
        &[&bearer, &almost],
        &[&basic],
        &["Authorization: Bearer"],
    ] {
        let reply = ask(headers).await;
        reply.refuses(401, "token", &["admin.token_file"]);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"pulsegate\""), "{reply:?}");
    }
    let path = exchange(&mut connect().await, &request("GET", "/nowhere", ["Host: localhost"], "")).await;
    path.refuses(401, "token", &[]);

    let mut plain = wait_for("connect", TcpStream::connect(&address)).await.expect("it listens");
    let head = request("GET", "/v1/info", ["Host: localhost", &bearer], "");
    plain.write_all(head.as_bytes()).await.expect("the kernel takes it");
    let mut rest = Vec::new();
    // The end, or a reset.
    let _ = wait_for("its end", plain.read_to_end(&mut rest)).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("HTTP/1.1 400 ") && rest.contains("This port speaks TLS"), "{rest}");
    proxy.finish().await;
}
