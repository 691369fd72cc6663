//! Frames that break RFC 6455: Close 1002 to the offender, an orderly end for the other side.

use pulsegate_test_kit::client::{Neighbour, Tls};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{BINARY, CLOSE, FIN, Frame, PING, RSV1, TEXT};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PULSEGATE;

/// A frame of the wrong kind, from a peer that masks as it should.
type Break = (&'static str, fn(&dyn Fn(u8, Vec<u8>) -> Frame) -> Vec<u8>);

const BREAKS: &[Break] = &[
    ("a reserved data opcode", |frame| frame(FIN | 0x3, vec![1]).bytes()),
    ("a reserved control opcode", |frame| frame(FIN | 0xB, vec![]).bytes()),
    ("RSV1 without an extension", |frame| frame(FIN | RSV1 | TEXT, b"x".to_vec()).bytes()),
    ("RSV1 on a control frame", |frame| frame(FIN | RSV1 | PING, vec![]).bytes()),
    ("a ping of 126 bytes", |frame| frame(FIN | PING, vec![0; 126]).bytes()),
    ("a fragmented ping", |frame| frame(PING, vec![]).bytes()),
    ("a length with the top bit set", |frame| {
        lengthened(&frame(FIN | BINARY, vec![]).bytes(), &[127, 0x80, 0, 0, 0, 0, 0, 0, 1])
    }),
];

/// Returns the header of the empty frame `bytes`, with `length` in the place of its length; its mask bit is kept.
fn lengthened(bytes: &[u8], length: &[u8]) -> Vec<u8> {
    let mut header = vec![bytes[0]];
    header.extend(length);
    header[1] |= bytes[1] & 0x80;
    header.extend(&bytes[2..]);
    header
}

struct Scene {
    _fake: FakeApp,
    proxy: Proxy,
    neighbour: Neighbour,
    client: Tls,
    upstream: TcpStream,
    connections: usize,
}

impl Scene {
    async fn open(sections: &str) -> Self {
        let (fake, mut sessions) = FakeApp::sessions().await;
        let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(sections)).await;
        let neighbour = Neighbour::join(&proxy, "/echo").await;
        let connections = proxy.connections();
        let client = proxy.upgraded("/raw").await;
        let (_, upstream) = wait_for("the session reaches the app", sessions.recv()).await.expect("the fake runs");
        Self { _fake: fake, proxy, neighbour, client, upstream, connections }
    }

    /// Asserts that both sides got a Close, the log has `reason`, the neighbour works and no socket is left.
    async fn ends(mut self, what: &str, offender: Offender, code: u16, reason: &str) {
        let (at_client, at_upstream) = tokio::join!(close_on(&mut self.client), close_on(&mut self.upstream));
        let (received, other) = match offender {
            Offender::Client => (at_client, at_upstream),
            Offender::Upstream => (at_upstream, at_client),
        };
        let received = received.unwrap_or_else(|| panic!("{what}: the offender got no Close"));
        assert_eq!(received.close().map(|(code, _)| code), Some(code), "{what}: {received:?}");
        let other = other.unwrap_or_else(|| panic!("{what}: the other side got no Close"));
        let (other_code, _) = other.close().unwrap_or_else(|| panic!("{what}: {other:?} has no code"));
        assert!(matches!(other_code, 1000..=1003 | 1007..=1014 | 4000..=4999), "{what}: {other:?}");

        let line = self.proxy.ws_close(|line| line["close.reason"] == reason).await.json;
        assert_eq!(line["close.code"], if matches!(offender, Offender::Client) { code } else { other_code }, "{line}");
        drop((self.client, self.upstream));
        self.neighbour.echoes().await;
        self.proxy.releases(self.connections).await;
        self.proxy.finish().await;
    }
}

#[derive(Clone, Copy)]
enum Offender {
    Client,
    Upstream,
}

/// Returns the first Close frame of a leg, with nothing but pings before it.
async fn close_on(stream: &mut (impl AsyncRead + AsyncWriteExt + Unpin)) -> Option<Frame> {
    let frame = wait_for("a Close or the end", Frame::read_past_pings(stream)).await?;
    assert_eq!(frame.opcode(), CLOSE, "the broken frame was passed on: {frame:?}");
    // Echoed, as RFC 6455 §5.5.1 requires; the proxy may have closed the connection of an offender.
    let echo = if frame.mask.is_some() { Frame::server } else { Frame::client };
    let _ = stream.write_all(&echo(FIN | CLOSE, frame.payload.clone()).bytes()).await;
    let _ = stream.flush().await;
    Some(frame)
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_gets_1002() {
    for (what, broken) in BREAKS {
        let mut scene = Scene::open("").await;
        scene.client.write_all(&broken(&|first, payload| Frame::client(first, payload))).await.expect("it is open");
        scene.client.flush().await.expect("it is open");
        scene.ends(what, Offender::Client, 1002, "protocol_error").await;
    }
}

#[tokio::test]
async fn an_app_that_breaks_the_protocol_gets_1002() {
    for (what, broken) in BREAKS {
        let mut scene = Scene::open("").await;
        scene.upstream.write_all(&broken(&|first, payload| Frame::server(first, payload))).await.expect("it is open");
        scene.ends(what, Offender::Upstream, 1002, "protocol_error").await;
    }
}

#[tokio::test]
async fn an_unmasked_client_frame_gets_1002() {
    let mut scene = Scene::open("").await;
    scene.client.write_all(&Frame::server(FIN | TEXT, "bare").bytes()).await.expect("it is open");
    scene.client.flush().await.expect("it is open");
    scene.ends("an unmasked frame", Offender::Client, 1002, "protocol_error").await;
}

#[tokio::test]
async fn a_masked_server_frame_gets_1002() {
    let mut scene = Scene::open("").await;
    scene.upstream.write_all(&Frame::client(FIN | TEXT, "masked").bytes()).await.expect("it is open");
    scene.ends("a masked frame", Offender::Upstream, 1002, "protocol_error").await;
}

#[tokio::test]
async fn a_frame_over_the_limit_gets_1009_in_either_direction() {
    let limits = "[limits]\nframe = \"1KiB\"\n";
    let mut scene = Scene::open(limits).await;
    scene.client.write_all(&Frame::client(FIN | BINARY, vec![0; 1_025]).bytes()).await.expect("it is open");
    scene.client.flush().await.expect("it is open");
    scene.ends("a large client frame", Offender::Client, 1009, "too_big").await;

    let mut scene = Scene::open(limits).await;
    scene.upstream.write_all(&Frame::server(FIN | BINARY, vec![0; 1_025]).bytes()).await.expect("it is open");
    scene.ends("a large server frame", Offender::Upstream, 1009, "too_big").await;
}
