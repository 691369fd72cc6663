//! A client that speaks HTTP/2 and nothing by itself: what a test does not send is not sent.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{self, Builder, SendRequest};
use h2::ext::Protocol;
use h2::{PingPong, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, Version};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::support::client::Tls;
use crate::support::deadline::{PATIENCE, soon, within};
use crate::support::frames::Frame;
use crate::support::proxy::Proxy;

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
    pub(crate) pings: PingPong,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A TLS connection that agreed on HTTP/2, nothing sent.
pub(crate) async fn tls(proxy: &Proxy) -> Tls {
    tls_over(proxy, proxy.tcp().await).await
}

/// Opens the same over a connection of the test's own.
pub(crate) async fn tls_over(proxy: &Proxy, tcp: TcpStream) -> Tls {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, tcp);
    let tls = soon("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls
}

impl Client {
    pub(crate) async fn connect(proxy: &Proxy) -> Self {
        Self::connect_as(proxy, &Builder::new()).await
    }

    /// A connection with other settings than the usual ones.
    pub(crate) async fn connect_as(proxy: &Proxy, settings: &Builder) -> Self {
        Self::over(tls(proxy).await, settings).await
    }

    /// HTTP/2 over a connection that agreed on it.
    pub(crate) async fn over<S>(stream: S, settings: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = settings.handshake(stream).await.expect("the preface goes out");
        let pings = connection.ping_pong().expect("nobody else has it");
        let driver = tokio::spawn(connection);
        let client = Self { sender, driver, pings };
        // The proxy's SETTINGS come with its answer to the first PING at the latest.
        client.settled().await
    }

    async fn settled(mut self) -> Self {
        self.ping().await;
        assert!(self.sender.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL is missing");
        self
    }

    /// Waits for the answer to a PING: all that was sent before has been read.
    pub(crate) async fn ping(&mut self) {
        soon("the answer to a PING", self.pings.ping(h2::Ping::opaque())).await.expect("the connection lives");
    }

    /// Sends the head of a request.
    pub(crate) async fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (client::ResponseFuture, SendStream<Bytes>) {
        let ready = self.sender.clone().ready();
        let mut sender = soon("room for a stream", ready).await.expect("the connection lives");
        sender.send_request(request, ends).expect("a sound request")
    }

    /// Sends a request without a body and takes the whole answer.
    pub(crate) async fn ask(&mut self, request: Request<()>) -> Answer {
        let (response, _) = self.send(request, true).await;
        Answer::of(soon("an answer", response).await.expect("an answer")).await
    }

    /// Sends a request whose stream stays open and takes the whole answer.
    pub(crate) async fn ask_on(&mut self, request: Request<()>) -> Answer {
        let (response, _stream) = self.send(request, false).await;
        Answer::of(soon("an answer", response).await.expect("an answer")).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(request(Method::GET, path)).await
    }

    /// Opens a WebSocket, which must be accepted.
    pub(crate) async fn websocket(&mut self, path: &str) -> WebSocket {
        self.websocket_by(extended("websocket", path)).await
    }

    pub(crate) async fn websocket_by(&mut self, request: Request<()>) -> WebSocket {
        let (response, sender) = self.send(request, false).await;
        let response = soon("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), 200, "{response:?}");
        let (head, receiver) = response.into_parts();
        WebSocket { headers: head.headers, sender, receiver, ahead: BytesMut::new(), holds: false }
    }
}

impl Answer {
    pub(crate) async fn of(response: Response<RecvStream>) -> Self {
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = soon("the body", stream.data()).await {
            let data = data.expect("the body comes in whole");
            stream.flow_control().release_capacity(data.len()).expect("it was taken");
            body.extend_from_slice(&data);
        }
        let trailers = soon("the end", stream.trailers()).await.expect("an orderly end");
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            trailers,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }
}

/// The head of a request.
pub(crate) fn request(method: Method, path: &str) -> Request<()> {
    let target = format!("https://localhost{path}");
    Request::builder().version(Version::HTTP_2).method(method).uri(target).body(()).expect("a sound request")
}

/// An extended CONNECT (RFC 8441 §4).
pub(crate) fn extended(protocol: &'static str, path: &str) -> Request<()> {
    let mut request = request(Method::CONNECT, path);
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    request
}

/// A WebSocket over one stream, frame by frame.
#[derive(Debug)]
pub(crate) struct WebSocket {
    pub(crate) headers: HeaderMap,
    pub(crate) sender: SendStream<Bytes>,
    pub(crate) receiver: RecvStream,
    ahead: BytesMut,
    /// Whether the window stays closed over what was read.
    pub(crate) holds: bool,
}

impl WebSocket {
    /// Sends bytes as the window allows.
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            self.sender.reserve_capacity(bytes.len());
            while self.sender.capacity() == 0 {
                let room = soon("room in the window", poll_fn(|cx| self.sender.poll_capacity(cx))).await;
                room.expect("the stream is open").expect("the stream is open");
            }
            let piece = bytes.split_to(self.sender.capacity().min(bytes.len()));
            self.sender.send_data(piece, false).expect("the stream is open");
        }
    }

    pub(crate) async fn send_frame(&mut self, frame: &Frame) {
        self.send(frame.bytes()).await;
    }

    pub(crate) fn end(&mut self) {
        self.sender.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// The next frame; `None` at the end of the stream, an error where it was reset.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>, h2::Error> {
        self.frame_within(PATIENCE).await
    }

    pub(crate) async fn frame_within(&mut self, limit: Duration) -> Result<Option<Frame>, h2::Error> {
        loop {
            let mut bytes = &self.ahead[..];
            let before = bytes.len();
            if let Some(frame) = Frame::read(&mut bytes).await {
                let used = before - bytes.len();
                self.ahead.advance(used);
                return Ok(Some(frame));
            }
            match within(limit, "a frame", self.receiver.data()).await {
                Some(Ok(data)) => {
                    if !self.holds {
                        self.receiver.flow_control().release_capacity(data.len()).expect("it was taken");
                    }
                    self.ahead.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(error),
                None => {
                    assert!(self.ahead.is_empty(), "half a frame: {:?}", self.ahead);
                    return Ok(None);
                }
            }
        }
    }

    /// The next frame but for pings, which are answered.
    pub(crate) async fn message(&mut self) -> Option<Frame> {
        self.message_within(PATIENCE).await
    }

    /// As [`Self::message`], for one that may take longer.
    pub(crate) async fn message_within(&mut self, limit: Duration) -> Option<Frame> {
        loop {
            let frame = self.frame_within(limit).await.expect("the stream lives")?;
            if frame.opcode() != crate::support::frames::PING {
                return Some(frame);
            }
            self.send_frame(&Frame::client(crate::support::frames::FIN | crate::support::frames::PONG, frame.payload))
                .await;
        }
    }

    /// Sends `text` and expects it back.
    pub(crate) async fn echoes(&mut self, text: &str) {
        use crate::support::frames::{FIN, TEXT};
        self.send_frame(&Frame::client(FIN | TEXT, text)).await;
        let echo = self.message().await;
        assert_eq!(echo, Some(Frame::server(FIN | TEXT, text)));
    }
}

impl Deref for Client {
    type Target = SendRequest<Bytes>;

    fn deref(&self) -> &SendRequest<Bytes> {
        &self.sender
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.sender
    }
}

/// Reads `stream` to its end; a reset is an end as well.
pub(crate) async fn rest(stream: &mut Tls) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut all)).await;
    all
}
