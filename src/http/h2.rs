//! One client connection that speaks HTTP/2 (RFC 9113): its driver, which accepts streams, keeps the connection alive,
//! and ends it where the client misbehaves.
//!
//! hyper serves HTTP/1.1 only. Its HTTP/2 server hands a WebSocket's stream out behind a channel, through which no
//! stream can be reset, least of all one that the client leaves blocked; so this speaks to the library beneath it.

mod egress;
mod exchange;
mod frame;
mod frame_guard;
mod frame_limits;
mod heartbeats;
mod hpack;
mod huffman;
mod keepalive;
mod leg;
mod outgoing;
mod shared_io;
mod stream_receiver;
mod streams;
mod targets;
mod tolerance;
mod turns;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use hyper::Request;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::ClientConnection;
use super::edge::Edge;
use super::peer::Peer;
use super::{lingering_close, target};
use crate::config::{EdgeLimits, Http2};
use crate::relay::{Held, Leg};
use crate::suspension::timeout;
use crate::telemetry::{Chain, log_events};
use exchange::Exchange;
pub use frame_guard::FrameGuard;
use frame_limits::{ConnectionError, Frames};
use keepalive::{ClockFinding, KeepAlive};
use shared_io::{ReadEvidence, SharedIo};
use stream_receiver::Inflows;
use streams::StreamKind;

/// Bytes that one stream may send ahead of their use (RFC 9113 §5.2). The window of the connection is that of all streams
/// together: a stream that is not read holds up no other.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The library ends a connection when the unread DATA frames under 256 bytes lack more than this to be of that size.
/// Streams take what is theirs long before (see [`shared_io`]).
const DATA_FRAME_BUDGET: usize = 4 * 1024 * 1024;

/// Bytes of one stream that the library holds for a connection that takes none.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests that a client may cancel before the driver has seen them, after which the library ends the connection. They
/// cost no more than other frames do, which [`tolerance`] limits.
const CANCELLED_MOST: usize = 100_000;

/// A connection with WebSockets is ended after so many times the losses that another one is (`limits.resets`).
const HANDSHAKE_TIMEOUT_FACTOR: u32 = 10;

/// Bytes that a header field counts for beyond its own (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Time in which a connection that ends must have sent its GOAWAY.
const PARTING: Duration = Duration::from_secs(2);

/// Serves one client connection until it closes. Every stream is a task of its own.
pub(super) async fn serve<C: Leg + Send + 'static>(stream: C, peer: Peer, edge: Arc<Edge>) {
    let mut wire = SharedIo::new(stream, Instant::now());
    let rules = edge.rules();
    let (limits, http2) = (rules.limits, rules.http2);
    drop(rules);
    let handshake = timeout(limits.header_read, pin!(library(&limits, http2).handshake(wire.clone()))).await;
    let ended = match handshake {
        Ok(Ok(connection)) => {
            let mut driver = Driver::new(connection, wire.clone(), peer.clone(), Arc::clone(&edge), limits);
            poll_fn(|cx| driver.poll(cx)).await
        }
        Ok(Err(error)) => Ended::of(&error),
        Err(_) => Ended::Refused(ConnectionError { word: "header_timeout", code: Reason::NO_ERROR }),
    };
    if let Ended::Refused(fault) = ended {
        report(&edge, &peer, fault);
    }
    wire.release();
    if ended == Ended::Dead {
        wire.abort_on_drop();
    } else {
        lingering_close::close(&mut wire).await;
    }
}

/// Reports a GOAWAY and its reason.
fn report(edge: &Edge, peer: &Peer, ConnectionError { word, code }: ConnectionError) {
    edge.metrics.goaway(word);
    log_events::h2_goaway(peer.address, word, code.into());
}

/// Streams of both kinds that one connection may have open at once.
fn streams(limits: &EdgeLimits, http2: Http2) -> u32 {
    let websockets = if http2 == Http2::On { limits.websocket_streams } else { 0 };
    limits.streams.saturating_add(websockets)
}

fn library(limits: &EdgeLimits, http2: Http2) -> server::Builder {
    let streams = streams(limits, http2);
    let header_list = limits.header_bytes.saturating_add(limits.headers.saturating_mul(FIELD_OVERHEAD));
    let mut builder = server::Builder::new();
    if http2 == Http2::On {
        builder.enable_connect_protocol();
    }
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(frame::LARGEST_WINDOW))
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(CANCELLED_MOST)
        // It would count over the whole life of the connection; the losses of ten seconds count here instead.
        .max_local_error_reset_streams(None);
    builder
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Either side closed it, or it broke.
    Closed,
    /// The client did not answer, not even to the end of the connection.
    Dead,
    /// By the proxy, for what the client did.
    Refused(ConnectionError),
}

impl Ended {
    fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(code) if error.is_library() && code != Reason::NO_ERROR => Self::Refused(ConnectionError::of(code)),
            _ => Self::Closed,
        }
    }
}

struct Driver<C: Leg> {
    connection: server::Connection<SharedIo<C>, Bytes>,
    wire: SharedIo<C>,
    peer: Peer,
    edge: Arc<Edge>,
    inflows: Inflows,
    keepalive: KeepAlive,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// The fault for which the connection is being ended.
    refused: Option<ConnectionError>,
    /// Set once new streams are refused because of too many losses.
    is_closed_to_new: bool,
    /// The limits at the beginning of the connection: its SETTINGS have stated them to the client.
    limits: EdgeLimits,
    /// Bytes that the connection holds for its client, beside those that its sessions count.
    held: Held,
}

