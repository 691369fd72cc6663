//! An HTTP/2 client that sends only what a test asks for.

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

use crate::client::Tls;
use crate::frame::Frame;
use crate::proxy::Proxy;
use crate::wait::{TIMEOUT, wait_for, within};

/// One connection. It derefs to the sender of requests.
pub struct Http2Client {
    sender: SendRequest<Bytes>,
    /// The task of the connection; its output is the result of the connection.
    pub driver: JoinHandle<Result<(), h2::Error>>,
    /// The PINGs of the connection.
    pub pings: PingPong,
}

/// A response with its whole body.
#[derive(Debug)]
pub struct Http2Response {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
    /// The trailer fields, if there were any.
    pub trailers: Option<HeaderMap>,
}

/// Opens a TLS connection with HTTP/2 agreed; sends nothing over it.
pub async fn tls(proxy: &Proxy) -> Tls {
    tls_over(proxy, proxy.tcp().await).await
}

/// As [`tls`], over a TCP connection of the test's own.
pub async fn tls_over(proxy: &Proxy, tcp: TcpStream) -> Tls {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, tcp);
    let tls = wait_for("the TLS handshake", handshake).await.expect("the proxy's certificate is trusted");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls
}

impl Http2Client {
    /// Opens a connection with the usual settings.
    pub async fn connect(proxy: &Proxy) -> Self {
        Self::connect_as(proxy, &Builder::new()).await
    }

    /// Opens a connection with these settings.
    pub async fn connect_as(proxy: &Proxy, settings: &Builder) -> Self {
        Self::over(tls(proxy).await, settings).await
    }

    /// Starts HTTP/2 over a stream.
    pub async fn over<S>(stream: S, settings: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = settings.handshake(stream).await.expect("the preface goes out");
        let pings = connection.ping_pong().expect("it is taken once");
        let driver = tokio::spawn(connection);
        let client = Self { sender, driver, pings };
        // The proxy's SETTINGS arrive before its answer to the first PING.
        client.settled().await
    }

