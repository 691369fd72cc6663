//! The connections of both listeners: accept loops, limits and timeouts.

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

use super::api::Api;
use super::auth::{Guard, Way};
use super::context::Context;
use super::health;
use super::idle_eviction::{ConnectionSlot, ConnectionSlots};
use super::listener::{AdminListener, Administration, BoundListeners};
use super::response::Body;
use super::write_timeout::WriteTimeout;
use crate::config::AdminSocket;
use crate::http::PauseTimer;
use crate::suspension::{Deadline, timeout};
use crate::telemetry::Chain;

/// The time limit for responses that are in flight when the listeners close.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// The maximum number of connections of one listener; above it the longest-idle one is closed.
const MAX_CONNECTIONS: usize = 256;
/// The time limit for the head of a request, including the idle time before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a write that the client does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed accept, such as one without free descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The maximum number of header fields in one request.
const MAX_HEADERS: usize = 64;
/// The size of a connection's buffers in bytes; also the maximum size of a request's head.
const BUFFER: usize = 16 * 1024;

/// Serves both listeners until `stop`, then finishes the requests in progress, within [`SHUTDOWN_TIMEOUT`]. Fails when
/// a socket cannot be registered with the runtime.
pub(super) async fn serve(bound: BoundListeners, context: Arc<Context>, stop: CancellationToken) -> io::Result<()> {
    let BoundListeners { handshake, health, administration } = bound;
    let connections = Connections { tracker: TaskTracker::new(), stop: stop.clone() };
    let health_listener = async {
        match health {
            Some(health) => serve_health(&connections, TcpListener::from_std(health.listener)?, &context).await,
            None => stop.cancelled().await,
        }
        io::Result::Ok(())
    };
    let admin_listener = async {
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
            AdminListener::Unix(listener, file) => {
                serve_admin_unix(&connections, UnixListener::from_std(listener)?, &api).await;
                Ok(Some(file))
            }
            AdminListener::Tcp { listener, tls } => {
                let listener = TcpListener::from_std(listener)?;
                serve_admin_tcp(&connections, listener, tls.then_some(handshake), &api).await;
                Ok(None)
            }
        }
    };
    // Dropping the file removes the unix socket.
    let ((), _file) = tokio::try_join!(health_listener, admin_listener)?;
    connections.tracker.close();
    // Connections that are open after the timeout are abandoned.
    let _ = timeout(SHUTDOWN_TIMEOUT, pin!(connections.tracker.wait())).await;
    Ok(())
}

async fn serve_health(connections: &Connections, listener: TcpListener, context: &Arc<Context>) {
    let serve = |(tcp, _), place| {
        let context = Arc::clone(context);
        connections.clone().serve_connection(tcp, place, move |request| ready(health::answer(&context, &request)))
    };
    connections.accept(async || listener.accept().await, serve).await;
}

async fn serve_admin_unix(connections: &Connections, listener: UnixListener, api: &Arc<Api>) {
    let serve = |(stream, _), place| {
        let api = Arc::clone(api);
        connections
            .clone()
            .serve_connection(stream, place, move |request| Arc::clone(&api).answer(request, Way::default()))
    };
    connections.accept(async || listener.accept().await, serve).await;
}

/// Serves the admin port; `handshake` is the time limit of a TLS handshake, `None` without TLS.
async fn serve_admin_tcp(
    connections: &Connections,
    listener: TcpListener,
    handshake: Option<Duration>,
    api: &Arc<Api>,
) {
    let serve = |(tcp, _), place| {
        let (connections, api) = (connections.clone(), Arc::clone(api));
        async move {
            let address = local(&tcp);
            let Some(limit) = handshake else {
                let way = Way { address, tls: None };
                let answer = move |request| Arc::clone(&api).answer(request, way.clone());
                return connections.serve_connection(tcp, place, answer).await;
            };
            // The configuration refuses `admin.tls` without a certificate.
            let Some(terminator) = api.terminator() else { return };
            match terminator.http1().handshake(tcp, Deadline::after(limit)).await {
                Ok((stream, facts)) => {
                    let way = Way { address, tls: Some(facts.server_name) };
                    let answer = move |request| Arc::clone(&api).answer(request, way.clone());
                    connections.serve_connection(stream, place, answer).await;
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

/// The state shared by all connections.
#[derive(Clone)]
struct Connections {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Connections {
    /// Accepts connections until `stop`, and serves each in a task of its own.
    async fn accept<S, F>(
        &self,
        mut next: impl AsyncFnMut() -> io::Result<S>,
        serve: impl Fn(S, Arc<ConnectionSlot>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = ConnectionSlots::new(MAX_CONNECTIONS);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = accept_one(&places, &mut next) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let place = Arc::new(place);
                    let served = serve(stream, Arc::clone(&place));
                    self.tracker.spawn(async move {
                        tokio::select! {
                            () = served => {}
                            () = place.evicted() => tracing::debug!("admin.makes_room"),
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

    /// Serves one connection until it closes or times out.
    async fn serve_connection<S, A, F>(self, stream: S, place: Arc<ConnectionSlot>, answer: A)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Fn(Request<Incoming>) -> F + Send,
        F: Future<Output = Response<Body>> + Send,
    {
        let service = service_fn(|request| {
            let attended = place.begin_request();
            let answered = answer(request);
            async { Ok::<_, Infallible>(attended.until_sent(answered.await)) }
        });
        let mut http = http1::Builder::new();
        // Without a timer hyper ignores the timeout.
        http.timer(PauseTimer).header_read_timeout(HEAD_TIMEOUT).max_headers(MAX_HEADERS).max_buf_size(BUFFER);
        let stream = TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT));
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

/// Returns the next connection and its slot. Accepts first, so that no connection is evicted needlessly.
async fn accept_one<S>(
    places: &ConnectionSlots,
    next: &mut impl AsyncFnMut() -> io::Result<S>,
) -> io::Result<(S, ConnectionSlot)> {
    let stream = next().await?;
    Ok((stream, places.acquire().await))
}
