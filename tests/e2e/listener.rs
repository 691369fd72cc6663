//! The ports: the limits on connections, the cost of a flood, and the redirect from http to https.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PULSEGATE;

/// Returns the address of its plain HTTP port.
pub(crate) fn redirect_address(proxy: &Proxy) -> SocketAddr {
    let listening = proxy.logged("listening");
    let address = listening.first().and_then(|line| line["redirect"].as_str()).and_then(|text| text.parse().ok());
    address.unwrap_or_else(|| panic!("no redirect in {listening:?}"))
}

/// The beginning of a TLS handshake, of the kind that makes work, and nothing behind it.
const HALF: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Returns the resident memory that the kernel counts for the process, in KiB.
fn resident(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Returns the time of the slowest of 50 echoes.
async fn slowest_echo(neighbour: &Neighbour) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let begun = Instant::now();
        neighbour.echoes().await;
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

#[tokio::test]
async fn half_open_handshakes_take_little_memory_and_delay_no_other_client() {
    const FLOOD: usize = 1_000;
    /// KiB for each: the task, the library's state and the bytes that were read; a served connection takes far more.
    const EACH: u64 = 8;
    let _turn = busy_turn().await;
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nhandshake = \"10s\"\n")).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let connections = proxy.connections();
    let before = resident(&proxy);
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let mut tcp = proxy.tcp().await;
        tcp.write_all(HALF).await.expect("the kernel takes it");
        flood.push(tcp);
    }
    let held = || proxy.connections();
    // A health check may have been counted before.
    pulsegate_test_kit::wait::wait_until("all are held", held, |count| *count >= FLOOD).await;
    let slowest = slowest_echo(&neighbour).await;
    let each = resident(&proxy).saturating_sub(before) / FLOOD as u64;
    assert!(each <= EACH, "{each} KiB for each of {FLOOD} half-open handshakes");
    assert!(slowest < Duration::from_secs(1), "an echo took {slowest:?} while {FLOOD} handshakes hung");
    // The deadline closes them.
    proxy.releases(connections).await;
    neighbour.echoes().await;
    drop(flood);
    proxy.finish().await;
}

#[tokio::test]
async fn one_address_that_opens_everything_is_bounded() {
    let app = NodeApp::bare().await;
    let limits = "[limits]\nconnections = 40\nconnections_per_ip = 20\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(limits)).await;
    let neighbour = Neighbour::join(&proxy, "/ws").await;
    let mut ends = FuturesUnordered::new();
    for _ in 0..100 {
        // A refusal may be quicker than the connect itself.
        let connected = TcpStream::connect(proxy.address).await;
        ends.push(async move { connected?.read_u8().await });
    }
    // The admitted connections receive nothing: TLS waits for the client.
    for _ in 0..81 {
        let end = wait_for("one more is refused", ends.next()).await.expect("one of them");
        assert_eq!(end.expect_err("no orderly end").kind(), ErrorKind::ConnectionReset);
    }
    assert!(ends.next().now_or_never().is_none(), "20 with the neighbour");
    let is_refusal =
        |line: &OutputLine| line.json["message"] == "connection.refused" && line.json["reason"] == "connections_per_ip";
    proxy.line("the refusals", is_refusal).await;
    assert!(proxy.count(is_refusal) <= 2, "at most two lines:\n{}", proxy.transcript());
    assert!(slowest_echo(&neighbour).await < Duration::from_secs(1));
    drop(ends);
    proxy.finish().await;
}

/// Starts a proxy with a plain port and no app: a request to that port never reaches one.
async fn redirecting(limits: &str) -> (Proxy, SocketAddr) {
    let config = Config::to(PULSEGATE, "http://127.0.0.1:9").listen("redirect = \"127.0.0.1:0\"").with(limits);
    let proxy = Proxy::start(config).await;
    let address = redirect_address(&proxy);
    (proxy, address)
}

async fn ask(address: SocketAddr, request: &str) -> (Response, Vec<u8>) {
    let mut tcp = wait_for("connect", TcpStream::connect(address)).await.expect("it listens");
    tcp.write_all(request.as_bytes()).await.expect("the kernel takes it");
    let answer = wait_for("the answer", Response::read(&mut tcp)).await.expect("an answer");
    let mut rest = Vec::new();
    wait_for("the end", tcp.read_to_end(&mut rest)).await.expect("an orderly end");
    (answer, rest)
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let (proxy, address) = redirecting("").await;
    let port = proxy.address.port();
    let upload =
        format!("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: 90000\r\n\r\n{}", "x".repeat(90_000));
    for (request, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: app.example\r\n\r\n".to_owned(), "https://app.example/a?b=c".to_owned()),
        (
            format!("GET /a HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", address.port()),
            format!("https://localhost:{port}/a"),
        ),
        // A body that is not read must not end the connection of the client.
        (upload, "https://app.example/up".to_owned()),
        // One request a connection: further ones are not answered.
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "https://a/1".to_owned()),
    ] {
        let (answer, rest) = ask(address, &request).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(&*location)), "{answer:?}");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
    proxy.finish().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_on_the_plain_port_too() {
    let (proxy, address) = redirecting("[limits]\nheader_read = \"600ms\"\n").await;
    let connections = proxy.connections();
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "host"),
        ("GET / HTTP/1.1\r\nHost: user@evil\r\n\r\n".to_owned(), 400, "host"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned(), 400, "host"),
        ("\u{1} nonsense\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000)), 431, "too_large"),
        ("GET / HTTP/1.1\r\nHost: a".to_owned(), 408, "header_timeout"),
    ] {
        let (answer, _) = ask(address, &request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let is_reject = |line: &OutputLine| line.json["message"] == "http.reject" && line.json["reason"] == reason;
        proxy.line(reason, is_reject).await;
    }
    proxy.releases(connections).await;
    proxy.finish().await;
}

#[tokio::test]
async fn the_plain_port_closes_with_the_other() {
    let (mut proxy, address) = redirecting("[limits]\nheader_read = \"5s\"\n").await;
    // A connection without a request does not hold up the end.
    let mut idle = TcpStream::connect(address).await.expect("it listens");
    ask(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    proxy.terminate();
    let begun = Instant::now();
    wait_for("the end", idle.read(&mut [0; 1])).await.unwrap_or_default();
    let status = proxy.exit_within(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", proxy.transcript());
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
    TcpStream::connect(address).await.expect_err("the port is closed");
}
