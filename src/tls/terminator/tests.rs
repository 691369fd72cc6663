//! Tests of the TLS handshake and its failures.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::super::testing::{Localhost, TIMEOUT, client, connect, listen, localhost, within};
use super::*;
use crate::relay::Leg;

type Handshaken = Result<(ClientStream, TlsFacts), HandshakeError>;

/// A terminator and the port on which it accepts.
struct Port {
    terminator: Terminator,
    listener: TcpListener,
    address: SocketAddr,
    certificate: rustls::pki_types::CertificateDer<'static>,
}

impl Port {
    async fn open() -> Self {
        let Localhost { identity, certificate } = localhost();
        let (listener, address) = listen().await;
        Self { terminator: Terminator::new(identity).expect("terminator"), listener, address, certificate }
    }

    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(client(&self.certificate, ALL_VERSIONS))
    }

    /// Performs one handshake with the next client that connects, within `after`.
    async fn handshake(&self, after: Duration) -> Handshaken {
        let (tcp, _) = within("accept", self.listener.accept()).await.expect("accept");
        within("handshake", self.terminator.handshake(tcp, Deadline::after(after))).await
    }

    /// Performs a handshake with a TLS client of `config`; returns the outcome of both sides.
    async fn meet(&self, config: Arc<ClientConfig>) -> (Handshaken, io::Result<TlsStream<TcpStream>>) {
        tokio::join!(self.handshake(TIMEOUT), within("connect", connect(&config, self.address)))
    }

    /// Connects a client that sends `bytes` unencrypted; returns the server's outcome and all bytes that the client
    /// reads.
    async fn meet_raw(&self, bytes: &[u8]) -> (HandshakeError, Vec<u8>) {
        let raw = async {
            let mut tcp = TcpStream::connect(self.address).await.expect("connect");
            tcp.write_all(bytes).await.expect("write");
            let mut answer = Vec::new();
            // A reset also ends the connection; the bytes before it count.
            let _ = within("read to the end", tcp.read_to_end(&mut answer)).await;
            answer
        };
        let (outcome, answer) = tokio::join!(self.handshake(TIMEOUT), raw);
        (outcome.map(drop).expect_err("no handshake"), answer)
    }
}

#[tokio::test]
async fn a_default_client_gets_tls_1_3_with_the_post_quantum_group() {
    let port = Port::open().await;
    let (server, client) = port.meet(port.client()).await;
    let (mut stream, facts) = server.expect("handshake");
    let mut client = client.expect("connected");
    assert_eq!((facts.version, facts.group), ("1.3", Some("X25519MLKEM768")));

    client.write_all(b"ping").await.expect("write");
    let mut read = [0; 4];
    within("read", stream.read_exact(&mut read)).await.expect("read");
    assert_eq!(&read, b"ping");
    stream.write_all(b"pong").await.expect("write");
    stream.shutdown().await.expect("shutdown");
    let mut rest = Vec::new();
    within("read", client.read_to_end(&mut rest)).await.expect("an orderly end, with close_notify");
    assert_eq!(rest, b"pong");
}

#[tokio::test]
async fn tls_1_2_works_too() {
    let port = Port::open().await;
    let (server, connected) = port.meet(Arc::new(client(&port.certificate, &[&TLS12]))).await;
    connected.expect("connected");
    assert_eq!(server.expect("handshake").1.version, "1.2");
}

#[tokio::test]
async fn the_servers_order_of_cipher_suites_counts() {
    let port = Port::open().await;
    for version in [&TLS12, &TLS13] {
        let of_version = |suite: &&rustls::SupportedCipherSuite| suite.version() == version;
        let preferred = super::super::provider().cipher_suites.iter().find(of_version).expect("a suite").suite();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.reverse();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(port.certificate.clone()).expect("a usable root");
        let reversed = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (server, connected) = port.meet(Arc::new(reversed)).await;
        server.expect("handshake");
        let connected = connected.expect("connected");
        let agreed = connected.get_ref().1.negotiated_cipher_suite().expect("a suite").suite();
        // The key of the certificate decides the signature algorithm, and with it half of the cipher suites of TLS 1.2.
        assert_eq!(agreed, preferred, "{version:?}");
    }
}

