//! The symptoms, brought about one by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pulsegate_test_kit::frame::{BINARY, FIN, Frame, PONG};
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::wait::{wait_for, wait_until_async};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::runbook::paper::sections;
use crate::runbook::scene::{Scene, open};

const EVERY_MINUTE: &str = "All clients drop every 60 s";
const WAVES: &str = "1006 in waves";
const ONE_USER: &str = "One user again and again";
const STORM: &str = "Reconnect storm after a deploy";
const MEMORY: &str = "Memory grows";
const SLOW_READER: &str = "Sessions end with `slow_reader`";
const UNRESPONSIVE: &str = "The app is unresponsive";
const HANDSHAKES: &str = "Handshakes fail";
const RELOAD: &str = "A reload is refused";
const DRAIN: &str = "A drain takes too long";

#[test]
fn every_symptom_of_the_paper_is_played() {
    let played = [EVERY_MINUTE, WAVES, ONE_USER, STORM, MEMORY, SLOW_READER, UNRESPONSIVE, HANDSHAKES, RELOAD, DRAIN];
    let titles: Vec<String> = sections().into_iter().map(|section| section.title).collect();
    assert_eq!(titles, played);
    let commands: BTreeSet<String> = sections().into_iter().map(|section| section.command).collect();
    assert_eq!(commands.len(), played.len(), "each symptom has a command of its own: {commands:?}");
}

/// Leads connections to `to`, and cuts each that has been idle for `idle`, as load balancers do.
async fn load_balancer(to: std::net::SocketAddr, idle: Duration) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.expect("the proxy listens");
                let (mut up, mut down) = ([0; 16_384], [0; 16_384]);
                loop {
                    tokio::select! {
                        Ok(length) = client.read(&mut up) => match length {
                            0 => return,
                            length => server.write_all(&up[..length]).await.expect("the proxy reads"),
                        },
                        Ok(length) = server.read(&mut down) => match length {
                            0 => return,
                            length => client.write_all(&down[..length]).await.expect("the client reads"),
                        },
                        () = tokio::time::sleep(idle) => return,
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_load_balancer_cuts_idle_connections() {
    // The bytes between two pings are further apart than the load balancer allows.
    let mut scene = Scene::of(EVERY_MINUTE, |config| config.with("[heartbeat]\ninterval = \"5m\"")).await;
    let idle = Duration::from_secs(1);
    let balancer = load_balancer(scene.proxy.address, idle).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let tcp = TcpStream::connect(balancer).await.expect("it listens");
        let tls = TlsConnector::from(scene.proxy.pki.client()).connect(name, tcp);
        let tls = wait_for("the TLS handshake", tls).await.expect("trusted");
        let client = open(&scene.proxy, tls, "/chat", "").await;
        let (_, mut app) = wait_for("the app", scene.sessions.recv()).await.expect("the fake runs");
        // The app ends what its client has left.
        sessions.push((client, tokio::spawn(async move { app.read_to_end(&mut Vec::new()).await })));
    }
    scene.proxy.ws_closes(3).await;
    let shown = scene.plays().await;
    assert_eq!(shown.matches("1006 client's connection").count(), 3, "{shown}");
}

#[tokio::test]
async fn the_proxy_was_killed() {
    let mut scene = Scene::of(WAVES, |config| config).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(scene.session("/chat", "").await);
    }
    let scene = scene.killed_and_started().await;
    for (mut client, _) in clients {
        // No Close comes: that is 1006.
        assert!(wait_for("the end", Frame::read_past_pings(&mut client)).await.is_none());
    }
    let shown = scene.plays().await;
    assert!(shown.contains("  up 0s  ") || shown.contains("s  serving"), "{shown}");
    assert!(scene.run("pulsegate conns --state closed").await.lines().count() == 1, "nothing is remembered");
}

#[tokio::test]
async fn one_client_does_not_answer() {
    let mut scene = Scene::of(ONE_USER, |config| {
        config.with(
            "[heartbeat]\ninterval = \"300ms\"\ntimeout = \"500ms\"\n[forwarded]\ntrusted_proxies = [\"127.0.0.1\"]",
        )
    })
    .await;
    for round in 0..3 {
        let headers = "X-Forwarded-For: 203.0.113.7\r\nUser-Agent: app/2.1\r\n";
        let (mut client, app) = scene.session("/chat", headers).await;
        // It answers one ping, and is gone.
        let ping = wait_for("a ping", Frame::read(&mut client)).await.expect("it is open");
        client.write_all(&Frame::client(FIN | PONG, ping.payload).bytes()).await.expect("it is open");
        client.flush().await.expect("it is open");
        scene.proxy.ws_closes(round + 1).await;
        drop((client, app));
    }
    let shown = scene.plays().await;
    assert!(shown.contains("2 earlier sessions of 203.0.113.7 (2 ended as heartbeat_timeout)"), "{shown}");
}

#[tokio::test]
async fn every_client_comes_at_once() {
    let mut scene = Scene::of(STORM, |config| config).await;
    let playing = async {
        loop {
            drop(scene.proxy.websocket("/echo").await);
        }
    };
    let rate =
        |shown: &String| shown.lines().find_map(|line| line.split_once(" open  +")?.1.split_once("/s")?.0.parse().ok());
    let section = crate::runbook::paper::section(STORM);
    // A second in which the machine has no time for a client shows none.
    let shows_some = |shown: &String| rate(shown).is_some_and(|rate: u32| rate > 0);
    let showing = wait_until_async("sessions open", async || scene.run(&section.command).await, shows_some);
    let shown = tokio::select! {
        shown = showing => shown,
        () = playing => unreachable!("it goes on for ever"),
    };
    println!("$ {}\n{shown}", section.command);
    section.is_shown_by(&shown);
    scene.sessions.close();
}

