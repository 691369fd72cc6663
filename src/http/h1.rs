//! One client connection that speaks HTTP/1.1: hyper while there is something to do, a small task while there is not.
//!
//! hyper knows one timeout for the head of a request and for the wait before it, keeps its buffers for as long as the
//! connection lives, and looks for the end of the connection only while its read buffer is empty. So its stream reports
//! how far the requests are ([`RequestProgress`]) and watches for that end ([`Io`]), this module has the clock, and a connection
//! that is idle is taken out of hyper ([`parked`]) until its next byte arrives. What hyper reads otherwise than other
//! servers do is found in the bytes before it reads them ([`framing`]).

mod bad_head;
mod builder;
mod framing;
pub(super) mod io;
mod parked;
mod pending_upgrade;
mod reader;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connection::ClientConnection;
use super::edge::Edge;
use super::handle::handle;
use super::peer::Peer;
use super::response::{Handled, ProxyResponse};
use super::{lingering_close, target};
use crate::config::EdgeLimits;
use crate::relay::{Held, Leg};
use crate::suspension::{Deadline, Expiry};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Chain, log_events};
use crate::upstream::{CROWD, Upload};
pub(crate) use bad_head::{reject_head, reject_late_head};
pub(crate) use builder::http1_builder;
use io::{Io, RequestPhase, RequestProgress, TrackedBody, UnreadByHyper};
use pending_upgrade::PendingUpgrade;
use reader::ResponseRate;

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::http";

/// Time that an idle connection stays in hyper: requests that follow one another closely find it there.
const PARK_AFTER: Duration = Duration::from_millis(200);

/// Bytes that the kernel takes beyond a client's window, on a worker with [`CROWD`] tasks: slow readers otherwise fill its
/// memory for TCP (`net.ipv4.tcp_mem`). Quick ones cost some CPU time with the limit.
const UNSENT: u32 = 128 * 1024;

/// Time between two looks at a connection with a request under way, so that its clock is not set with each request.
const BUSY_LOOK: Duration = Duration::from_secs(10);

/// Serves one client connection until it closes or has become a WebSocket; while it is idle, in another task.
pub(super) async fn serve<C: Leg + Send + 'static>(mut stream: C, peer: Peer, edge: Arc<Edge>) {
    // A client that takes nothing of a response holds the app's connection too; hyper has no limit for it.
    stream.set_user_timeout(edge.rules().limits.write_stall);
    run(stream, Bytes::new(), peer, edge).await;
}

/// Serves a connection that was parked, as [`serve`] does, from which `first` was read. Boxed: the two tasks of a
/// connection start one another.
fn resume<C: Leg + Send + 'static>(
    stream: C,
    first: Bytes,
    peer: Peer,
    edge: Arc<Edge>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(run(stream, first, peer, edge))
}

async fn run<C: Leg + Send + 'static>(mut stream: C, first: Bytes, peer: Peer, edge: Arc<Edge>) {
    let mut unread = UnreadByHyper::new(first, edge.rules().limits.header_bytes);
    let turns = Arc::new(RequestProgress::new());
    if edge.tracker.len() > CROWD {
        stream.limit_unsent(Some(UNSENT));
    }
    let (idle, keep_alive) = loop {
        let limits = edge.rules().limits;
        let latest = Mutex::new(ClientConnection::new(peer.clone(), Arc::clone(&edge)));
        let upgrade = PendingUpgrade::default();
        let service = service_fn(|request| {
            let (connection, turns) = (ClientConnection::at_next_request(&latest), Arc::clone(&turns));
            exchange(connection, turns, &upgrade, request)
        });
        let reader = ResponseRate::new(limits.write_stall, Held::new(edge.metrics.memory()), limits.memory);
        let io = TokioIo::new(Io::new(stream, unread, Arc::clone(&turns), reader));
        let mut http = http1_builder(&limits).serve_connection(io, service).with_upgrades();
        let mut clock = Clock::new(&limits);
        let ended = {
            let mut parting = pin!(edge.closing());
            let (mut is_parting, mut is_shut) = (false, false);
            // The task that is woken at the drain. (No budget of the task keeps it from being registered.)
            let mut woken: Option<Waker> = None;
            poll_fn(|cx| {
                loop {
                    if let Poll::Ready(outcome) = Pin::new(&mut http).poll(cx) {
                        return Poll::Ready(Ended::Http(outcome));
                    }
                    let is_woken = woken.as_ref().is_some_and(|woken| woken.will_wake(cx.waker()));
                    if !is_parting && (!is_woken || edge.draining.is_cancelled()) {
                        is_parting = parting.as_mut().poll(cx).is_ready();
                        woken = Some(cx.waker().clone());
                    }
                    // Asked while the last bytes of a response wait, hyper parts with a connection that had offered an
                    // upgrade, and drops them.
                    if !is_parting || is_shut || turns.is_ending() {
                        return clock.poll(cx, &turns, || !edge.draining.is_cancelled());
                    }
                    is_shut = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
            })
            .await
        };
        let Some(parts) = http.into_parts() else {
            // A request offered an upgrade.
            return upgrade.finish::<C>(&edge).await;
        };
        let (io, rest) = parts.io.into_inner().into_parts();
        // An empty line before a request is no part of it (RFC 9112 §2.2).
        let blank = parts.read_buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let read = &parts.read_buf[blank..];
        stream = io;
        match ended {
            Ended::Http(Ok(())) => return lingering_close::close(&mut stream).await,
            Ended::Http(Err(error)) => return failed(&error, read, &mut stream, peer.address, &edge.metrics).await,
            Ended::LateHead if read.is_empty() => return lingering_close::close(&mut stream).await,
            Ended::LateHead => {
                return lingering_close::close_with(&mut stream, reject_late_head(peer.address, &edge.metrics)).await;
            }
            Ended::Idle(since) if read.is_empty() && rest.is_empty() => break (since, limits.keep_alive),
            // The beginning of a request arrived together with the one before it.
            Ended::Idle(_) => {
                unread = rest.behind(read);
                turns.renew();
            }
        }
    };
    edge.tracker.spawn(parked::wait(stream, peer, Arc::clone(&edge), Deadline::since(idle, keep_alive), resume));
}

