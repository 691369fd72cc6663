//! Compiled under `#[cfg(test)]` only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::ALL_VERSIONS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::tls::testing::{Localhost, client, connect, localhost};

const PATIENCE: Duration = Duration::from_secs(10);
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
fn a_port_that_somebody_listens_on_is_refused() {
    let held = listeners(LOOPBACK, workers(2)).expect("listen");
    let address = held[0].local_addr().expect("address");
    let error = listeners(address, workers(1)).expect_err("in use");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
}

#[test]
fn errors_of_one_connection_do_not_slow_the_loop() {
    for (code, alone) in [
        (libc::ECONNABORTED, true),
        (libc::ECONNRESET, true),
        (libc::EPROTO, true),
        (libc::EMFILE, false),
        (libc::ENFILE, false),
        (libc::ENOBUFS, false),
        (libc::ENOMEM, false),
    ] {
        let error = io::Error::from_raw_os_error(code);
        assert_eq!(concerns_one_connection(&error), alone, "{error}");
    }
}

#[test]
fn complaints_are_rare_and_keep_count() {
    let mut complaints = Complaints::default();
    let start = Instant::now();
    assert_eq!(complaints.due(start), Some(1), "the first at once");
    assert_eq!(complaints.due(start + Duration::from_secs(1)), None);
    assert_eq!(complaints.due(start + Duration::from_secs(4)), None);
    assert_eq!(complaints.due(start + COMPLAINT_INTERVAL), Some(3), "it stands for the silent ones too");
}

/// One accept loop, and what is needed to meet it.
struct Loop {
    address: SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Loop {
    /// Serves every connection by one line with the client's address, and an echo to the end.
    fn start(at: SocketAddr, handshake: Duration) -> Self {
        let Localhost { identity, certificate } = localhost();
        let listener = listeners(at, workers(1)).expect("listen").remove(0);
        let address = listener.local_addr().expect("address");
        let terminator = Arc::new(Terminator::new(identity).expect("terminator"));
        let (metrics, tracker, stop) = (Arc::new(Metrics::new()), TaskTracker::new(), CancellationToken::new());
        let accept = Accept { terminator, handshake, metrics: Arc::clone(&metrics), tracker: tracker.clone() };
        let listener = TcpListener::from_std(listener).expect("listener");
        tracker.spawn(accept.run(listener, stop.clone(), |stream, peer: Peer| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            write.write_all(format!("{}\n", peer.address.ip()).as_bytes()).await.expect("write");
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }));
        Self { address, certificate, metrics, tracker, stop }
    }

    async fn ended(&self) {
        self.tracker.close();
        timeout(PATIENCE, self.tracker.wait()).await.unwrap_or_else(|_| panic!("{} tasks left", self.tracker.len()));
    }
}

#[tokio::test]
async fn a_connection_is_handed_on_and_counted_until_it_ends() {
    let port = Loop::start(LOOPBACK, PATIENCE);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut stream = timeout(PATIENCE, connect(&config, port.address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    assert_eq!(&line, b"127.0.0.1\n");
    let during = port.metrics.encode();
    assert!(during.contains("pulsegate_connections_active 1\n"), "{during}");
    assert!(during.contains("pulsegate_tls_handshakes_total{outcome=\"ok\"} 1\n"), "{during}");

    stream.shutdown().await.expect("shutdown");
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time").expect("the end");
    port.stop.cancel();
    port.ended().await;
    let after = port.metrics.encode();
    assert!(after.contains("pulsegate_connections_active 0\n"), "{after}");
}

#[tokio::test]
async fn stopping_closes_the_port_and_leaves_connections_alone() {
    let port = Loop::start(LOOPBACK, PATIENCE);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut stream = timeout(PATIENCE, connect(&config, port.address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    port.stop.cancel();
    let refused = async {
        while TcpStream::connect(port.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("nobody listens any more");

    stream.write_all(b"still here").await.expect("write");
    let mut echo = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.expect("in time").expect("echo");
    assert_eq!(&echo, b"still here");
    drop(stream);
    port.ended().await;
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody_and_is_ended() {
    let port = Loop::start(LOOPBACK, Duration::from_millis(300));
    let mut silent = TcpStream::connect(port.address).await.expect("connect");
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    timeout(PATIENCE, connect(&config, port.address)).await.expect("in time").expect("served beside it");
    let end = timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("ended by the deadline");
    assert!(matches!(end, Ok(0)), "{end:?}");
    let text = port.metrics.encode();
    assert!(text.contains("pulsegate_tls_handshakes_total{outcome=\"timeout\"} 1\n"), "{text}");
}

#[tokio::test]
async fn stopping_ends_handshakes_under_way() {
    let port = Loop::start(LOOPBACK, PATIENCE * 6);
    let mut silent = TcpStream::connect(port.address).await.expect("connect");
    // Once this one is served, the one before it has been accepted.
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let mut served = timeout(PATIENCE, connect(&config, port.address)).await.expect("in time").expect("connected");
    timeout(PATIENCE, served.read_u8()).await.expect("in time").expect("greeting");
    drop(served);
    port.stop.cancel();
    port.ended().await;
    let end = timeout(PATIENCE, silent.read(&mut [0; 1])).await.expect("in time");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    let text = port.metrics.encode();
    assert!(text.contains("pulsegate_tls_handshakes_total{outcome=\"draining\"} 1\n"), "{text}");
}

#[tokio::test]
async fn an_ipv4_client_of_an_ipv6_listener_keeps_its_address() {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    if bound(any, Sharing::Workers).is_err() {
        return; // this machine has no IPv6
    }
    let port = Loop::start(any, PATIENCE);
    let config = Arc::new(client(&port.certificate, ALL_VERSIONS));
    let address = SocketAddr::new(LOOPBACK.ip(), port.address.port());
    let mut stream = timeout(PATIENCE, connect(&config, address)).await.expect("in time").expect("connected");
    let mut line = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("in time").expect("greeting");
    assert_eq!(&line, b"127.0.0.1\n");
}
