//! Clients of the proxy inside the test process: raw TLS, and WebSockets over it.

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::http1::Response;
use crate::proxy::Proxy;
use crate::wait::wait_for;

/// A TLS connection to the proxy.
pub type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// A WebSocket through the proxy.
pub type Wss = WebSocketStream<Tls>;

/// Returns the head of a valid upgrade request (RFC 6455 §4.1), without the empty line that ends it.
pub fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

impl Proxy {
    /// Opens a TCP connection to the TLS port; sends nothing.
    pub async fn tcp(&self) -> TcpStream {
        wait_for("connect to the proxy", TcpStream::connect(self.address)).await.expect("the proxy listens")
    }

    /// Opens a TLS connection; sends nothing over it.
    pub async fn tls(&self) -> Tls {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let handshake = TlsConnector::from(self.pki.client()).connect(name, self.tcp().await);
        wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted")
    }

    /// Opens a WebSocket of a conforming client, which answers pings whenever it is read from.
    pub async fn websocket(&self, path: &str) -> Wss {
        let request = self.wss(path).into_client_request().expect("a valid URL");
        let unlimited = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let handshake = tokio_tungstenite::client_async_with_config(request, self.tls().await, Some(unlimited));
        let (websocket, _) = wait_for("the upgrade", Box::pin(handshake)).await.expect("the upgrade is accepted");
        websocket
    }

    /// Opens a WebSocket as a stream of bytes, for tests that write the frames themselves.
    pub async fn upgraded(&self, path: &str) -> Tls {
        let mut stream = self.tls().await;
        let answer = self.ask(&mut stream, format!("{}\r\n", upgrade_head(path)).as_bytes()).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        stream
    }

    /// Writes `request` as it is and reads one response.
    pub async fn ask(&self, stream: &mut Tls, request: &[u8]) -> Response {
        // A response may arrive before the request is written; only the response counts.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        wait_for("an answer to the request", Response::read(stream)).await.unwrap_or_else(|| {
            panic!("no answer to {:?}; the log:\n{}", String::from_utf8_lossy(request), self.transcript())
        })
    }
}

/// Sends `message` and expects the same message back.
pub async fn echo(websocket: &mut Wss, message: Message) -> Result<(), Error> {
    websocket.send(message.clone()).await?;
    let answer = next_message(websocket).await?;
    let same = answer == message;
    assert!(same, "sent {} bytes, got {} other ones", message.len(), answer.len());
    Ok(())
}

/// Returns the next message that is neither ping nor pong.
pub async fn next_message(websocket: &mut Wss) -> Result<Message, Error> {
    loop {
        match websocket.next().await.ok_or(Error::ConnectionClosed)?? {
            Message::Ping(_) | Message::Pong(_) => {}
            other => return Ok(other),
        }
    }
}

/// Reads up to the Close and answers it; returns its code and reason, 1006 with the error if there was none.
pub async fn close_of(websocket: &mut Wss) -> (u16, String) {
    let close = async {
        loop {
            match next_message(websocket).await {
                Ok(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Ok(Message::Close(None)) => return (1005, String::new()),
                Ok(_) => {}
                Err(error) => return (1006, error.to_string()),
            }
        }
    };
    wait_for("the session ends", close).await
}

/// A second session of the same proxy, which the tested one must not affect: it answers pings, and echoes on request.
#[derive(Debug)]
pub struct Neighbour {
    asks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Neighbour {
    /// Opens a session on `path`, which must echo.
    pub async fn join(proxy: &Proxy, path: &str) -> Self {
        let (asks, requests) = mpsc::channel(1);
        tokio::spawn(live(proxy.websocket(path).await, requests));
        let neighbour = Self { asks };
        neighbour.echoes().await;
        neighbour
    }

    /// Fails unless the session still echoes.
    pub async fn echoes(&self) {
        let (answer, answered) = oneshot::channel();
        let delivered = self.asks.send(answer).await.is_ok();
        let alive = delivered && wait_for("the neighbour's echo", answered).await.is_ok();
        assert!(alive, "the neighbour's session has ended");
    }
}

async fn live(mut websocket: Wss, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
    for turn in 0_u32.. {
        let answer = tokio::select! {
            request = requests.recv() => request,
            message = websocket.next() => match message {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                end => {
                    eprintln!("the neighbour got {end:?}");
                    return;
                }
            },
        };
        let Some(answer) = answer else { return };
        if let Err(error) = echo(&mut websocket, Message::text(format!("neighbour {turn}"))).await {
            eprintln!("the neighbour got {error:?}");
            return;
        }
        // The receiver waits with a deadline, and may be gone.
        let _ = answer.send(());
    }
}
