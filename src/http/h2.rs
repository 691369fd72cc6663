//! One client connection that speaks HTTP/2 (RFC 9113): its driver, which accepts streams, keeps the connection alive,
//! and ends it where the client misbehaves.
//!
//! hyper serves HTTP/1.1 only. Its HTTP/2 server hands a WebSocket's stream out behind a channel, through which no
//! stream can be reset, least of all one that the client leaves blocked; so this speaks to the library beneath it.

mod egress;
mod exchange;
mod frames;
mod guard;
mod inflow;
mod keepalive;
mod leg;
mod streams;
mod wire;

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

use super::{Connection, Edge, Peer, linger};
use crate::config::EdgeLimits;
use crate::relay::Leg;
use crate::suspension::timeout;
use crate::telemetry::lines;
use exchange::Exchange;
pub use guard::FrameGuard;
use inflow::Inflows;
use keepalive::{Finding, KeepAlive};
use wire::Wire;

/// What one stream may send ahead of its use (RFC 9113 §5.2). The window of the connection is that of all streams
/// together: one that nobody reads holds up no other.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The library ends a connection when the unread DATA frames under 256 bytes lack more than this to be of that size.
/// Streams take what is theirs long before (see [`wire`]).
const DATA_FRAME_BUDGET: usize = 4 * 1024 * 1024;

/// Bytes of one stream that the library holds for a connection that takes none.
const SEND_BUFFER: usize = 64 * 1024;

/// What a header field counts for beyond its bytes (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// How long a connection that ends may take to say so.
const PARTING: Duration = Duration::from_secs(2);

/// Serves one client connection until it closes. Every stream is a task of its own.
pub(super) async fn serve<C: Leg + Send + 'static>(stream: C, peer: Peer, edge: Arc<Edge>) {
    let mut wire = Wire::new(stream, Instant::now());
    let limits = edge.rules().limits;
    let handshake = timeout(limits.header_read, pin!(library(&limits).handshake(wire.clone()))).await;
    let ended = match handshake {
        Ok(Ok(connection)) => {
            let mut driver = Driver::new(connection, wire.clone(), peer.clone(), Arc::clone(&edge), limits);
            poll_fn(|cx| driver.poll(cx)).await
        }
        Ok(Err(error)) => Ended::of(&error),
        Err(_) => Ended::Refused("header_timeout", Reason::NO_ERROR),
    };
    if let Ended::Refused(reason, code) = ended {
        edge.metrics.goaway(reason);
        lines::h2_goaway(peer.address, reason, code.into());
    }
    wire.release();
    if ended == Ended::Dead {
        wire.abort_on_drop();
    } else {
        linger::close(&mut wire).await;
    }
}

fn library(limits: &EdgeLimits) -> server::Builder {
    let resets = usize::try_from(limits.resets).unwrap_or(usize::MAX);
    let header_list = limits.header_bytes.saturating_add(limits.headers.saturating_mul(FIELD_OVERHEAD));
    let mut builder = server::Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams).min((1 << 31) - 1))
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(Some(resets));
    builder
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// One of the two said so, or it broke.
    Closed,
    /// The client did not answer, not even to the end of the connection.
    Dead,
    /// By the proxy, for what the client did.
    Refused(&'static str, Reason),
}

impl Ended {
    fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(code) if error.is_library() && code != Reason::NO_ERROR => Self::Refused(word(code), code),
            _ => Self::Closed,
        }
    }
}

/// The word for an error that the library found.
fn word(code: Reason) -> &'static str {
    match code {
        Reason::ENHANCE_YOUR_CALM => "excessive",
        Reason::FLOW_CONTROL_ERROR => "flow_control",
        Reason::FRAME_SIZE_ERROR => "frame_size",
        Reason::COMPRESSION_ERROR => "compression",
        _ => "protocol_error",
    }
}

struct Driver<C: Leg> {
    connection: server::Connection<Wire<C>, Bytes>,
    wire: Wire<C>,
    peer: Peer,
    edge: Arc<Edge>,
    inflows: Inflows,
    keepalive: KeepAlive,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Why the connection is being ended.
    refused: Option<(&'static str, Reason)>,
    /// As they were when the connection began: its SETTINGS told the client.
    limits: EdgeLimits,
}

impl<C: Leg + Send + 'static> Driver<C> {
    fn new(
        mut connection: server::Connection<Wire<C>, Bytes>,
        wire: Wire<C>,
        peer: Peer,
        edge: Arc<Edge>,
        limits: EdgeLimits,
    ) -> Self {
        let pings = connection.ping_pong();
        let keepalive = KeepAlive::new(pings, &limits, Instant::now());
        let draining = Some(Box::pin(edge.draining.clone().cancelled_owned()));
        wire.cork();
        let inflows = Inflows::default();
        Self { connection, wire, peer, edge, inflows, keepalive, draining, refused: None, limits }
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
                self.wire.frames(frames::Frames::forget_small);
            }
            if !self.is_refused_now() {
                break;
            }
        }
        let finding = self.keepalive.poll(cx, &mut self.wire, self.connection.has_streams());
        match finding {
            Finding::Nothing => Poll::Pending,
            Finding::Dead { death, all } => {
                tracing::debug!(client.address = %self.peer.address, ?death, all, "http2.dead");
                let wire = &self.wire;
                self.inflows.bury(death, |stream| wire.streams(|streams| streams.is_off(stream)));
                if all {
                    // A client that was only held up (a laptop whose lid was closed) finds the sessions closed in order.
                    self.connection.graceful_shutdown();
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Finding::OutOfTime if self.refused.is_some() => Poll::Ready(self.ended(None)),
            Finding::OutOfTime => Poll::Ready(Ended::Dead),
            Finding::Idle => {
                self.connection.graceful_shutdown();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Finding::SlowHead => {
                self.refuse("header_timeout", Reason::ENHANCE_YOUR_CALM);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn start(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (request, inflow) = exchange::parts(request);
        self.inflows.add(&inflow);
        let connection = Connection::new(self.peer.clone(), Arc::clone(&self.edge));
        let entry = self.wire.enter(respond.stream_id().into());
        let exchange = Exchange { connection, entry, respond, inflow };
        // Boxed: on its way into a task a future is moved about, and this one is large.
        self.edge.tracker.spawn(Box::pin(exchange.run(request)));
        if self.peer.forbidden {
            // The answer is a 403, and there is nothing else for this client.
            self.connection.graceful_shutdown();
            self.keepalive.retire(Instant::now());
        }
    }

    /// Ends the connection if the client resets streams faster than anybody honest does; says whether it just did.
    fn is_refused_now(&mut self) -> bool {
        let resets = self.wire.frames(|frames| frames.resets());
        let excessive = self.refused.is_none() && u32::try_from(resets).is_ok_and(|resets| resets > self.limits.resets);
        if excessive {
            self.refuse("resets", Reason::ENHANCE_YOUR_CALM);
        }
        excessive
    }

    fn refuse(&mut self, reason: &'static str, code: Reason) {
        self.refused = Some((reason, code));
        self.connection.abrupt_shutdown(code);
        self.keepalive.part(Instant::now() + PARTING);
    }

    fn ended(&self, error: Option<h2::Error>) -> Ended {
        match (self.refused, error) {
            (Some((reason, code)), _) => Ended::Refused(reason, code),
            (None, Some(error)) => {
                tracing::debug!(client.address = %self.peer.address, %error, "http2.connection");
                Ended::of(&error)
            }
            (None, None) => Ended::Closed,
        }
    }
}
