//! One session on a route where the proxy sends the application's heartbeat; the test controls both ends.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Neighbour, Tls};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::frame::{CLOSE, FIN, Frame, TEXT};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PULSEGATE;

/// A client and an app with the proxy between them, and a neighbour's session.
pub(crate) struct Spoken {
    _fake: FakeApp,
    /// The proxy between them.
    pub(crate) proxy: Proxy,
    neighbour: Neighbour,
    /// The client's end.
    pub(crate) client: Tls,
    /// The app's end.
    pub(crate) app: TcpStream,
    connections: usize,
}

impl Spoken {
    /// Opens a session under `heartbeat`, which is the body of a section. The neighbour's heartbeat is the default.
    pub(crate) async fn open(heartbeat: &str) -> Self {
        let (fake, mut sessions) = FakeApp::sessions().await;
        let route = format!("[[route]]\npath = \"/raw\"\n[route.heartbeat]\n{heartbeat}\n");
        let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(&route)).await;
        let neighbour = Neighbour::join(&proxy, "/echo").await;
        let connections = proxy.connections();
        let client = proxy.upgraded("/raw").await;
        let (_, app) = wait_for("the session reaches the app", sessions.recv()).await.expect("the fake runs");
        Self { _fake: fake, proxy, neighbour, client, app, connections }
    }

    /// Sends a frame from the client.
    pub(crate) async fn client_sends(&mut self, frame: &Frame) {
        self.client.write_all(&frame.bytes()).await.expect("the session lives");
        self.client.flush().await.expect("the session lives");
    }

    /// Sends a whole text message from the client.
    pub(crate) async fn client_says(&mut self, text: &str) {
        self.client_sends(&Frame::client(FIN | TEXT, text)).await;
    }

    /// Sends a frame from the app.
    pub(crate) async fn app_sends(&mut self, frame: &Frame) {
        self.app.write_all(&frame.bytes()).await.expect("the session lives");
    }

    /// Returns the next frame at the client.
    pub(crate) async fn client_hears(&mut self) -> Frame {
        wait_for("a frame for the client", Frame::read(&mut self.client)).await.expect("the session lives")
    }

    /// Fails unless the next frame at the client is the whole text message `text`.
    pub(crate) async fn client_hears_text(&mut self, text: &str) {
        assert_eq!(self.client_hears().await, Frame::server(FIN | TEXT, text));
    }

    /// Fails unless the next frame at the app is `frame`, bit for bit. The proxy's own probe of the app may come before
    /// it.
    pub(crate) async fn app_hears(&mut self, frame: &Frame) {
        let heard = wait_for("a frame for the app", Frame::read_past_pings(&mut self.app)).await;
        let frames = [heard.expect("the session lives"), frame.clone()];
        assert!(frames[0] == frames[1], "the app received the first, not the second of {}", briefly(&frames));
    }

    /// Fails unless the app, after all earlier frames have been read, receives nothing but this mark.
    pub(crate) async fn app_hears_nothing_but_a_mark(&mut self) {
        let mark = Frame::client(FIN | TEXT, "mark");
        self.client_sends(&mark).await;
        self.app_hears(&mark).await;
    }

    /// Fails if the client receives anything for `time`.
    pub(crate) async fn client_hears_nothing_for(&mut self, time: Duration) {
        if let Ok(frame) = timeout(time, Frame::read(&mut self.client)).await {
            panic!("the client received {frame:?}");
        }
    }

    /// Asserts that the proxy ends the session: both ends get a proper Close, the client this one; the neighbour works,
    /// and no socket is left.
    pub(crate) async fn ends(self, code: u16) -> End {
        self.ends_amid(&[], code).await
    }

    /// As [`Self::ends`], while the client sends `frames` in turn, repeatedly, ten a second.
    pub(crate) async fn ends_amid(mut self, frames: &[Frame], code: u16) -> End {
        let (mut reading, mut writing) = tokio::io::split(self.client);
        let (client_heard, client_code) = tokio::select! {
            end = wait_for("the client's end", until_close(&mut reading)) => end,
            never = trickle(&mut writing, frames) => match never {},
        };
        let at = Instant::now();
        self.client = reading.unsplit(writing);
        assert_eq!(client_code, Some(code), "the client received {}", briefly(&client_heard));
        // Answered, as RFC 6455 §5.5.1 requires; the proxy may have closed the connection already.
        let _ = self.client.write_all(&Frame::client(FIN | CLOSE, code.to_be_bytes()).bytes()).await;
        let _ = self.client.flush().await;

        let (app_heard, app_code) = wait_for("the app's end", until_close(&mut self.app)).await;
        let proper = matches!(app_code, Some(1000..=1003 | 1007..=1014 | 4000..=4999));
        assert!(proper, "the app got {app_code:?}; it had received {}", briefly(&app_heard));
        let _ = self.app.write_all(&Frame::server(FIN | CLOSE, code.to_be_bytes()).bytes()).await;

        drop((self.client, self.app));

        let line = self.proxy.ws_close(|line| line["url.path"] == "/raw").await.json;
        assert_eq!(line["close.initiator"], "proxy", "{line}");
        assert_eq!(line["close.code"], code, "{line}");
        assert_eq!(line["upstream.close_code"].as_u64(), app_code.map(u64::from), "{line}");
        self.neighbour.echoes().await;
        self.proxy.releases(self.connections).await;
        self.proxy.finish().await;
        End { at, line, client_heard, app_heard }
    }

    /// Asserts that the session is open at its end: the neighbour works, the proxy has closed nothing.
    pub(crate) async fn lives(self) {
        self.neighbour.echoes().await;
        assert!(self.proxy.logged("ws.close").is_empty(), "{}", self.proxy.transcript());
        self.proxy.finish().await;
    }
}

/// The end of a session.
#[derive(Debug)]
pub(crate) struct End {
    /// The time at which the client got its Close.
    pub(crate) at: Instant,
    /// Its `ws.close`.
    pub(crate) line: Value,
    /// The frames that the client received before its Close.
    pub(crate) client_heard: Vec<Frame>,
    /// The frames that the app received before its Close, without the proxy's own probes.
    pub(crate) app_heard: Vec<Frame>,
}

/// Sends `frames` in turn, until a write fails.
async fn trickle(stream: &mut (impl AsyncWrite + Unpin), frames: &[Frame]) -> Infallible {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for frame in frames.iter().cycle() {
        ticks.tick().await;
        if stream.write_all(&frame.bytes()).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Returns everything up to a Close, and its code; none when the stream just ends.
async fn until_close(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<Frame>, Option<u16>) {
    let mut heard = Vec::new();
    loop {
        match Frame::read_past_pings(stream).await {
            Some(frame) if frame.opcode() == CLOSE => return (heard, frame.close().map(|(code, _)| code)),
            Some(frame) => heard.push(frame),
            None => return (heard, None),
        }
    }
}

/// Formats frames for the message of a failure: of a long payload the beginning.
fn briefly(frames: &[Frame]) -> String {
    let brief = |frame: &Frame| {
        let shown = &frame.payload[..frame.payload.len().min(40)];
        format!("[{:02x}, {} bytes {:?}]", frame.first, frame.payload.len(), String::from_utf8_lossy(shown))
    };
    frames.iter().map(brief).collect()
}