/// Writes to the client until `enough` is held for it.
async fn flood(scene: &Scene, mut app: TcpStream) -> TcpStream {
    let frame = Frame::server(FIN | BINARY, vec![7; 65_536]).bytes();
    let full = async {
        loop {
            // Nothing goes any more: the client's receive buffer, the kernel's and the proxy's are full.
            let write = tokio::time::timeout(Duration::from_millis(1500), app.write_all(&frame)).await;
            if write.is_err() {
                return;
            }
        }
    };
    wait_for("the client's way is full", full).await;
    let held = async || {
        let json = scene.run("pulsegate conns --sort -held --limit 1 --format json").await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        json["connections"][0]["out"]["buffered"].as_u64().unwrap_or(0)
    };
    assert!(held().await > 0, "nothing is held");
    app
}

#[tokio::test]
async fn bytes_are_held_for_a_client_that_does_not_read() {
    let mut scene = Scene::of(MEMORY, |config| config.with("[heartbeat]\nwrite_stall = \"5m\"")).await;
    let idle = scene.session("/chat", "").await;
    let (client, app) = scene.session("/feed", "").await;
    let app = flood(&scene, app).await;
    let shown = scene.plays().await;
    let first = shown.lines().nth(1).expect("a row");
    assert!(first.contains(" /feed ") && first.contains("iB"), "{shown}");
    assert!(shown.lines().nth(2).is_some_and(|row| row.contains(" /chat ") && row.ends_with("  0B")), "{shown}");
    drop((idle, client, app));
}

#[tokio::test]
async fn a_client_stops_reading() {
    let mut scene = Scene::of(SLOW_READER, |config| config.with("[heartbeat]\nwrite_stall = \"1500ms\"")).await;
    let (client, mut app) = scene.session("/feed", "").await;
    let flooding = tokio::spawn(async move {
        let frame = Frame::server(FIN | BINARY, vec![7; 65_536]).bytes();
        while app.write_all(&frame).await.is_ok() {}
    });
    scene.proxy.ws_closes(1).await;
    let shown = scene.plays().await;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    flooding.abort();
    drop(client);
}

#[tokio::test]
async fn the_app_answers_nothing() {
    // Its kernel accepts, and it reads and writes nothing, as a process that hangs.
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let url = format!("http://{}", hanging.local_addr().expect("bound"));
    let scene = Scene::of(UNRESPONSIVE, |config| {
        config.at(&url).upstream("interval = \"300ms\"\ntimeout = \"400ms\"\ngive_up = \"1m\"")
    })
    .await;
    let line = |line: &pulsegate_test_kit::process::OutputLine| line.json["message"] == "upstream.unresponsive";
    scene.proxy.line("the app is found unresponsive", line).await;
    let shown = scene.plays().await;
    assert!(shown.contains(&url) && shown.contains("no response within 400ms"), "{shown}");
}

#[tokio::test]
async fn clients_do_not_trust_the_certificate() {
    let scene = Scene::of(HANDSHAKES, |config| config).await;
    let folder = tempfile::TempDir::new().expect("make a temporary directory");
    let other = Pki::make(folder.path());
    for _ in 0..3 {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let connector = TlsConnector::from(Arc::clone(&other.client()));
        wait_for("a handshake", connector.connect(name, scene.proxy.tcp().await)).await.expect_err("not trusted");
    }
    let mut plain = scene.proxy.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let _ = wait_for("an answer", plain.read_to_end(&mut answer)).await;
    let mut silent = scene.proxy.tcp().await;
    silent.shutdown().await.expect("shut down");
    let counted = async {
        loop {
            let all = scene.run("curl -s \"$METRICS\"").await;
            let has = |outcome: &str, count: &str| {
                all.lines().any(|line| line.contains(&format!("outcome=\"{outcome}\"")) && line.ends_with(count))
            };
            if has("alert", " 3") && has("plain_http", " 1") && has("peer_gone", " 1") {
                return;
            }
        }
    };
    wait_for("every handshake is counted", counted).await;
    let shown = scene.plays().await;
    assert!(!shown.contains("outcome=\"ok\""), "{shown}");
}

#[tokio::test]
async fn the_file_has_a_wrong_key() {
    let scene = Scene::of(RELOAD, |config| config.with("[heartbeat]\ninterval = \"10s\"")).await;
    scene.edit(|text| text.replace("interval = \"10s\"", "intervall = \"10s\""));
    let shown = scene.plays().await;
    assert!(shown.contains("generation 1 stays in force") && shown.contains("did you mean `interval`?"), "{shown}");
}

#[tokio::test]
async fn a_client_does_not_answer_its_close() {
    let mut scene = Scene::of(DRAIN, |config| {
        config.drain("delay = \"0s\"\nwindow = \"1m\"").with("[heartbeat]\nclose_grace = \"1m\"\nwrite_stall = \"5m\"")
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(scene.session("/chat", "").await);
    }
    scene.run("pulsegate drain").await;
    // One of them has its Close, and says nothing.
    let closing = async || scene.run("pulsegate conns").await.matches(" closing ").count();
    let begun = async { while closing().await == 0 {} };
    wait_for("one of them is closing", begun).await;
    let shown = scene.plays().await;
    assert!(shown.contains(" closing "), "{shown}");
    drop(clients);
}