    async fn settled(mut self) -> Self {
        self.ping().await;
        assert!(self.sender.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL is missing");
        self
    }

    /// Waits for the answer to a PING, before which the proxy has read everything sent earlier.
    pub async fn ping(&mut self) {
        wait_for("the answer to a PING", self.pings.ping(h2::Ping::opaque())).await.expect("the connection lives");
    }

    /// Sends the head of a request; `ends` is set when the stream ends with it.
    pub async fn send(&mut self, request: Request<()>, ends: bool) -> (client::ResponseFuture, SendStream<Bytes>) {
        let ready = self.sender.clone().ready();
        let mut sender = wait_for("room for a stream", ready).await.expect("the connection lives");
        sender.send_request(request, ends).expect("a sound request")
    }

    /// Sends a request without a body and reads the whole response.
    pub async fn ask(&mut self, request: Request<()>) -> Http2Response {
        let (response, _) = self.send(request, true).await;
        Http2Response::of(wait_for("an answer", response).await.expect("an answer")).await
    }

    /// Sends a request whose stream stays open and reads the whole response.
    pub async fn ask_on(&mut self, request: Request<()>) -> Http2Response {
        let (response, _stream) = self.send(request, false).await;
        Http2Response::of(wait_for("an answer", response).await.expect("an answer")).await
    }

    /// Sends a GET and reads the whole response.
    pub async fn get(&mut self, path: &str) -> Http2Response {
        self.ask(request(Method::GET, path)).await
    }

    /// Opens a WebSocket on `path`; fails unless it is accepted.
    pub async fn websocket(&mut self, path: &str) -> Http2WebSocket {
        self.websocket_by(extended("websocket", path)).await
    }

    /// Opens a WebSocket with this request; fails unless it is accepted.
    pub async fn websocket_by(&mut self, request: Request<()>) -> Http2WebSocket {
        let (response, sender) = self.send(request, false).await;
        let response = wait_for("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), 200, "{response:?}");
        let (head, receiver) = response.into_parts();
        Http2WebSocket { headers: head.headers, sender, receiver, ahead: BytesMut::new(), holds: false }
    }
}

impl Http2Response {
    /// Reads the body and the trailers.
    pub async fn of(response: Response<RecvStream>) -> Self {
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = wait_for("the body", stream.data()).await {
            let data = data.expect("the body comes in whole");
            stream.flow_control().release_capacity(data.len()).expect("it was taken");
            body.extend_from_slice(&data);
        }
        let trailers = wait_for("the end", stream.trailers()).await.expect("an orderly end");
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            trailers,
        }
    }

    /// Returns the header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }
}

/// Returns the head of a request.
pub fn request(method: Method, path: &str) -> Request<()> {
    let target = format!("https://localhost{path}");
    Request::builder().version(Version::HTTP_2).method(method).uri(target).body(()).expect("a sound request")
}

/// Returns an extended CONNECT (RFC 8441 §4).
pub fn extended(protocol: &'static str, path: &str) -> Request<()> {
    let mut request = request(Method::CONNECT, path);
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    request
}

/// A WebSocket over one stream, frame by frame.
#[derive(Debug)]
pub struct Http2WebSocket {
    /// The header fields of the response.
    pub headers: HeaderMap,
    /// The direction to the proxy.
    pub sender: SendStream<Bytes>,
    /// The direction from the proxy.
    pub receiver: RecvStream,
    ahead: BytesMut,
    /// Set where the window is left as it is when data is read.
    pub holds: bool,
}

impl Http2WebSocket {
    /// Sends bytes as fast as the window allows.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            self.sender.reserve_capacity(bytes.len());
            while self.sender.capacity() == 0 {
                let room = wait_for("room in the window", poll_fn(|cx| self.sender.poll_capacity(cx))).await;
                room.expect("the stream is open").expect("the stream is open");
            }
            let piece = bytes.split_to(self.sender.capacity().min(bytes.len()));
            self.sender.send_data(piece, false).expect("the stream is open");
        }
    }

    /// Sends a frame.
    pub async fn send_frame(&mut self, frame: &Frame) {
        self.send(frame.bytes()).await;
    }

    /// Ends the direction to the proxy.
    pub fn end(&mut self) {
        self.sender.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// Returns the next frame; `None` at the end of the stream, an error where it was reset.
    pub async fn frame(&mut self) -> Result<Option<Frame>, h2::Error> {
        self.frame_within(TIMEOUT).await
    }

    /// As [`Self::frame`], within `limit`.
    pub async fn frame_within(&mut self, limit: Duration) -> Result<Option<Frame>, h2::Error> {
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

    /// Returns the next frame that is no ping; answers pings.
    pub async fn message(&mut self) -> Option<Frame> {
        self.message_within(TIMEOUT).await
    }

    /// As [`Self::message`], within `limit`.
    pub async fn message_within(&mut self, limit: Duration) -> Option<Frame> {
        loop {
            let frame = self.frame_within(limit).await.expect("the stream lives")?;
            if frame.opcode() != crate::frame::PING {
                return Some(frame);
            }
            self.send_frame(&Frame::client(crate::frame::FIN | crate::frame::PONG, frame.payload)).await;
        }
    }

    /// Sends `text` and expects it back.
    pub async fn echoes(&mut self, text: &str) {
        use crate::frame::{FIN, TEXT};
        self.send_frame(&Frame::client(FIN | TEXT, text)).await;
        let echo = self.message().await;
        assert_eq!(echo, Some(Frame::server(FIN | TEXT, text)));
    }
}

impl Deref for Http2Client {
    type Target = SendRequest<Bytes>;

    fn deref(&self) -> &SendRequest<Bytes> {
        &self.sender
    }
}

impl DerefMut for Http2Client {
    fn deref_mut(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.sender
    }
}

/// Reads `stream` to its end; a reset is an end as well.
pub async fn rest(stream: &mut Tls) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = wait_for("the end of the connection", stream.read_to_end(&mut all)).await;
    all
}
