//! The app behind every proxy: a WebSocket echo on plain TCP that costs as little as possible.
//!
//! It turns the stream of incoming frames into the stream of echoes piece by piece, so that it holds no message and
//! works in two buffers for all connections together.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tungstenite::handshake::derive_accept_key;

use crate::frame::{Decoder, FrameError, Header, Opcode, Part};
use crate::head::{Head, HeadError};

/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Where connections read, and where their echoes are made. Never held across an await.
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; SCRATCH], Vec::with_capacity(2 * SCRATCH)));
}

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A proxy may cut a connection off as it likes: that is its client's business, and is seen there.
                    if let Err(error @ (UpstreamError::Frame(_) | UpstreamError::NoKey { .. })) =
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

/// Upgrades one connection and echoes on it until either side ends it.
pub async fn connection(mut stream: TcpStream) -> Result<(), UpstreamError> {
    stream.set_nodelay(true)?;
    let (head, mut early) = Head::read(&mut stream).await?;
    let Some(key) = head.field("Sec-WebSocket-Key") else {
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
        return Err(UpstreamError::NoKey { request: head.start_line().into() });
    };
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

/// Reads once, echoes what came, and returns what the socket would not take.
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

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

/// Turns a client's frames into their echoes.
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

/// Why a connection ended other than by a Close.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// No request came.
    #[error("no request came")]
    Head(#[from] HeadError),
    /// The request asks for no WebSocket.
    #[error("a request for no WebSocket: {request}")]
    NoKey {
        /// The request line.
        request: String,
    },
    /// The frames are broken.
    #[error("the proxy broke RFC 6455: {0}")]
    Frame(#[from] FrameError),
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
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

    #[test]
    fn a_broken_frame_ends_the_connection() {
        assert_eq!(Echo::default().feed(&mut [0xF1, 0x80, 0, 0, 0, 0], &mut Vec::new()), Err(FrameError::Reserved));
    }
}
