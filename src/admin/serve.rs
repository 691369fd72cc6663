//! Connections of both listeners: how many there may be, and how long they may keep us waiting.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::Body;
use super::api::Api;
use super::auth::{Guard, Way};
use super::context::Context;
use super::health;
use super::listener::{Administration, Bound, Listener};
use super::places::{Place, Places};
use super::stall::Stalling;
use crate::config::AdminSocket;
use crate::http::PauseTimer;
use crate::suspension::{Deadline, timeout};
use crate::telemetry::Chain;

/// How long the end waits for responses that are under way.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections of one listener at once; for one more, the one that has been idle for longest makes room.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long a connection may wait for the next one.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take no byte of what it asked for.
const STALL: Duration = Duration::from_secs(30);
/// The pause of the loop after an accept fails for lack of a system resource.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Header fields in one request.
const HEADERS: usize = 64;
/// Bytes of a request's head, and of what is written at once.
const BUFFER: usize = 16 * 1024;

/// Serves both listeners until `stop`, and what has been asked until then.
pub(super) async fn serve(bound: Bound, context: Arc<Context>, stop: CancellationToken) -> io::Result<()> {
    let Bound { handshake, health, administration } = bound;
    let connections = Connections { tracker: TaskTracker::new(), stop: stop.clone() };
    let probes = async {
        match health {
            Some(health) => report(&connections, TcpListener::from_std(health.listener)?, &context).await,
            None => stop.cancelled().await,
        }
        io::Result::Ok(())
    };
    let orders = async {
        let Some(Administration { listener, socket }) = administration else {
            stop.cancelled().await;
            return Ok(None);
        };
        let configured = match socket {
            AdminSocket::Tcp(address) => Some(address.ip()),
            AdminSocket::Unix { .. } => None,
        };
        let guard = Guard { configured };
        let api = Arc::new(Api::new(Arc::clone(&context), guard, stop.clone()));
        match listener {
            Listener::Unix(listener, file) => {
                administer_unix(&connections, UnixListener::from_std(listener)?, &api).await;
                Ok(Some(file))
            }
            Listener::Tcp { listener, tls } => {
                let listener = TcpListener::from_std(listener)?;
                administer_tcp(&connections, listener, tls.then_some(handshake), &api).await;
                Ok(None)
            }
        }
    };
    // The unix socket is removed when its file is dropped.
    let ((), _file) = tokio::try_join!(probes, orders)?;
    connections.tracker.close();
    // Who has not gone by then is not waited for.
    let _ = timeout(CLOSE_TIMEOUT, pin!(connections.tracker.wait())).await;
    Ok(())
}

async fn report(connections: &Connections, listener: TcpListener, context: &Arc<Context>) {
    let serve = |(tcp, _), place| {
        let context = Arc::clone(context);
        connections.clone().converse(tcp, place, move |request| ready(health::answer(&context, &request)))
    };
    connections.accept(async || listener.accept().await, serve).await;
}

async fn administer_unix(connections: &Connections, listener: UnixListener, api: &Arc<Api>) {
    let serve = |(stream, _), place| {
        let api = Arc::clone(api);
        connections.clone().converse(stream, place, move |request| Arc::clone(&api).answer(request, Way::default()))
    };
    connections.accept(async || listener.accept().await, serve).await;
}

/// `handshake` is what one may take, where TLS is spoken.
async fn administer_tcp(connections: &Connections, listener: TcpListener, handshake: Option<Duration>, api: &Arc<Api>) {
    let serve = |(tcp, _), place| {
        let (connections, api) = (connections.clone(), Arc::clone(api));
        async move {
            let address = local(&tcp);
            let Some(limit) = handshake else {
                let way = Way { address, tls: None };
                let answer = move |request| Arc::clone(&api).answer(request, way.clone());
                return connections.converse(tcp, place, answer).await;
            };
            // The configuration refuses `admin.tls` where there is no certificate.
            let Some(terminator) = api.terminator() else { return };
            match terminator.http1().handshake(tcp, Deadline::after(limit)).await {
                Ok((stream, facts)) => {
                    let way = Way { address, tls: Some(facts.server_name) };
                    let answer = move |request| Arc::clone(&api).answer(request, way.clone());
                    connections.converse(stream, place, answer).await;
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "admin.handshake"),
            }
        }
    };
    connections.accept(async || listener.accept().await, serve).await;
}

fn local(tcp: &TcpStream) -> Option<std::net::IpAddr> {
    tcp.local_addr().ok().map(|address| address.ip())
}

/// What all connections share.
#[derive(Clone)]
struct Connections {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Connections {
    /// Accepts until the end, and serves each connection in a task of its own.
    async fn accept<S, F>(&self, mut next: impl AsyncFnMut() -> io::Result<S>, serve: impl Fn(S, Arc<Place>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Places::new(CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = one(&places, &mut next) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let place = Arc::new(place);
                    let served = serve(stream, Arc::clone(&place));
                    self.tracker.spawn(async move {
                        tokio::select! {
                            () = served => {}
                            () = place.wanted() => tracing::debug!("admin.makes_room"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "admin.accept");
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Serves one connection until it closes, or idles for too long.
    async fn converse<S, A, F>(self, stream: S, place: Arc<Place>, answer: A)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Fn(Request<Incoming>) -> F + Send,
        F: Future<Output = Response<Body>> + Send,
    {
        let service = service_fn(|request| {
            let attended = place.attend();
            let answered = answer(request);
            async { Ok::<_, Infallible>(attended.until_out(answered.await)) }
        });
        let mut http = http1::Builder::new();
        // Without a timer hyper ignores the timeout.
        http.timer(PauseTimer).header_read_timeout(HEAD).max_headers(HEADERS).max_buf_size(BUFFER);
        let stream = TokioIo::new(Stalling::new(stream, STALL));
        let mut connection = pin!(http.serve_connection(stream, service));
        let outcome = tokio::select! {
            outcome = &mut connection => outcome,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(error = %Chain(&error), "admin.connection");
        }
    }
}

/// The next connection, with its place. It is accepted first: nobody makes room for nobody.
async fn one<S>(places: &Places, next: &mut impl AsyncFnMut() -> io::Result<S>) -> io::Result<(S, Place)> {
    let stream = next().await?;
    Ok((stream, places.enter().await))
}
