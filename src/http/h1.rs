//! One client connection that speaks HTTP/1.1: hyper while there is something to do, a small task while there is not.
//!
//! hyper knows one timeout for the head of a request and for the wait before it, keeps its buffers for as long as the
//! connection lives, and looks for the end of the connection only while its read buffer is empty. So its stream reports
//! how far the requests are ([`Turns`]) and watches for that end ([`Io`]), this module has the clock, and a connection
//! that is idle is taken out of hyper ([`parked`]) until its next byte arrives. What hyper reads otherwise than other
//! servers do is found in the bytes before it reads them ([`framing`]).

mod framing;
mod io;
mod parked;
mod reader;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Connection, Edge, Fate, Peer, answer, head_timeout, linger, server, target};
use crate::config::EdgeLimits;
use crate::relay::{Held, Leg};
use crate::suspension::{Deadline, Expiry};
use crate::upgrade;
use crate::upstream::{CROWD, Upload};
pub(super) use io::Turn;
use io::{Io, Phase, TrackedBody, Turns, Unread};
use reader::Reader;

/// How long an idle connection stays in hyper: requests that follow one another closely find it there.
const PARK_AFTER: Duration = Duration::from_millis(200);

/// Bytes that the kernel takes beyond a client's window, on a worker with [`CROWD`] tasks: slow readers otherwise fill its
/// memory for TCP (`net.ipv4.tcp_mem`). Quick ones cost some CPU time with the limit.
const UNSENT: u32 = 128 * 1024;

/// How often a connection with a request under way is looked at, lest its clock be set with each request.
const BUSY_LOOK: Duration = Duration::from_secs(10);

/// Serves one client connection until it closes or has become a WebSocket; while it is idle, in another task.
pub(super) async fn serve<C: Leg + Send + 'static>(mut stream: C, peer: Peer, edge: Arc<Edge>) {
    // A client that takes nothing of a response holds the app's connection too; hyper has no limit for it.
    stream.set_user_timeout(edge.rules().limits.write_stall);
    run(stream, Bytes::new(), peer, edge).await;
}

/// As [`serve`] for a connection that was parked, from which `first` was read. Boxed: the two tasks of a connection start
/// one another.
fn resume<C: Leg + Send + 'static>(
    stream: C,
    first: Bytes,
    peer: Peer,
    edge: Arc<Edge>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(run(stream, first, peer, edge))
}

async fn run<C: Leg + Send + 'static>(mut stream: C, first: Bytes, peer: Peer, edge: Arc<Edge>) {
    let mut unread = Unread::new(first, edge.rules().limits.header_bytes);
    let turns = Arc::new(Turns::new());
    if edge.tracker.len() > CROWD {
        stream.limit_unsent(Some(UNSENT));
    }
    let (idle, keep_alive) = loop {
        let limits = edge.rules().limits;
        let latest = Arc::new(Mutex::new(Connection::new(peer.clone(), Arc::clone(&edge))));
        let service = service_fn(|request| {
            let (connection, turns) = (Connection::at_next_request(&latest), Arc::clone(&turns));
            exchange(connection, turns, request)
        });
        let reader = Reader::new(limits.write_stall, Held::new(edge.metrics.memory()), limits.memory);
        let io = TokioIo::new(Io::new(stream, unread, Arc::clone(&turns), reader));
        let mut http = server(&limits).serve_connection(io, service).with_upgrades();
        let mut clock = Clock::new(&limits);
        let ended = {
            let mut parting = pin!(edge.parting());
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
        let connection = Connection::at_next_request(&latest);
        let fate = connection.swap_fate(Fate::Http);
        let Some(parts) = http.into_parts() else {
            return switched::<C>(fate, &connection).await;
        };
        let (io, rest) = parts.io.into_inner().into_parts();
        // An empty line before a request is no part of it (RFC 9112 §2.2).
        let blank = parts.read_buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let read = &parts.read_buf[blank..];
        stream = io;
        match ended {
            Ended::Http(Ok(())) => return linger::close(&mut stream).await,
            Ended::Http(Err(error)) => return connection.failed(&error, read, &mut stream).await,
            Ended::LateHead if read.is_empty() => return linger::close(&mut stream).await,
            Ended::LateHead => {
                return linger::close_with(&mut stream, head_timeout(peer.address, &edge.metrics)).await;
            }
            Ended::Idle(since) if read.is_empty() && rest.is_empty() => break (since, limits.keep_alive),
            // The beginning of a request arrived together with the one before it.
            Ended::Idle(_) => {
                unread = rest.behind(read);
                turns.renew();
            }
        }
    };
    edge.tracker.spawn(parked::wait(stream, peer, Arc::clone(&edge), Deadline::since(idle, keep_alive)));
}

/// How hyper's part in a connection ended, for the time being or for good.
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
    connection: Arc<Connection>,
    turns: Arc<Turns>,
    mut request: Request<Incoming>,
) -> Result<hyper::Response<super::Reply>, Infallible> {
    if let Some(sent) = turns.begin() {
        target::note(&mut request, sent);
    }
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let request = request.map(|body| {
        if body.is_end_stream() { Upload::default() } else { Upload::new(TrackedBody::new(body, Arc::clone(&turns))) }
    });
    let response = answer(&connection, request, client).await;
    let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    Ok(response.map(|reply| reply.in_turn(turns.answer(stays))))
}

/// What follows where hyper has parted with the stream, rather than close it, because a request offered an upgrade.
async fn switched<C: Leg + Send + 'static>(fate: Fate, connection: &Connection) {
    match fate {
        Fate::Switched(client, prepared) => {
            if let Some((stream, early)) = regain::<C>(client).await {
                connection.edge.sessions.start(stream, early, *prepared);
            }
        }
        Fate::Asked(client) => {
            if let Some((mut stream, _)) = regain::<C>(client).await {
                linger::close(&mut stream).await;
            }
        }
        Fate::Http | Fate::Bridged(_) => {}
    }
}

/// The stream out of hyper, with the bytes that were read too early.
async fn regain<C: Leg + Send + 'static>(client: OnUpgrade) -> Option<(C, Bytes)> {
    let (io, early) = upgrade::regain::<Io<C>>(client).await?;
    let (stream, rest) = io.into_parts();
    Some((stream, rest.into_bytes(&early)))
}

/// The clock of a connection in hyper. It is set lazily: it fires early rather than be set with each request.
struct Clock {
    header_read: Duration,
    idle: Duration,
    expiry: Expiry,
    /// When it fires, if the process is not paused: to be compared without a look at the record of pauses.
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
    fn poll(&mut self, cx: &mut Context<'_>, turns: &Turns, may_park: impl Fn() -> bool) -> Poll<Ended> {
        loop {
            let due = match turns.waiting() {
                Some(Phase::Head { since }) => Some((since, self.header_read, Ended::LateHead)),
                Some(Phase::Idle { since }) if may_park() => Some((since, self.idle, Ended::Idle(since))),
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