#[test]
fn the_cipher_suites_are_those_that_the_readme_lists_in_this_order() {
    let readme = include_str!("../../../config/README.md");
    let listed: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("- `TLS")?.split('`').next()).collect();
    let spoken: Vec<String> = super::super::provider()
        .cipher_suites
        .iter()
        .map(|suite| format!("{:?}", suite.suite()).trim_start_matches("TLS").to_owned())
        .collect();
    assert_eq!(listed, spoken);
}

#[tokio::test]
async fn http_2_is_preferred_and_http_1_1_is_for_all_others() {
    let port = Port::open().await;
    let both: [&[u8]; 2] = [b"http/1.1", b"h2"];
    for (offered, protocol) in [(&both[..], Protocol::H2), (&both[..1], Protocol::H1), (&[], Protocol::H1)] {
        let mut config = client(&port.certificate, ALL_VERSIONS);
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let (server, connected) = port.meet(Arc::new(config)).await;
        assert_eq!(server.expect("handshake").1.protocol, protocol);
        connected.expect("connected");
    }

    let mut config = client(&port.certificate, ALL_VERSIONS);
    config.alpn_protocols = vec![b"h3".to_vec()];
    let (server, connected) = port.meet(Arc::new(config)).await;
    let error = server.map(drop).expect_err("nothing in common");
    assert_eq!(error.outcome(), "refused", "{error}");
    let failure = connected.expect_err("refused").to_string();
    assert!(failure.contains("NoApplicationProtocol"), "the client learns why: {failure}");
}

#[tokio::test]
async fn a_second_connection_resumes_in_both_versions() {
    for version in [&TLS13, &TLS12] {
        let port = Port::open().await;
        let config = Arc::new(client(&port.certificate, &[version]));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (server, connected) = port.meet(Arc::clone(&config)).await;
            let (mut stream, _) = server.expect("handshake");
            let mut connected = connected.expect("connected");
            assert_eq!(connected.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            // In TLS 1.3 the tickets follow the handshake; the client reads on to receive them.
            stream.write_all(b"x").await.expect("write");
            within("read", connected.read_u8()).await.expect("read");
        }
    }
}

#[tokio::test]
async fn the_deadline_ends_a_client_that_never_finishes() {
    let port = Port::open().await;
    // The first bytes of a ClientHello, and nothing more.
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut tcp = TcpStream::connect(port.address).await.expect("connect");
        tcp.write_all(begun).await.expect("write");
        let began = Instant::now();
        let after = Duration::from_millis(200);
        let error = port.handshake(after).await.map(drop).expect_err("out of time");
        assert!(matches!(error, HandshakeError::Timeout), "{error}");
        assert!(began.elapsed() >= after, "ended after {:?}", began.elapsed());
        let ended = within("the end", tcp.read(&mut [0; 1])).await;
        assert!(!matches!(ended, Ok(1..)), "closed without a word: {ended:?}");
    }
}

#[tokio::test]
async fn plain_http_is_pointed_to_https() {
    let port = Port::open().await;
    let long = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\n\r\n{}", "x".repeat(50_000));
    for request in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &long] {
        let (error, answer) = port.meet_raw(request.as_bytes()).await;
        assert_eq!(error.outcome(), "plain_http", "{error}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with("use https:// (or wss://) instead of http:// here.\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_plain_request_in_pieces_is_recognised() {
    let port = Port::open().await;
    let pieces = async {
        let mut tcp = TcpStream::connect(port.address).await.expect("connect");
        tcp.set_nodelay(true).expect("nodelay");
        for piece in [&b"DEL"[..], b"ETE", b" / HTTP/1.1\r\n\r\n"] {
            tcp.write_all(piece).await.expect("write");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        within("answer", tcp.read_to_string(&mut answer)).await.expect("read");
        answer
    };
    let (outcome, answer) = tokio::join!(port.handshake(TIMEOUT), pieces);
    assert_eq!(outcome.map(drop).expect_err("no handshake").outcome(), "plain_http");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn garbage_is_distinguished_from_tls() {
    let port = Port::open().await;
    let looks_like_tls = [&b"\x16\x03\x01\x00\x20"[..], &[0xee; 32]].concat();
    for garbage in [&b"\x00\xff\x00\xff"[..], b"SSH-2.0-x\r\n", &looks_like_tls] {
        let (error, answer) = port.meet_raw(garbage).await;
        assert_eq!(error.outcome(), "not_tls", "{garbage:x?}: {error}");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_hello_without_an_end_is_ended() {
    let port = Port::open().await;
    // One message of 60,000 bytes, in records of 4,000.
    let mut body = vec![1, 0, 0xea, 0x60];
    body.resize(60_004, 3);
    let records = |length: usize| -> Vec<u8> {
        body[..length]
            .chunks(4_000)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).expect("short").to_be_bytes();
                [&[22, 3, 1][..], &length, part].concat()
            })
            .collect()
    };
    let (error, answer) = port.meet_raw(&records(20_000)).await;
    assert_eq!(error.outcome(), "refused", "{error}");
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 50], "decode_error");
    // Below the limit, the server waits for the rest.
    let mut tcp = TcpStream::connect(port.address).await.expect("connect");
    tcp.write_all(&records(12_000)).await.expect("write");
    let error = port.handshake(Duration::from_millis(200)).await.map(drop).expect_err("out of time");
    assert_eq!(error.outcome(), "timeout", "{error}");
}

