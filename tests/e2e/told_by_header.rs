//! The PROXY protocol towards the app: the header of each connection, and the sharing of connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ppp::v2::{Addresses, Command, Header};
use pulsegate_test_kit::client::{Tls, upgrade_head};
use pulsegate_test_kit::fake_app::RequestHead;
use pulsegate_test_kit::frame::{FIN, Frame, TEXT};
use pulsegate_test_kit::http1::read_head;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;

const TRUSTED: &str = "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }";

/// A connection that the app got: its header in short, and its request lines.
type Seen = (String, Vec<String>);

/// An app that reads a header of version 2 with another implementation before it reads HTTP.
struct App {
    url: String,
    seen: Arc<Mutex<BTreeMap<usize, Seen>>>,
    accepting: JoinHandle<()>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the system's choice");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let seen: Arc<Mutex<BTreeMap<usize, Seen>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, number, Arc::clone(&shared)));
            }
        });
        Self { url, seen, accepting }
    }

    /// Returns the request lines that arrived over connections for clients.
    fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().filter(|(header, _)| header != "local").cloned().collect()
    }

    /// Returns the requests of the proxy's own.
    fn probes(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.values().filter(|(header, _)| header == "local");
        own.flat_map(|(_, requests)| requests.clone()).collect()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, number: usize, seen: Arc<Mutex<BTreeMap<usize, Seen>>>) {
    let mut header = vec![0; 16];
    if stream.read_exact(&mut header).await.is_err() {
        return;
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + rest, 0);
    if stream.read_exact(&mut header[16..]).await.is_err() {
        return;
    }
    let summary = match Header::try_from(header.as_slice()) {
        Ok(Header { command: Command::Local, .. }) => "local".to_owned(),
        Ok(Header { addresses: Addresses::IPv4(of), .. }) => {
            let from = SocketAddr::from((of.source_address, of.source_port));
            format!("{from} to {}", SocketAddr::from((of.destination_address, of.destination_port)))
        }
        other => format!("{other:?}"),
    };
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (summary, Vec::new()));
    while let Some(head) = read_head(&mut stream).await {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let request = RequestHead { head };
        if let Some((_, lines)) = seen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&number) {
            lines.push(line);
        }
        if request.header("upgrade").is_some() {
            let _ = stream.write_all(request.accept().as_bytes()).await;
            while let Some(frame) = Frame::read(&mut stream).await {
                let _ = stream.write_all(&Frame::server(frame.first, frame.payload).bytes()).await;
            }
            return;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// Opens a connection of the client at `address`, as a balancer in front names it.
async fn client(proxy: &Proxy, address: &str) -> Tls {
    let mut tcp = proxy.tcp().await;
    let line = format!("PROXY TCP4 {address} 198.51.100.1 40000 443\r\n");
    tcp.write_all(line.as_bytes()).await.expect("the connection lives");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client()).connect(name, tcp);
    wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted")
}

async fn get(proxy: &Proxy, stream: &mut Tls, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = proxy.ask(stream, request.as_bytes()).await;
    assert_eq!((answer.status, &*answer.body), (200, "ok"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_names_its_client_and_is_shared_with_no_other() {
    let app = App::start().await;
    let config =
        Config::to(PULSEGATE, &app.url).listen(TRUSTED).listen("workers = 1").upstream("proxy_protocol = \"v2\"");
    let proxy = Proxy::start(config).await;
    let mut one = client(&proxy, "192.0.2.7").await;
    let mut other = client(&proxy, "203.0.113.9").await;
    get(&proxy, &mut one, "/1").await;
    get(&proxy, &mut other, "/2").await;
    get(&proxy, &mut one, "/3").await;
    get(&proxy, &mut other, "/4").await;
    let header = |client: &str| format!("{client}:40000 to {}", proxy.address);
    let lines = |paths: [&str; 2]| paths.map(|path| format!("GET {path} HTTP/1.1")).to_vec();
    let expected = [(header("192.0.2.7"), lines(["/1", "/3"])), (header("203.0.113.9"), lines(["/2", "/4"]))];
    assert_eq!(app.seen(), expected);

    let answer = proxy.ask(&mut one, format!("{}\r\n", upgrade_head("/ws")).as_bytes()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let sent = Frame::client(FIN | TEXT, "hello");
    one.write_all(&sent.bytes()).await.expect("open");
    let echoed = wait_for("the echo", Frame::read(&mut one)).await.expect("open");
    assert_eq!(echoed.payload, sent.payload);
    let upgraded = (header("192.0.2.7"), vec!["GET /ws HTTP/1.1".to_owned()]);
    assert_eq!(app.seen().last(), Some(&upgraded), "a session has a connection of its own");
    // The first health check was a request of the proxy's own.
    let is_probe = |probes: &Vec<String>| probes.iter().any(|line| line == "OPTIONS * HTTP/1.1");
    wait_until("a health check", || app.probes(), is_probe).await;
    drop((one, other));
    proxy.finish().await;
}

#[tokio::test]
async fn the_header_to_the_app_has_the_client_that_a_trusted_proxy_names() {
    let app = App::start().await;
    let config = Config::to(PULSEGATE, &app.url)
        .upstream("proxy_protocol = \"v2\"")
        .with("[forwarded]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let proxy = Proxy::start(config).await;
    let mut stream = proxy.tls().await;
    for client in ["192.0.2.7", "203.0.113.9"] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n");
        assert_eq!(proxy.ask(&mut stream, request.as_bytes()).await.status, 200);
    }
    let clients: Vec<String> = app.seen().into_iter().map(|(header, _)| header).collect();
    let header = |client: &str| format!("{client}:0 to {}", proxy.address);
    assert_eq!(
        clients,
        [header("192.0.2.7"), header("203.0.113.9")],
        "one connection of the proxy in front, two clients"
    );
    drop(stream);
    proxy.finish().await;
}
