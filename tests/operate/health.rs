//! `pulsegate healthcheck` against the possible answers of a health listener.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::operate::fake::{Answer, Fake, Request};
use crate::operate::program::{command, finish, run};

/// Returns a health listener that is alive, and ready or not.
fn health(ready: bool) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    move |request| {
        let (status, body) = match request.line.as_str() {
            "GET /livez" => ("200 OK", "ok\n"),
            "GET /readyz" if ready => ("200 OK", "ok\n"),
            "GET /readyz" => ("503 Service Unavailable", "draining\nmore"),
            _ => ("404 Not Found", ""),
        };
        Answer::Raw(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }
}

#[tokio::test]
async fn one_line_and_an_exit_code() {
    let fake = Fake::on_a_port(health(false)).await;
    assert_eq!(run(&["healthcheck", "--address", &fake.at]).await.succeeded().out, "alive\n");
    let not_ready = run(&["healthcheck", "--ready", "--address", &format!("http://{}", fake.at)]).await;
    not_ready.failed(1, &[]);
    assert_eq!(not_ready.out, "not ready (503 Service Unavailable): draining\n");
    let fake = Fake::on_a_port(health(true)).await;
    assert_eq!(run(&["healthcheck", "--ready", "--address", &fake.at]).await.succeeded().out, "ready\n");
}

#[tokio::test]
async fn the_configuration_gives_the_address_even_if_the_rest_of_it_is_broken() {
    let fake = Fake::on_a_port(health(true)).await;
    let port = fake.at.rsplit(':').next().expect("a port");
    let dir = TempDir::new().expect("make a temporary directory");
    let file = dir.path().join("proxy.toml");
    let file_name = file.to_str().expect("UTF-8");
    // The rest of the file is missing or invalid.
    fs::write(&file, format!("[admin]\nhealth = \"0.0.0.0:{port}\"\n[nonsense]\nx = 1\n")).expect("write it");
    assert_eq!(run(&["healthcheck", "-c", file_name]).await.succeeded().out, "alive\n");
    fs::write(&file, "[admin]\nhealth = \"off\"\n").expect("write it");
    run(&["healthcheck", "-c", file_name]).await.failed(1, &["`admin.health` is \"off\"", file_name, "--address"]);
    // The variable takes precedence over the file, as it does for the proxy.
    let mut probe = command(&["healthcheck", "-c", file_name]);
    probe.env("PULSEGATE__ADMIN__HEALTH", format!("127.0.0.1:{port}"));
    assert_eq!(finish(probe).await.succeeded().out, "alive\n");
    // The file is not even TOML: a warning is printed, and the default is tried.
    fs::write(&file, "[admin\n").expect("write it");
    let mut probe = command(&["healthcheck", "-c", file_name]);
    probe.env("PULSEGATE__ADMIN__HEALTH", format!("127.0.0.1:{port}"));
    let probe = finish(probe).await;
    assert_eq!((probe.code, probe.out.as_str()), (Some(0), "alive\n"), "{probe:#?}");
    assert!(probe.err.contains("warning: ") && probe.err.contains("not valid TOML"), "{probe:#?}");
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_in_time_is_not_alive() {
    let fake = Fake::on_a_port(|_| Answer::Silence).await;
    let probe = run(&["healthcheck", "--timeout", "200ms", "--address", &fake.at]).await;
    probe.failed(1, &["no answer from", "within 200ms"]);
    // The port is taken, so that no other test gets it, and nothing listens.
    let taken = TcpSocket::new_v4().expect("a socket");
    taken.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let port = taken.local_addr().expect("it is bound").to_string();
    run(&["healthcheck", "--address", &port]).await.failed(1, &["no process listens on", "--address names another"]);
}
