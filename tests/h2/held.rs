//! What is held for a client that reads slowly or not at all: no more than a bound, which `limits.memory` knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until, wait_until_async};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::PULSEGATE;
use crate::h2::raw::{self, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE};

/// An app that answers without end, and counts the bytes that were taken of it and the requests.
async fn endless() -> (FakeApp, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (written, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = (Arc::clone(&written), Arc::clone(&requests));
    let fake = FakeApp::start(move |_, mut stream| {
        let (written, requests) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            requests.fetch_add(1, Ordering::Relaxed);
            SockRef::from(&stream).set_send_buffer_size(16 * 1024).expect("a small buffer of its own");
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            while let Ok(bytes) = stream.write(&[b'x'; 16 * 1024]).await {
                written.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    })
    .await;
    (fake, written, requests)
}

/// Returns the count once it has stood still for a second.
async fn at_rest(written: &AtomicUsize) -> usize {
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut last = written.load(Ordering::Relaxed);
    loop {
        sleep(Duration::from_secs(1)).await;
        let now = written.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return now;
        }
        assert!(Instant::now() < give_up, "the app still writes after {now} bytes");
        last = now;
    }
}

/// The settings and the update of a client whose windows stand wide open.
fn wide_open() -> Vec<u8> {
    let window = [&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat();
    [raw::frame(SETTINGS, 0, 0, &window), raw::frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())].concat()
}

/// A connection of a client that takes little into its own kernel.
async fn narrow(proxy: &Proxy) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    socket.connect(proxy.address).await.expect("the proxy listens")
}

/// What the kernel takes by itself of a connection with HTTP/2, besides all buffers.
const H2_SOCKET: usize = 4 << 20;

#[tokio::test]
async fn little_of_a_response_is_taken_for_a_client_that_does_not_read() {
    const MOST: usize = 1_500_000;
    let (app, written, _) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).listen("workers = 1")).await;
    // Few connections may have what they can get; in a crowd each has its share.
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(proxy.tls().await);
    }
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    let handshake = tokio_rustls::TlsConnector::from(proxy.pki.client()).connect(name, narrow(&proxy).await);
    let mut h1 = wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    h1.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    h1.flush().await.expect("sent");
    let taken = at_rest(&written).await;
    assert!(taken < MOST, "{taken} bytes over HTTP/1.1");

    let mut h2 = Raw::connect_over(&proxy, narrow(&proxy).await, &wide_open()).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &raw::block(&raw::get("/"))).await;
    let taken = at_rest(&written).await - taken;
    assert!(taken < MOST + H2_SOCKET, "{taken} bytes over HTTP/2");
    drop((h1, h2, crowd));
    proxy.finish().await;
}

#[tokio::test]
async fn what_is_held_for_a_connection_does_not_grow_with_its_streams() {
    let (app, _, requests) = endless().await;
    let health = "health = \"127.0.0.1:0\"";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).admin(health).admin("socket = \"off\"")).await;
    let mut client = Raw::connect_over(&proxy, narrow(&proxy).await, &wide_open()).await;
    for number in 0..100 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &raw::block(&raw::get("/"))).await;
    }
    let asked = || requests.load(Ordering::Relaxed);
    wait_until("all requests reach the app", asked, |asked| *asked == 100).await;
    let mut held = 0;
    let give_up = Instant::now() + Duration::from_secs(30);
    // Nothing is held for long before the socket takes no more.
    for _ in 0..20 {
        sleep(Duration::from_millis(200)).await;
        held = buffered(&proxy, "out").await.max(held);
        assert!(Instant::now() < give_up, "the metrics come too slowly");
    }
    assert!(held > 64 * 1024, "{held} bytes: what is held is not counted");
    assert!(held < 2 << 20, "{held} bytes for a connection with a hundred streams");
    drop(client);
    let held = async || buffered(&proxy, "out").await;
    wait_until_async("nothing is held for a client that is gone", held, |held| *held == 0).await;
    proxy.finish().await;
}

