//! Tests of the accept loop, over real sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::ALL_VERSIONS;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{ConnectionLimit, EdgeLimits, ProxyProtocol, Settings};
use crate::generation::testing::{current_of, settings};
use crate::tls::testing::{Localhost, client, connect, localhost};

const TIMEOUT: Duration = Duration::from_secs(10);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("at least one")
}

#[test]
fn workers_share_the_port_that_the_first_was_given() {
    let opened = listeners(LOOPBACK, workers(3)).expect("listen");
    let addresses: Vec<_> = opened.iter().map(|listener| listener.local_addr().expect("address")).collect();
    assert_eq!(addresses.len(), 3);
    assert_ne!(addresses[0].port(), 0);
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
}

#[test]
fn a_kernel_without_ipv6_is_named_with_the_remedy() {
    assert!(port_remedy(&Errno::AFNOSUPPORT.into()).ends_with("such as 0.0.0.0"));
    assert_eq!(port_remedy(&Errno::NFILE.into()), "");
}

#[test]
fn a_port_that_somebody_listens_on_is_refused() {
    let held = listeners(LOOPBACK, workers(2)).expect("listen");
    let address = held[0].local_addr().expect("address");
    let error = listeners(address, workers(1)).expect_err("in use");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
}

#[test]
fn errors_of_one_connection_do_not_slow_the_loop() {
    for (code, alone) in [
        (Errno::CONNABORTED, true),
        (Errno::CONNRESET, true),
        (Errno::PROTO, true),
        (Errno::MFILE, false),
        (Errno::NFILE, false),
        (Errno::NOBUFS, false),
        (Errno::NOMEM, false),
    ] {
        let error = io::Error::from(code);
        assert_eq!(concerns_one_connection(&error), alone, "{error}");
    }
}

/// An accept loop with the client side of its tests.
struct Loop {
    address: SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Loop {
    /// Starts a loop that sends each client one line with its address, then echoes until the end.
    fn start(at: SocketAddr, handshake: Duration) -> Self {
        Self::behind(at, EdgeLimits { handshake, ..EdgeLimits::default() }, None)
    }

    /// As [`start`](Self::start), with `limits` and trusted `proxies`.
    fn behind(at: SocketAddr, limits: EdgeLimits, proxies: Option<&str>) -> Self {
        let Localhost { identity, certificate } = localhost();
        let listener = listeners(at, workers(1)).expect("listen").remove(0);
        let address = listener.local_addr().expect("address");
        let (metrics, tracker, stop) = (Arc::new(Metrics::new()), TaskTracker::new(), CancellationToken::new());
        let mut settings = Settings { limits, ..settings("") };
        let trusted = proxies.map(|network| vec![network.parse().expect("a network")]);
        settings.listen.proxy_protocol = trusted.map(|trusted| ProxyProtocol { trusted });
        let current = current_of(settings, identity);
        let limits = ListenerLimits {
            gate: Arc::new(ConnectionLimiter::new(current.limits(), Arc::clone(&metrics))),
            current: Arc::clone(&current),
            handshakes: true,
        };
        let accept = Accept { limits, current, metrics: Arc::clone(&metrics), tracker: tracker.clone() };
        let listener = TcpListener::from_std(listener).expect("listener");
        tracker.spawn(accept.run(listener, stop.clone(), |stream, peer: Peer| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            write.write_all(format!("{}\n", peer.address.ip()).as_bytes()).await.expect("write");
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }));
        Self { address, certificate, metrics, tracker, stop }
    }

    /// Sends `header`, performs a handshake, and returns the address that the server reports; an error if the
    /// connection was refused.
    async fn reported_address(&self, header: &[u8]) -> io::Result<String> {
        let attempt = async {
            let mut tcp = TcpStream::connect(self.address).await?;
            tcp.write_all(header).await?;
            let name = ServerName::try_from("localhost").expect("a valid name");
            let config = Arc::new(client(&self.certificate, ALL_VERSIONS));
            let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                line.push(stream.read_u8().await?);
            }
            stream.shutdown().await?;
            Ok(String::from_utf8_lossy(&line).trim().to_owned())
        };
        timeout(TIMEOUT, attempt).await.expect("in time")
    }

    fn assert_counted(&self, line: &str) {
        let text = self.metrics.encode();
        assert!(text.lines().any(|found| found == format!("pulsegate_{line}")), "no {line} in\n{text}");
    }

    async fn ended(&self) {
        self.tracker.close();
        timeout(TIMEOUT, self.tracker.wait()).await.unwrap_or_else(|_| panic!("{} tasks left", self.tracker.len()));
    }
}