#[tokio::test]
async fn a_client_that_goes_away_is_routine() {
    let port = Port::open().await;
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = TcpStream::connect(port.address).await.expect("connect");
        tcp.write_all(begun).await.expect("write");
        drop(tcp);
        let error = port.handshake(TIMEOUT).await.map(drop).expect_err("nobody there");
        assert_eq!(error.outcome(), "peer_gone", "{error}");
        assert!(error.is_routine());
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_says_so() {
    let port = Port::open().await;
    let stranger = localhost().certificate;
    // In TLS 1.3 the server may finish its handshake before the client's alert arrives; in 1.2 it waits for the client.
    let (server, connected) = port.meet(Arc::new(client(&stranger, &[&TLS12]))).await;
    connected.expect_err("not trusted");
    let error = server.map(drop).expect_err("refused by the client");
    assert_eq!(error.outcome(), "alert", "{error}");
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[tokio::test]
async fn delivery_catches_up_with_what_was_written() {
    let port = Port::open().await;
    let (server, connected) = port.meet(port.client()).await;
    let (mut stream, _) = server.expect("handshake");
    let mut connected = connected.expect("connected");
    let before = stream.written();
    assert!(before > 0, "the handshake was written too");
    stream.write_all(&vec![7; 20_000]).await.expect("write");
    stream.flush().await.expect("flush");
    let written = stream.written();
    assert!(written - before > 20_000, "{} bytes for 20,000 with encryption", written - before);
    within("read", connected.read_exact(&mut vec![0; 20_000])).await.expect("read");

    let caught_up = async {
        loop {
            let acked = stream.delivery().expect("this kernel tells").acked;
            // The kernel may count the handshake's own octet.
            if acked >= written {
                assert!(acked <= written + 1, "{acked} acknowledged of {written} written");
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("acknowledgement", caught_up).await;
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[tokio::test]
async fn unread_bytes_are_seen() {
    let port = Port::open().await;
    let (server, connected) = port.meet(port.client()).await;
    let (mut stream, _) = server.expect("handshake");
    let mut connected = connected.expect("connected");
    let unread = |stream: &ClientStream| stream.delivery().expect("this kernel tells").unread;
    assert!(!unread(&stream), "nothing sent yet");
    connected.write_all(b"x").await.expect("write");
    connected.flush().await.expect("flush");
    let arrives = async {
        while !unread(&stream) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("arrival", arrives).await;
    assert_eq!(within("read", stream.read_u8()).await.expect("read"), b'x');
    assert!(!unread(&stream), "all read");
}

#[tokio::test]
async fn an_abort_is_a_reset() {
    let port = Port::open().await;
    let (server, connected) = port.meet(port.client()).await;
    let (mut stream, _) = server.expect("handshake");
    let mut connected = connected.expect("connected");
    stream.abort_on_drop();
    drop(stream);
    let error = within("the reset", connected.read_to_end(&mut Vec::new())).await.expect_err("no orderly end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}
