//! One client connection, HTTP/1.1 or HTTP/2, from its first byte to its last response or its WebSockets.
//!
//! `h1` and `h2` read requests; `handle` answers each. A plain request is routed (`route`) and forwarded (`forward`), a
//! request for a WebSocket becomes a session (`websocket`). What all connections of a worker share is the [`Edge`].

mod access;
mod admission;
mod authority;
mod client_certificate;
mod connection;
mod edge;
mod forward;
mod forwarded;
mod h1;
mod h2;
mod handle;
mod headers;
mod interim;
mod lingering_close;
mod pace;
mod peer;
mod request_head;
mod response;
mod route;
mod target;
mod timer;
mod websocket;
mod worker_config;

use std::sync::Arc;

use crate::relay::Leg;
pub use client_certificate::ClientCertificate;
pub use edge::Edge;
pub(crate) use edge::KEPT;
pub(crate) use h1::{http1_builder, reject_head, reject_late_head};
#[doc(hidden)]
pub use h2::FrameGuard;
pub use peer::{Peer, Protocol, TlsFacts};
pub(crate) use timer::PauseTimer;

/// Serves one client connection until it closes, or, in HTTP/1.1, until it has become a WebSocket. Every WebSocket
/// lives in a task of its own.
pub async fn serve<C: Leg + Send + 'static>(stream: C, peer: Peer, edge: Arc<Edge>) {
    match peer.protocol() {
        Protocol::H1 => h1::serve(stream, peer, edge).await,
        Protocol::H2 => h2::serve(stream, peer, edge).await,
    }
}
