//! HTTP/2 frame by frame, for what no client's library would send.

use pulsegate_test_kit::client::Tls;
use pulsegate_test_kit::http2::tls_over;
use pulsegate_test_kit::proxy::Proxy;
use pulsegate_test_kit::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which every frame is the test's own.
pub(crate) struct Raw(Tls);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `RST_STREAM`, or of a GOAWAY.
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes")))
    }
}

impl Raw {
    /// A connection whose preface and SETTINGS have been exchanged.
    pub(crate) async fn connect(proxy: &Proxy) -> Self {
        Self::connect_and_tell(proxy).await.0
    }

    /// The same, and the settings of the proxy.
    pub(crate) async fn connect_and_tell(proxy: &Proxy) -> (Self, Vec<u8>) {
        let mut raw = Self::connect_with(proxy, &frame(SETTINGS, 0, 0, b"")).await;
        let settings = raw.until("SETTINGS", |frame| frame.kind == SETTINGS && frame.flags == 0).await;
        raw.send(SETTINGS, ACK, 0, b"").await;
        (raw, settings.payload)
    }

    /// A connection on which these bytes have followed the preface.
    pub(crate) async fn connect_with(proxy: &Proxy, bytes: &[u8]) -> Self {
        Self::connect_over(proxy, proxy.tcp().await, bytes).await
    }

    /// The same over a connection of the test's own.
    pub(crate) async fn connect_over(proxy: &Proxy, tcp: TcpStream, bytes: &[u8]) -> Self {
        let mut raw = Self(tls_over(proxy, tcp).await);
        raw.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes].concat()).await;
        raw
    }

    /// Waits for the answer to a PING: all that was sent before has been read.
    pub(crate) async fn ping(&mut self) {
        self.send(PING, 0, 0, b"question").await;
        self.until("an answer to a PING", |frame| frame.kind == PING && frame.flags == ACK).await;
    }

    /// Writes `bytes` while it reads what comes, and returns the code of the GOAWAY that ends the connection.
    pub(crate) async fn floods(self, bytes: &[u8]) -> Option<u32> {
        let (mut reader, mut writer) = tokio::io::split(self.0);
        let write = async {
            // The proxy may close before it has read all of it.
            let _ = writer.write_all(bytes).await;
            let _ = writer.flush().await;
        };
        let mut all = Vec::new();
        let read = async {
            let _ = reader.read_to_end(&mut all).await;
        };
        tokio::join!(write, read);
        let mut code = None;
        while let Some(len) =
            all.get(..3).map(|len| usize::from(len[0]) << 16 | usize::from(len[1]) << 8 | usize::from(len[2]))
        {
            let Some(payload) = all.get(9..9 + len) else { break };
            if all[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
            }
            all.drain(..9 + len);
        }
        code
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        wait_for("the proxy reads", self.0.write_all(bytes)).await.expect("the connection lives");
        wait_for("the proxy reads", self.0.flush()).await.expect("the connection lives");
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// The next frame; `None` at the end of the connection, whatever kind of end it is.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        wait_for("a frame", read).await
    }

    /// The next frame that `matches`; a PING of the proxy's is answered on the way.
    pub(crate) async fn until(&mut self, what: &str, matches: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            if matches(&frame) {
                return frame;
            }
            if frame.kind == PING && frame.flags == 0 {
                self.send(PING, ACK, 0, &frame.payload).await;
            }
            seen.push(frame);
        }
        panic!("the connection ended without {what}; before came {seen:?}")
    }

    /// The next frame of this kind, to which nothing is said.
    pub(crate) async fn until_unanswered(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection lives");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// All that comes, to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }

    /// The code of the GOAWAY with which the connection ends.
    pub(crate) async fn goaway(&mut self) -> u32 {
        let all = self.rest().await;
        let code = all.iter().rfind(|frame| frame.kind == GOAWAY).and_then(Frame::code);
        code.unwrap_or_else(|| panic!("no GOAWAY in {all:?}"))
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literal fields (RFC 7541 §6.2.2), each shorter than 127 bytes.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [None, Some(name), Some(value)]) {
        match text {
            None => block.push(0),
            Some(text) => {
                block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
    }
    block
}

/// The value of a setting in the payload of SETTINGS.
pub(crate) fn setting(settings: &[u8], id: u16) -> Option<u32> {
    let found = settings.chunks(6).find(|setting| setting[..2] == id.to_be_bytes())?;
    Some(u32::from_be_bytes(found[2..].try_into().expect("four bytes")))
}

/// What every request begins with.
pub(crate) fn get(path: &'static str) -> [(&'static str, &'static str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
}

/// An extended CONNECT (RFC 8441 §4).
pub(crate) fn connect(path: &'static str) -> [(&'static str, &'static str); 6] {
    [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ]
}
