//! The app behind every proxy, on plain TCP: a WebSocket echo and bodies to fetch, with minimal cost.
//!
//! `GET /body/LENGTH` returns that many bytes of the [`Pattern`], from `?from=PLACE` on, and keeps the connection.
//! A request with `Sec-WebSocket-Key` is upgraded to an echo, whatever its path.
//!
//! The echo turns the stream of incoming frames into the stream of echoes piece by piece, so that it buffers no message
//! and needs two buffers for all connections together.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tungstenite::handshake::derive_accept_key;

use crate::frame::{Decoder, FrameError, Header, Opcode, Part};
use crate::head::{Head, HeadError};
use crate::pattern::Pattern;

/// The longest body.
pub const LARGEST_BODY: usize = 1024 * 1024;

/// The content of all bodies. The client compares with the same pattern.
static BODIES: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(LARGEST_BODY));

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// The read buffer and the echo buffer of all connections. Never borrowed across an await.
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; SCRATCH], Vec::with_capacity(2 * SCRATCH)));
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A proxy may cut a connection off at any time; the client of that connection detects it.
                    if let Err(error @ (UpstreamError::Frame(_) | UpstreamError::Request { .. })) =
                        connection(stream).await
                    {
                        eprintln!("echo upstream: {error}");
                    }
                });
            }
            Err(error) => {
                eprintln!("echo upstream: cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection until either side ends it.
pub async fn connection(mut stream: TcpStream) -> Result<(), UpstreamError> {
    stream.set_nodelay(true)?;
    let mut early = Vec::new();
    let mut answer = Vec::new();
    loop {
        let (head, rest) = Head::read_on(&mut stream, early).await?;
        if let Some(key) = head.field("Sec-WebSocket-Key") {
            return upgraded(stream, key, rest).await;
        }
        let Some(place) = body_asked_for(head.start_line()) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
            return Err(UpstreamError::Request { line: head.start_line().into() });
        };
        early = rest;
        answer.clear();
        answer.extend_from_slice(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
                place.len()
            )
            .as_bytes(),
        );
        answer.extend_from_slice(BODIES.bytes(place));
        stream.write_all(&answer).await?;
    }
}

/// Returns the place of the body in a request line: `/body/LENGTH`, optionally with `?from=PLACE`.
fn body_asked_for(line: &str) -> Option<Range<usize>> {
    let (target, _) = line.strip_prefix("GET ")?.split_once(' ')?;
    let what = target.strip_prefix("/body/")?;
    let (length, from) = what.split_once("?from=").unwrap_or((what, "0"));
    let length = length.parse().ok().filter(|length| *length <= LARGEST_BODY)?;
    BODIES.at(from.parse().ok()?, length)
}

