//! Apps inside the test process that misbehave on purpose. On the path `/echo` each of them is a conforming WebSocket
//! echo; the proxy's own probe, `OPTIONS *`, is answered.

use std::future::Future;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http1::{header_lines, read_head};

/// A listening app.
#[derive(Debug)]
pub struct FakeApp {
    /// The upstream URL for the proxy's configuration.
    pub url: String,
    accepting: JoinHandle<()>,
}

/// The head of a request as the app received it.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Everything up to and including the empty line.
    pub head: String,
}

/// A WebSocket that a fake app has accepted; the test reads and writes its frames.
pub type AppSession = (RequestHead, TcpStream);

impl FakeApp {
    /// Hands every connection to `misbehave`, together with the head of its first request.
    pub async fn start<F, Fut>(misbehave: F) -> Self
    where
        F: Fn(RequestHead, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let misbehave = Arc::new(misbehave);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind to a port of the system's choice");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let accepting = tokio::spawn(async move {
            loop {
                let (mut stream, _) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    // It keeps listening: the proxy would otherwise find the app down, and the test a wrong cause.
                    Err(error) => {
                        eprintln!("the fake upstream cannot accept: {error}");
                        tokio::task::yield_now().await;
                        continue;
                    }
                };
                let misbehave = Arc::clone(&misbehave);
                tokio::spawn(async move {
                    let Some(head) = read_head(&mut stream).await else { return };
                    let request = RequestHead { head };
                    if request.head.starts_with("OPTIONS * ") {
                        // The proxy's liveness probe.
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
                    } else if request.path() == "/echo" {
                        echo(request, stream).await;
                    } else {
                        misbehave(request, stream).await;
                    }
                });
            }
        });
        Self { url, accepting }
    }

    /// Writes `answer` to every request and keeps the connection open.
    pub async fn answering(answer: &'static str) -> Self {
        Self::start(move |_, mut stream| async move {
            let _ = stream.write_all(answer.as_bytes()).await;
            hold(stream).await;
        })
        .await
    }

    /// Accepts every WebSocket and hands it to the test.
    pub async fn sessions() -> (Self, mpsc::UnboundedReceiver<AppSession>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let fake = Self::start(move |request, mut stream| {
            let sender = sender.clone();
            async move {
                stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
                // A finished test receives no more sessions.
                let _ = sender.send((request, stream));
            }
        })
        .await;
        (fake, receiver)
    }

    /// Stops listening; accepted connections stay open.
    pub async fn go_down(&mut self) {
        self.accepting.abort();
        // The listener is closed when the task is gone.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for FakeApp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl RequestHead {
    /// Returns the path of the request line.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Returns the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header_lines(&self.head).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns a valid 101 to this request (RFC 6455 §4.2.2).
    pub fn accept(&self) -> String {
        let key = self.header("sec-websocket-key").unwrap_or_default();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }
}

/// Keeps a connection open until the other side closes it.
pub async fn hold(mut stream: TcpStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

async fn echo(request: RequestHead, mut stream: TcpStream) {
    stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
    let mut websocket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = websocket.next().await {
        if (message.is_text() || message.is_binary()) && websocket.send(message).await.is_err() {
            return;
        }
    }
}