/// The gauge of what is held in one direction.
async fn buffered(proxy: &Proxy, direction: &str) -> usize {
    let address = proxy.logged("listening")[0]["health"].as_str().expect("an address").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("metrics");
    let name = format!("pulsegate_buffered_bytes{{direction=\"{direction}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().expect("a number")
}

#[tokio::test]
async fn a_reader_of_a_response_has_a_least_rate_and_one_that_keeps_it_is_served() {
    let (app, _, _) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nwrite_stall = \"3s\"\n")).await;
    for (rate, is_served) in [(20, false), (2000, true)] {
        let window = [0, 4, 0, 0, 0, 100];
        let mut client = Raw::connect_with(&proxy, &raw::frame(SETTINGS, 0, 0, &window)).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &raw::block(&raw::get("/"))).await;
        let begun = Instant::now();
        let mut reset = None;
        // So slow a reader takes something in every second.
        while begun.elapsed() < Duration::from_secs(10) && reset.is_none() {
            client.send(WINDOW_UPDATE, 0, 1, &(rate / 10_u32).to_be_bytes()).await;
            while let Ok(Some(frame)) = timeout(Duration::from_millis(100), client.next()).await {
                if frame.kind == RST_STREAM {
                    reset = frame.code();
                    break;
                }
            }
        }
        let took = begun.elapsed();
        assert_eq!(reset, if is_served { None } else { Some(8) }, "at {rate} bytes a second, after {took:?}");
        assert!(is_served || took >= Duration::from_secs(3), "after {took:?}");
    }
    proxy.finish().await;
}

/// A client of HTTP/1.1 with small buffers that has asked for a response without end.
async fn h1_reader(proxy: &Proxy) -> TlsStream<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
    // The client's window opens by a segment at a time.
    SockRef::from(&socket).set_tcp_mss(536).expect("small segments");
    let tcp = socket.connect(proxy.address).await.expect("the proxy listens");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    let handshake = tokio_rustls::TlsConnector::from(proxy.pki.client()).connect(name, tcp);
    let mut client = wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    client.flush().await.expect("sent");
    client
}

#[tokio::test]
async fn what_is_held_for_a_reader_over_http1_is_counted() {
    let (app, written, _) = endless().await;
    let health = "health = \"127.0.0.1:0\"";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).admin(health).admin("socket = \"off\"")).await;
    let client = h1_reader(&proxy).await;
    let held = async || buffered(&proxy, "out").await;
    wait_until_async("what is held is counted", held, |held| *held >= 32 * 1024).await;
    at_rest(&written).await;
    let most = held().await;
    assert!(most < 512 * 1024, "{most} bytes are held");
    drop(client);
    wait_until_async("nothing is held for a client that is gone", held, |held| *held == 0).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_reader_over_http1_that_takes_too_little_is_let_go() {
    let (app, written, _) = endless().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[limits]\nwrite_stall = \"6s\"\n")).await;
    let ended = || proxy.logged("http.access").len();
    for (rate, is_served) in [(120, false), (4000, true)] {
        let client = h1_reader(&proxy).await;
        // From here on what it reads makes room for more.
        at_rest(&written).await;
        let (begun, before) = (Instant::now(), ended());
        let mut piece = vec![0; rate / 10];
        // A reader that is served is read from for two `write_stall`s.
        let limit = Duration::from_secs(if is_served { 12 } else { 20 });
        while begun.elapsed() < limit && ended() == before {
            sleep(Duration::from_millis(100)).await;
            // Below TLS, which reads as much as there is. At its end the log says so.
            let _ = client.get_ref().0.try_read(&mut piece);
        }
        assert_eq!(ended() > before, !is_served, "at {rate} bytes a second, after {:?}", begun.elapsed());
    }
    proxy.finish().await;
}