/// Responds to the upgrade and echoes.
async fn upgraded(mut stream: TcpStream, key: &str, mut early: Vec<u8>) -> Result<(), UpstreamError> {
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;

    let mut echo = Echo::default();
    let mut out = Vec::new();
    let mut flow = echo.feed(&mut early, &mut out)?;
    stream.write_all(&out).await?;
    while flow == Flow::Open {
        stream.readable().await?;
        let (next, unsent) = match step(&stream, &mut echo) {
            Ok(done) => done,
            Err(UpstreamError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        stream.write_all(&unsent).await?;
        flow = next;
    }
    stream.shutdown().await?;
    Ok(())
}

/// Reads once, echoes the bytes, and returns the echo that the socket did not take.
fn step(stream: &TcpStream, echo: &mut Echo) -> Result<(Flow, Vec<u8>), UpstreamError> {
    BUFFERS.with_borrow_mut(|(input, out)| {
        out.clear();
        let flow = match stream.try_read(input)? {
            0 => Flow::Closed,
            read => echo.feed(&mut input[..read], out)?,
        };
        let written = match stream.try_write(out) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        Ok((flow, out[written..].to_vec()))
    })
}

/// The state of the connection after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

/// A converter of a client's frames into their echoes.
#[derive(Debug, Default)]
struct Echo {
    decoder: Decoder,
}

impl Echo {
    fn feed(&mut self, mut input: &mut [u8], out: &mut Vec<u8>) -> Result<Flow, FrameError> {
        while let Some(part) = self.decoder.next(&mut input)? {
            match part {
                Part::Header(Header { opcode: Opcode::Pong, .. })
                | Part::Payload { header: Header { opcode: Opcode::Pong, .. }, .. } => {}
                Part::Header(header) => {
                    let opcode = if header.opcode == Opcode::Ping { Opcode::Pong } else { header.opcode };
                    Header { opcode, mask: None, ..header }.encode(out);
                }
                Part::Payload { header, bytes, last } => {
                    out.extend_from_slice(bytes);
                    if last && header.opcode == Opcode::Close {
                        return Ok(Flow::Closed);
                    }
                }
            }
        }
        Ok(Flow::Open)
    }
}

/// The reason for an end without a Close.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// No request arrived.
    #[error("no request came")]
    Head(#[from] HeadError),
    /// The request asks for neither a WebSocket nor a body.
    #[error("a request for neither a WebSocket nor a body: {line}")]
    Request {
        /// The request line.
        line: String,
    },
    /// The frames are invalid.
    #[error("the proxy broke RFC 6455: {0}")]
    Frame(#[from] FrameError),
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    #[tokio::test]
    async fn tungstenite_gets_its_echoes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = async {
            let (stream, _) = listener.accept().await.expect("a client comes");
            connection(stream).await.expect("the client behaves");
        };
        let client = async {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let (mut socket, _) = client_async("ws://localhost/", stream).await.expect("the upgrade is right");
            for length in [0, 125, 126, 65_536, 300_000] {
                let message = Message::binary(vec![0xA5; length]);
                socket.send(message.clone()).await.expect("it reads");
                assert_eq!(socket.next().await.expect("alive").expect("valid"), message);
            }
            let part =
                |text: &'static str, opcode, last| Message::Frame(Frame::message(text, OpCode::Data(opcode), last));
            socket.send(part("two ", Data::Text, false)).await.expect("it reads");
            socket.send(Message::Ping("between".into())).await.expect("it reads");
            assert_eq!(socket.next().await.expect("alive").expect("valid"), Message::Pong("between".into()));
            socket.send(Message::Pong("unasked".into())).await.expect("it reads");
            socket.send(part("parts", Data::Continue, true)).await.expect("it reads");
            assert_eq!(socket.next().await.expect("alive").expect("valid"), Message::text("two parts"));
            socket.close(None).await.expect("it reads");
            assert_eq!(socket.next().await.expect("alive").expect("valid"), Message::Close(None));
            assert!(socket.next().await.is_none());
        };
        timeout(Duration::from_secs(10), async { tokio::join!(server, client) })
            .await
            .expect("all echoes come in time");
    }

    #[tokio::test]
    async fn bodies_follow_one_another_on_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = async {
            let (stream, _) = listener.accept().await.expect("a client comes");
            connection(stream).await.expect_err("the last request is for nothing")
        };
        let client = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let requests = b"GET /body/10 HTTP/1.1\r\n\r\nGET /body/2000?from=7 HTTP/1.1\r\n\r\n";
            stream.write_all(requests).await.expect("it reads");
            let mut early = Vec::new();
            for place in [0..10, 7..2007] {
                let (head, mut body) = Head::read_on(&mut stream, early).await.expect("it answers");
                assert_eq!(head.status(), Some(200));
                assert_eq!(head.field("Content-Length"), Some(place.len().to_string().as_str()));
                while body.len() < place.len() {
                    assert_ne!(stream.read_buf(&mut body).await.expect("it writes"), 0, "the body is cut");
                }
                early = body.split_off(place.len());
                assert_eq!(body, BODIES.bytes(place));
            }
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it reads");
            let (head, rest) = Head::read_on(&mut stream, early).await.expect("it answers");
            assert_eq!((head.status(), rest.len()), (Some(404), 0));
        };
        let both = async { tokio::join!(server, client) };
        let (error, ()) = timeout(Duration::from_secs(10), both).await.expect("all answers come in time");
        assert!(matches!(error, UpstreamError::Request { .. }), "{error}");
    }

    #[test]
    fn only_bodies_that_exist_are_asked_for() {
        assert_eq!(body_asked_for("GET /body/5?from=3 HTTP/1.1"), Some(3..8));
        assert_eq!(body_asked_for("GET /body/0 HTTP/1.1"), Some(0..0));
        let others = ["GET /body/1048577", "GET /body/", "GET /body/5?from=99999999", "POST /body/5", "GET /"];
        for line in others {
            assert_eq!(body_asked_for(&format!("{line} HTTP/1.1")), None, "{line}");
        }
    }

    #[test]
    fn a_broken_frame_ends_the_connection() {
        assert_eq!(Echo::default().feed(&mut [0xF1, 0x80, 0, 0, 0, 0], &mut Vec::new()), Err(FrameError::Reserved));
    }
}