#[tokio::test]
async fn a_connection_is_handed_on_and_counted_until_it_ends() {
    let port = Loop::start(LOOPBACK, TIMEOUT);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut stream = timeout(TIMEOUT, connect(&config, port.address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(TIMEOUT, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    assert_eq!(&line, b"127.0.0.1\n");
    let during = port.metrics.encode();
    assert!(during.contains("pulsegate_connections_active 1\n"), "{during}");
    assert!(
        during.contains("pulsegate_tls_handshakes_total{outcome=\"ok\",version=\"1.3\",group=\"X25519MLKEM768\"} 1\n"),
        "{during}"
    );

    stream.shutdown().await.expect("shutdown");
    let mut rest = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut rest)).await.expect("in time").expect("the end");
    port.stop.cancel();
    port.ended().await;
    let after = port.metrics.encode();
    assert!(after.contains("pulsegate_connections_active 0\n"), "{after}");
}

#[tokio::test]
async fn stopping_closes_the_port_and_leaves_connections_alone() {
    let port = Loop::start(LOOPBACK, TIMEOUT);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut stream = timeout(TIMEOUT, connect(&config, port.address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(TIMEOUT, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    port.stop.cancel();
    let refused = async {
        while TcpStream::connect(port.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, refused).await.expect("nobody listens any more");

    stream.write_all(b"still here").await.expect("write");
    let mut echo = [0; 10];
    timeout(TIMEOUT, stream.read_exact(&mut echo)).await.expect("in time").expect("echo");
    assert_eq!(&echo, b"still here");
    drop(stream);
    port.ended().await;
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody_and_is_ended() {
    let port = Loop::start(LOOPBACK, Duration::from_millis(300));
    let mut silent = TcpStream::connect(port.address).await.expect("connect");
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    timeout(TIMEOUT, connect(&config, port.address)).await.expect("in time").expect("served beside it");
    let end = timeout(TIMEOUT, silent.read(&mut [0; 1])).await.expect("ended by the deadline");
    assert!(matches!(end, Ok(0)), "{end:?}");
    let text = port.metrics.encode();
    assert!(
        text.contains("pulsegate_tls_handshakes_total{outcome=\"timeout\",version=\"none\",group=\"none\"} 1\n"),
        "{text}"
    );
}

#[tokio::test]
async fn stopping_ends_handshakes_under_way() {
    let port = Loop::start(LOOPBACK, TIMEOUT * 6);
    let mut silent = TcpStream::connect(port.address).await.expect("connect");
    // Once this connection is served, the one before it has been accepted.
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut served = timeout(TIMEOUT, connect(&config, port.address)).await.expect("in time").expect("connected");
    timeout(TIMEOUT, served.read_u8()).await.expect("in time").expect("greeting");
    drop(served);
    port.stop.cancel();
    port.ended().await;
    let end = timeout(TIMEOUT, silent.read(&mut [0; 1])).await.expect("in time");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    let text = port.metrics.encode();
    assert!(
        text.contains("pulsegate_tls_handshakes_total{outcome=\"draining\",version=\"none\",group=\"none\"} 1\n"),
        "{text}"
    );
}

#[tokio::test]
async fn connections_in_the_queue_are_taken_before_the_port_closes() {
    let listener = listeners(LOOPBACK, workers(1)).expect("listen").remove(0);
    let address = listener.local_addr().expect("address");
    // The kernel has accepted them, and no loop runs that would have taken one.
    let queued: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(address).expect("in the queue")).collect();
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let current = crate::generation::testing::current(settings(""));
    let gate = Arc::new(ConnectionLimiter::new(current.limits(), metrics));
    let limits = ListenerLimits { gate, current, handshakes: false };
    stop.cancel();
    let mut arrivals = Vec::new();
    limits.open(TcpListener::from_std(listener).expect("listener"), &stop, |arrival| arrivals.push(arrival)).await;
    assert_eq!(arrivals.len(), queued.len());
    let error = std::net::TcpStream::connect(address).expect_err("the port is closed");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    for (mut client, arrival) in queued.into_iter().zip(arrivals) {
        let (mut tcp, client_address, _) = arrival.identified(Deadline::after(TIMEOUT)).await.expect("the peer itself");
        assert_eq!(client_address, client.local_addr().expect("address"));
        io::Write::write_all(&mut client, b"x").expect("it is open");
        assert_eq!(timeout(TIMEOUT, tcp.read_u8()).await.expect("in time").expect("a byte"), b'x');
    }
}

#[tokio::test]
async fn a_client_from_the_queue_is_served_although_the_port_has_closed() {
    let port = Loop::start(LOOPBACK, TIMEOUT);
    let name = ServerName::try_from("localhost").expect("a valid name");
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let tcp = std::net::TcpStream::connect(port.address).expect("in the queue");
    tcp.set_nonblocking(true).expect("a socket");
    port.stop.cancel();
    let tcp = TcpStream::from_std(tcp).expect("a socket");
    let mut stream =
        timeout(TIMEOUT, TlsConnector::from(config).connect(name, tcp)).await.expect("in time").expect("a handshake");
    let mut line = [0; 10];
    timeout(TIMEOUT, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    assert_eq!(&line, b"127.0.0.1\n");
    drop(stream);
    port.ended().await;
}

#[tokio::test]
async fn an_ipv4_client_of_an_ipv6_listener_keeps_its_address() {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    if listeners(any, workers(1)).is_err() {
        return; // this machine has no IPv6
    }
    let port = Loop::start(any, TIMEOUT);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let address = SocketAddr::new(LOOPBACK.ip(), port.address.port());
    let mut stream = timeout(TIMEOUT, connect(&config, address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(TIMEOUT, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    assert_eq!(&line, b"127.0.0.1\n");
}

/// Sends `bytes` and returns the end of the connection: a reset, EOF, or data.
async fn end_of(address: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
    let mut tcp = TcpStream::connect(address).await.expect("the kernel accepts");
    // The reset may arrive before the bytes are written.
    let _ = tcp.write_all(bytes).await;
    timeout(TIMEOUT, tcp.read(&mut [0; 16])).await.expect("ended in time")
}

fn assert_reset(end: io::Result<usize>) {
    assert_eq!(end.expect_err("no orderly end").kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_too_many_is_cut_off_at_once_and_the_place_is_given_back() {
    for (limits, reason) in [
        (EdgeLimits { connections: ConnectionLimit::AtMost(2), ..EdgeLimits::default() }, "connections"),
        (EdgeLimits { connections_per_ip: Some(2), ..EdgeLimits::default() }, "connections_per_ip"),
    ] {
        // Two connections without a handshake occupy both places for a minute.
        let port = Loop::behind(LOOPBACK, EdgeLimits { handshake: Duration::from_mins(1), ..limits }, None);
        let idle = [TcpStream::connect(port.address).await, TcpStream::connect(port.address).await];
        assert_reset(end_of(port.address, b"").await);
        port.assert_counted(&format!("connections_refused_total{{reason=\"{reason}\"}} 1"));
        port.assert_counted("connections_active 2");
        drop(idle);
        let served = async {
            while port.reported_address(b"").await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(TIMEOUT, served).await.expect("there is room again");
    }
}

#[tokio::test]
async fn a_served_connection_keeps_its_place_until_it_is_closed() {
    let port = Loop::behind(LOOPBACK, EdgeLimits { connections_per_ip: Some(1), ..EdgeLimits::default() }, None);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut stream = timeout(TIMEOUT, connect(&config, port.address)).await.expect("in time").expect("connected");
    timeout(TIMEOUT, stream.read_u8()).await.expect("in time").expect("greeting");
    assert_reset(end_of(port.address, b"").await);
    stream.write_all(b"x").await.expect("the one that is there is left alone");
}

#[tokio::test]
async fn handshakes_beyond_the_rate_are_cut_off_before_they_begin() {
    let port = Loop::behind(LOOPBACK, EdgeLimits { handshakes_per_ip: Some(3), ..EdgeLimits::default() }, None);
    let mut refused = 0;
    // On a slow machine a second may pass, in which three more are accepted.
    let begun = Instant::now();
    for _ in 0..12 {
        let mut tcp = TcpStream::connect(port.address).await.expect("the kernel accepts");
        tcp.write_all(b"GET ").await.unwrap_or_default();
        let mut first = [0; 1];
        refused += usize::from(timeout(TIMEOUT, tcp.read(&mut first)).await.expect("in time").is_err());
    }
    let passed = 12 - refused;
    let allowed = 3 + 3 * usize::try_from(begun.elapsed().as_secs() + 1).expect("short");
    assert!((3..=allowed).contains(&passed), "{passed} of 12 passed in {:?}", begun.elapsed());
    port.assert_counted(&format!("connections_refused_total{{reason=\"handshakes_per_ip\"}} {refused}"));
}

#[tokio::test]
async fn the_address_in_the_header_is_the_clients() {
    let port = Loop::behind(LOOPBACK, EdgeLimits::default(), Some("127.0.0.0/8"));
    let v2 = |command: u8| [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11, 0, 15], &[9; 12], &[4, 0, 0]].concat();
    for (header, address) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 40000 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21), "9.9.9.9"),
        (v2(0x20), "127.0.0.1"),
    ] {
        assert_eq!(port.reported_address(&header).await.expect("served"), address, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_read_to_its_end_and_no_further() {
    let port = Loop::behind(LOOPBACK, EdgeLimits::default(), Some("127.0.0.1"));
    let attempt = async {
        let mut tcp = TcpStream::connect(port.address).await.expect("connect");
        tcp.set_nodelay(true).expect("nodelay");
        for byte in b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n" {
            tcp.write_all(&[*byte]).await.expect("write");
            tokio::task::yield_now().await;
        }
        let name = ServerName::try_from("localhost").expect("a valid name");
        let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
        let mut stream = TlsConnector::from(config).connect(name, tcp).await.expect("a handshake behind it");
        let mut line = [0; 10];
        stream.read_exact(&mut line).await.expect("greeting");
        assert_eq!(&line, b"192.0.2.7\n");
    };
    timeout(TIMEOUT, attempt).await.expect("in time");
}

#[tokio::test]
async fn without_a_sound_header_nobody_comes_in() {
    let limits = EdgeLimits { handshake: Duration::from_millis(300), ..EdgeLimits::default() };
    let port = Loop::behind(LOOPBACK, limits, Some("127.0.0.1"));
    port.reported_address(b"").await.expect_err("TLS is no header");
    assert_reset(end_of(port.address, b"PROXY TCP4 nonsense\r\n").await);
    port.assert_counted("connections_refused_total{reason=\"proxy_header\"} 2");
    // Cut in half: the deadline of the handshake also covers the header.
    for half in [&b"PROXY TCP4 192.0.2.7 198."[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01"] {
        let begun = Instant::now();
        assert_reset(end_of(port.address, half).await);
        assert!(begun.elapsed() >= limits.handshake, "after {:?}", begun.elapsed());
    }
    port.assert_counted("connections_refused_total{reason=\"proxy_cut\"} 2");
    assert_eq!(port.reported_address(b"PROXY UNKNOWN\r\n").await.expect("served"), "127.0.0.1");
}

#[tokio::test]
async fn a_header_of_somebody_else_is_not_believed() {
    let port = Loop::behind(LOOPBACK, EdgeLimits::default(), Some("192.0.2.0/24"));
    assert_reset(end_of(port.address, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n").await);
    port.reported_address(b"").await.expect_err("not even without one");
    port.assert_counted("connections_refused_total{reason=\"proxy_untrusted\"} 2");
}

#[tokio::test]
async fn a_check_of_the_port_is_no_refusal() {
    let limits = EdgeLimits { connections: ConnectionLimit::AtMost(1), ..EdgeLimits::default() };
    let port = Loop::behind(LOOPBACK, limits, Some("127.0.0.1"));
    drop(TcpStream::connect(port.address).await.expect("connect"));
    let served = async {
        while port.reported_address(b"PROXY UNKNOWN\r\n").await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, served).await.expect("the place is free again");
    port.assert_counted("connections_refused_total{reason=\"proxy_cut\"} 0");
}

#[tokio::test]
async fn limits_are_those_of_the_client_that_the_header_names() {
    let limits = EdgeLimits { connections_per_ip: Some(1), ..EdgeLimits::default() };
    let port = Loop::behind(LOOPBACK, limits, Some("127.0.0.1"));
    let header = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 40000 443\r\n");
    // This connection stays open: it is counted as soon as its header is read, before any handshake.
    let mut first = TcpStream::connect(port.address).await.expect("connect");
    first.write_all(header("192.0.2.7").as_bytes()).await.expect("write");
    let refused = async {
        while port.reported_address(header("192.0.2.7").as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, refused).await.expect("the first holds the only place");
    assert_eq!(port.reported_address(header("192.0.2.8").as_bytes()).await.expect("served"), "192.0.2.8");
}