impl<C: Leg + Send + 'static> Driver<C> {
    fn new(
        mut connection: server::Connection<SharedIo<C>, Bytes>,
        wire: SharedIo<C>,
        peer: Peer,
        edge: Arc<Edge>,
        limits: EdgeLimits,
    ) -> Self {
        let pings = connection.ping_pong();
        let keepalive = KeepAlive::new(pings, &limits, Instant::now());
        let draining = Some(Box::pin(edge.draining.clone().cancelled_owned()));
        wire.cork();
        // Each stream gets a copy of the peer, with this in it.
        let _ = peer.address_value();
        let inflows = Inflows::default();
        let held = Held::new(edge.metrics.memory());
        Self {
            connection,
            wire,
            peer,
            edge,
            inflows,
            keepalive,
            draining,
            refused: None,
            is_closed_to_new: false,
            limits,
            held,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready()) {
            self.draining = None;
            self.connection.graceful_shutdown();
            self.keepalive.retire(Instant::now());
        }
        loop {
            while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, respond))) => self.start(request, respond),
                    end => return Poll::Ready(self.ended(end.and_then(Result::err))),
                }
            }
            self.wire.settle(cx);
            if self.wire.is_crowded() {
                self.inflows.sweep();
                self.wire.frames(Frames::forget_small);
            }
            if !self.is_refused_now() {
                break;
            }
        }
        let finding = self.keepalive.poll(cx, &mut self.wire, self.connection.has_streams());
        match finding {
            ClockFinding::Nothing => Poll::Pending,
            ClockFinding::Dead { death, all } => {
                let (address, port) = log_events::client(self.peer.address);
                tracing::debug!(client.address = address, client.port = port, ?death, all, "http2.dead");
                let wire = &self.wire;
                self.inflows.bury(death, |stream| wire.streams(|streams| streams.is_off(stream)));
                if all {
                    // A client that was only held up (a laptop whose lid was closed) finds the sessions closed in order.
                    self.connection.graceful_shutdown();
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            ClockFinding::OutOfTime if self.refused.is_some() => Poll::Ready(self.ended(None)),
            ClockFinding::OutOfTime => Poll::Ready(Ended::Dead),
            ClockFinding::Idle => {
                self.connection.graceful_shutdown();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            ClockFinding::SlowHead => {
                self.refuse(ConnectionError { word: "header_timeout", code: Reason::ENHANCE_YOUR_CALM });
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn start(&mut self, mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if let Some(sent) = self.wire.streams(|streams| streams.targets.take(respond.stream_id().into())) {
            target::note(&mut request, sent.into());
        }
        let kind = exchange::kind(&request);
        if exchange::is_malformed(&request) {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let (open, most) = match kind {
            StreamKind::Plain => (self.wire.streams(|streams| streams.open_of(kind)), self.limits.streams),
            StreamKind::WebSocket => {
                (self.wire.streams(|streams| streams.open_of(kind)), self.limits.websocket_streams)
            }
        };
        if self.is_closed_to_new || open >= most {
            if kind == StreamKind::WebSocket {
                self.edge.metrics.rejected("streams");
            }
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let counted = (kind == StreamKind::Plain).then(|| Held::new(self.edge.metrics.memory()));
        let (request, inflow) = exchange::parts(request, counted);
        self.inflows.add(&inflow);
        let connection = ClientConnection::new(self.peer.clone(), Arc::clone(&self.edge));
        let entry = self.wire.enter(respond.stream_id().into(), kind);
        let exchange = Exchange { connection, entry, respond, inflow };
        // Boxed: on its way into a task a future is moved about, and this one is large.
        self.edge.tracker.spawn(Box::pin(exchange.run(request)));
        if self.peer.forbidden {
            // The answer is a 403, and there is nothing else for this client.
            self.connection.graceful_shutdown();
            self.keepalive.retire(Instant::now());
        }
    }

    /// Ends the connection for what the client has done, if it is to be ended. Returns whether there is more to do for it.
    ///
    /// Too many losses end a connection; one with WebSockets is kept for these, and for what else is under way, until
    /// there are [`HANDSHAKE_TIMEOUT_FACTOR`] times as many.
    fn is_refused_now(&mut self) -> bool {
        let ReadEvidence { fault, malformed, touched, losses, websockets, held } = self.wire.found();
        self.held.set(0, held);
        for stream in touched {
            self.inflows.count(stream);
        }
        for stream in malformed {
            self.inflows.reject(stream);
        }
        if self.refused.is_some() {
            return false;
        }
        if let Some(fault) = fault {
            self.refuse(fault);
            return true;
        }
        let is_kept = websockets > 0 && losses <= self.limits.resets.saturating_mul(HANDSHAKE_TIMEOUT_FACTOR);
        if losses <= self.limits.resets || is_kept && self.is_closed_to_new {
            return false;
        }
        if is_kept {
            self.is_closed_to_new = true;
            report(&self.edge, &self.peer, ConnectionError { word: "resets", code: Reason::NO_ERROR });
            self.connection.graceful_shutdown();
            self.keepalive.retire(Instant::now());
        } else {
            self.refuse(ConnectionError { word: "resets", code: Reason::ENHANCE_YOUR_CALM });
        }
        true
    }

    fn refuse(&mut self, fault: ConnectionError) {
        self.refused = Some(fault);
        self.wire.frames(|frames| frames.stop(fault));
        self.connection.abrupt_shutdown(fault.code);
        self.keepalive.close_after(Instant::now() + PARTING);
    }

    fn ended(&self, error: Option<h2::Error>) -> Ended {
        match (self.refused, error) {
            (Some(fault), _) => Ended::Refused(fault),
            (None, Some(error)) => {
                let (address, port) = log_events::client(self.peer.address);
                tracing::debug!(client.address = address, client.port = port, error = %Chain(&error), "http2.connection");
                Ended::of(&error)
            }
            (None, None) => Ended::Closed,
        }
    }
}
