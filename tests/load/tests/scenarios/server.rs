//! The server for tests of the scenarios.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use futures_util::{SinkExt, StreamExt};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use pulsegate_load::pattern::Pattern;
use pulsegate_load::{cert, upstream};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Streams that an HTTP/2 connection may have.
pub(crate) const STREAMS: u32 = 20;

/// The behaviour of the server beside echoing.
#[derive(Clone, Copy)]
pub(crate) enum Habit {
    /// Nothing.
    Echo,
    /// Flips a bit in every message.
    Corrupt,
    /// Pings with this period, and closes with 1001 a client that leaves a ping unanswered for one period.
    Beat(Duration),
    /// Closes every session after this time.
    CloseAfter(Duration),
    /// Resets every HTTP/2 stream after its first message.
    Reset,
    /// Does not support HTTP/2.
    OnlyHttp1,
    /// Supports HTTP/2 without WebSockets.
    NoWebSockets,
    /// Over HTTP/1.1, is the echo upstream behind TLS.
    Upstream,
}

/// A running server; the directory of its certificate is removed with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) directory: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Server {
    pub(crate) async fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let directory = std::env::temp_dir().join(format!("pulsegate-load-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir(&directory).expect("the directory is new");
        cert::write(&directory).expect("the directory is writable");
        let chain = CertificateDer::pem_file_iter(directory.join("cert.pem")).expect("it was written");
        let chain = chain.collect::<Result<_, _>>().expect("it is PEM");
        let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("it was written");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        if !matches!(habit, Habit::OnlyHttp1) {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, habit));
            }
        });
        Self { address, directory }
    }

    /// Returns the options of a scenario against this server, which is measured in the test's own process.
    pub(crate) fn options<T: Args + FromArgMatches>(&self, more: &[&str]) -> T {
        let (url, ca) = (format!("wss://localhost:{}/", self.address.port()), self.directory.join("ca.pem"));
        let pid = std::process::id().to_string();
        let ca = ca.to_str().expect("temporary directories have plain names");
        let all =
            ["scenario", &url, "--ca", ca, "--pid", &pid, "--sources", "2"].into_iter().chain(more.iter().copied());
        let matches =
            T::augment_args(Command::new("scenario")).try_get_matches_from(all).expect("the options are right");
        T::from_arg_matches(&matches).expect("the options are right")
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, habit: Habit) -> Option<()> {
    let mut tls = acceptor.accept(stream).await.ok()?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return streams(tls, habit).await;
    }
    if let Habit::Upstream = habit {
        let listener = TcpListener::bind("127.0.0.1:0").await.ok()?;
        let mut tcp = TcpStream::connect(listener.local_addr().ok()?).await.ok()?;
        let (upstream, _) = listener.accept().await.ok()?;
        tokio::spawn(upstream::connection(upstream));
        copy_bidirectional(&mut tls, &mut tcp).await.ok()?;
        return None;
    }
    talk(accept_async(tls).await.ok()?, habit).await
}

/// Serves the streams of an HTTP/2 connection: a WebSocket each, or a body of the pattern.
async fn streams(tls: TlsStream<TcpStream>, habit: Habit) -> Option<()> {
    let bodies = Pattern::new(upstream::LARGEST_BODY);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(STREAMS);
    if !matches!(habit, Habit::NoWebSockets) {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(tls).await.ok()?;
    while let Some(request) = connection.accept().await {
        let (request, answer) = request.ok()?;
        if request.method() == Method::CONNECT {
            tokio::spawn(tunnel(request, answer, habit));
        } else {
            body(&request, answer, habit, &bodies);
        }
    }
    None
}

async fn tunnel(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, habit: Habit) -> Option<()> {
    let websocket = request.extensions().get::<h2::ext::Protocol>().is_some_and(|it| it.as_str() == "websocket");
    let version = request.headers().get("sec-websocket-version").is_some_and(|version| version == "13");
    if !websocket || !version || request.headers().contains_key("sec-websocket-key") {
        answer.send_response(Response::builder().status(400).body(()).ok()?, true).ok()?;
        return None;
    }
    let mut downward = answer.send_response(Response::new(()), false).ok()?;
    let mut upward = request.into_body();
    // An empty DATA frame has no meaning.
    downward.send_data(Bytes::new(), false).ok()?;
    let (near, far) = duplex(1000);
    let (mut read, mut write) = split(near);
    tokio::spawn(async move { talk(WebSocketStream::from_raw_socket(far, Role::Server, None).await, habit).await });
    let up = async {
        while let Some(Ok(data)) = upward.data().await {
            upward.flow_control().release_capacity(data.len()).ok()?;
            write.write_all(&data).await.ok()?;
        }
        write.shutdown().await.ok()
    };
    let down = async {
        let mut scratch = [0; 777];
        loop {
            let read = read.read(&mut scratch).await.ok()?;
            if matches!(habit, Habit::Reset) {
                downward.send_reset(Reason::CANCEL);
                return None;
            }
            downward.send_data(Bytes::copy_from_slice(&scratch[..read]), read == 0).ok()?;
            if read == 0 {
                return Some(());
            }
        }
    };
    tokio::join!(up, down);
    None
}

fn body(request: &Request<RecvStream>, mut answer: SendResponse<Bytes>, habit: Habit, bodies: &Pattern) -> Option<()> {
    let length: usize = request.uri().path().strip_prefix("/body/")?.parse().ok()?;
    let from: usize = request.uri().query()?.strip_prefix("from=")?.parse().ok()?;
    let shift = usize::from(matches!(habit, Habit::Corrupt));
    let bytes = Bytes::copy_from_slice(bodies.bytes(bodies.at(from + shift, length)?));
    answer.send_response(Response::new(()), false).ok()?.send_data(bytes, true).ok()
}

/// Serves one WebSocket according to the server's habit.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, habit: Habit) -> Option<()> {
    let period = match habit {
        Habit::Beat(period) | Habit::CloseAfter(period) => period,
        _ => Duration::from_secs(3600),
    };
    let mut clock = interval(period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.tick().await;
    let mut unanswered = false;
    loop {
        tokio::select! {
            biased;
            message = socket.next() => match message?.ok()? {
                Message::Binary(bytes) if matches!(habit, Habit::Corrupt) => {
                    let flipped: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
                    socket.send(Message::Binary(Bytes::from(flipped))).await.ok()?;
                }
                message @ Message::Binary(_) => socket.send(message).await.ok()?,
                Message::Pong(_) => unanswered = false,
                _ => {}
            },
            due = clock.tick() => {
                // The client shares this process: where the server was late, the client had no time either.
                let is_late = due.elapsed() > period / 4;
                if matches!(habit, Habit::CloseAfter(_)) || (unanswered && !is_late) {
                    socket.send(Message::Close(Some(CloseFrame { code: 1001.into(), reason: "".into() }))).await.ok()?;
                    return None;
                }
                if !unanswered {
                    socket.send(Message::Ping(Bytes::from_static(b"beat"))).await.ok()?;
                    unanswered = true;
                }
            }
        }
    }
}