/// The end of hyper's part in a connection, for the time being or for good.
#[derive(Debug)]
enum Ended {
    /// By itself.
    Http(hyper::Result<()>),
    /// The head of a request did not arrive in time.
    LateHead,
    /// There has been nothing to do since then.
    Idle(Instant),
}

/// One request and its response.
async fn exchange(
    connection: Arc<ClientConnection>,
    turns: Arc<RequestProgress>,
    upgrade: &PendingUpgrade,
    mut request: Request<Incoming>,
) -> Result<Response<ProxyResponse>, Infallible> {
    if let Some(sent) = turns.begin() {
        target::note(&mut request, sent);
    }
    if let Some(stream) = request.extensions_mut().remove::<OnUpgrade>() {
        upgrade.offer(stream);
    }
    let request = request.map(|body| {
        if body.is_end_stream() { Upload::default() } else { Upload::new(TrackedBody::new(body, Arc::clone(&turns))) }
    });
    Ok(match handle(&connection, request).await {
        Handled::Response(response) => response.map(|reply| reply.in_turn(turns.answer(true))),
        Handled::Session(accepted, session) => {
            upgrade.accept(session);
            accepted.map(|()| ProxyResponse::empty().in_turn(turns.answer(false)))
        }
    })
}

/// Ends a connection whose HTTP went wrong, of which hyper has left `unread`.
async fn failed<C: Leg>(error: &hyper::Error, unread: &[u8], stream: &mut C, client: SocketAddr, metrics: &Metrics) {
    match reject_head(error, unread, client, metrics) {
        Some(answer) => lingering_close::close_with(stream, answer).await,
        None => {
            let (address, port) = log_events::client(client);
            tracing::debug!(target: TARGET, { client.address = address, client.port = port, error = %Chain(&error) }, "http.connection");
        }
    }
}

/// The clock of a connection in hyper. It is set lazily: it fires early rather than be set with each request.
struct Clock {
    header_read: Duration,
    idle: Duration,
    expiry: Expiry,
    /// The instant at which it fires, if the process is not paused: to be compared without a look at the record of pauses.
    fires: Instant,
}

impl Clock {
    fn new(limits: &EdgeLimits) -> Self {
        let (idle, now) = (limits.keep_alive.min(PARK_AFTER), Instant::now());
        let expiry = Expiry::new(Deadline::since(now, limits.header_read));
        Self { header_read: limits.header_read, idle, expiry, fires: now + limits.header_read }
    }

    fn set(&mut self, since: Instant, limit: Duration) {
        self.expiry.reset(Deadline::since(since, limit));
        self.fires = since + limit;
    }

    /// Completes when a head is late or, if it `may_park`, the connection has been idle; to be polled after hyper, which
    /// reads what has arrived.
    fn poll(&mut self, cx: &mut Context<'_>, turns: &RequestProgress, may_park: impl Fn() -> bool) -> Poll<Ended> {
        loop {
            let due = match turns.waiting() {
                Some(RequestPhase::Head { since }) => Some((since, self.header_read, Ended::LateHead)),
                Some(RequestPhase::Idle { since }) if may_park() => Some((since, self.idle, Ended::Idle(since))),
                _ => None,
            };
            if let Some((since, limit, _)) = due
                && since + limit < self.fires
            {
                self.set(since, limit);
            }
            ready!(Pin::new(&mut self.expiry).poll(cx));
            match due {
                Some((since, limit, ended)) if since + limit == self.fires => return Poll::Ready(ended),
                Some((since, limit, _)) => self.set(since, limit),
                None => self.set(Instant::now(), BUSY_LOOK),
            }
        }
    }
}
