//! Clients of the proxy inside the test process.

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

use super::deadline::soon;
use super::plain::Answer;
use super::proxy::Proxy;

/// A TLS connection to the proxy.
pub(crate) type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// A WebSocket through the proxy.
pub(crate) type Wss = WebSocketStream<Tls>;

/// The head of a sound upgrade request, without the empty line that ends it.
pub(crate) fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

impl Proxy {
    /// A TCP connection to the TLS port, nothing sent.
    pub(crate) async fn tcp(&self) -> TcpStream {
        soon("connect to the proxy", TcpStream::connect(self.address)).await.expect("the proxy listens")
    }

    /// A TLS connection, nothing sent.
    pub(crate) async fn tls(&self) -> Tls {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let handshake = TlsConnector::from(self.pki.client()).connect(name, self.tcp().await);
        soon("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted")
    }

    /// A WebSocket by a conforming client, which answers pings whenever it is read from.
    pub(crate) async fn websocket(&self, path: &str) -> Wss {
        let request = self.wss(path).into_client_request().expect("a valid URL");
        let unlimited = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let handshake = tokio_tungstenite::client_async_with_config(request, self.tls().await, Some(unlimited));
        let (websocket, _) = soon("the upgrade", Box::pin(handshake)).await.expect("the upgrade is accepted");
        websocket
    }

    /// A WebSocket as a bare stream of bytes, for tests that write the frames themselves.
    pub(crate) async fn upgraded(&self, path: &str) -> Tls {
        let mut stream = self.tls().await;
        let answer = self.ask(&mut stream, format!("{}\r\n", upgrade_head(path)).as_bytes()).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        stream
    }

    /// Writes `request` as it is and reads one answer.
    pub(crate) async fn ask(&self, stream: &mut Tls, request: &[u8]) -> Answer {
        // An answer may come before the request is written out; what counts is the answer.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        soon("an answer to the request", Answer::read(stream)).await.unwrap_or_else(|| {
            panic!("no answer to {:?}; the log:\n{}", String::from_utf8_lossy(request), self.transcript())
        })
    }
}

/// Sends `message` and expects the same message back, every byte of it.
pub(crate) async fn echo(websocket: &mut Wss, message: Message) -> Result<(), Error> {
    websocket.send(message.clone()).await?;
    let answer = next_message(websocket).await?;
    let same = answer == message;
    assert!(same, "sent {} bytes, got {} other ones", message.len(), answer.len());
    Ok(())
}

/// The next message that is neither ping nor pong.
pub(crate) async fn next_message(websocket: &mut Wss) -> Result<Message, Error> {
    loop {
        match websocket.next().await.ok_or(Error::ConnectionClosed)?? {
            Message::Ping(_) | Message::Pong(_) => {}
            other => return Ok(other),
        }
    }
}

/// Reads until the Close comes, and gives its code and reason; answers it.
pub(crate) async fn close_of(websocket: &mut Wss) -> (u16, String) {
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
    soon("the session ends", close).await
}

/// A session beside the one that is tried: it answers pings all the time and echoes when asked.
#[derive(Debug)]
pub(crate) struct Neighbour {
    asks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Neighbour {
    /// Opens a session on `path`, which must echo.
    pub(crate) async fn join(proxy: &Proxy, path: &str) -> Self {
        let (asks, requests) = mpsc::channel(1);
        tokio::spawn(live(proxy.websocket(path).await, requests));
        let neighbour = Self { asks };
        neighbour.echoes().await;
        neighbour
    }

    /// Fails unless the session still echoes.
    pub(crate) async fn echoes(&self) {
        let (answer, answered) = oneshot::channel();
        let delivered = self.asks.send(answer).await.is_ok();
        let alive = delivered && soon("the neighbour's echo", answered).await.is_ok();
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
        // The asker waits with a deadline and may have given up.
        let _ = answer.send(());
    }
}
