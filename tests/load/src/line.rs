//! HTTP/2 connections that many requests and WebSockets share, as a browser's tabs share theirs.
//!
//! A connection lives as long as something on it does: it is opened by its first stream and closed after its last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::client::TlsStream;

use crate::dial::DialError;

/// What Chromium announces for a stream; no measurement should end at the client's window.
pub const STREAM_WINDOW: u32 = 6 * 1024 * 1024;
/// What Chromium announces for a connection.
const CONNECTION_WINDOW: u32 = 15 * 1024 * 1024;

/// Small DATA frames, in bytes of overhead, that may wait unread. The client is here to measure what a proxy does, not
/// to defend itself.
const FRAME_BUDGET: usize = 64 * 1024 * 1024;

/// One connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Line {
    requests: SendRequest<Bytes>,
}

impl Line {
    /// Exchanges the prefaces on a TLS stream that has agreed on `h2`, for `streams` streams at once, each with a
    /// receive window of `window` bytes.
    pub async fn open(tls: TlsStream<TcpStream>, streams: usize, window: u32) -> Result<Self, DialError> {
        let (requests, mut connection) = Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(FRAME_BUDGET)
            .enable_push(false)
            .handshake(tls)
            .await?;
        let pings = connection.ping_pong();
        // Ends with the last stream, or with an error that every stream sees.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        // The settings precede everything else that a server says (RFC 9113 §3.4): after a pong they are known.
        if let Some(mut pings) = pings {
            pings.ping(Ping::opaque()).await?;
        }
        let allowed = requests.current_max_send_streams();
        if streams > allowed {
            return Err(DialError::Streams { wanted: streams, allowed });
        }
        Ok(Self { requests })
    }

    /// Whether the server takes extended CONNECT (RFC 8441 §3).
    pub fn takes_websockets(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Sends a request and waits for its answer. The first half is for what the client has to say, unless it has
    /// `finished`.
    pub async fn request(
        &self,
        request: Request<()>,
        finished: bool,
    ) -> Result<(SendStream<Bytes>, Response<RecvStream>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, upward) = requests.send_request(request, finished)?;
        Ok((upward, answer.await?))
    }
}

/// The connections of a dialer, by number.
#[derive(Debug, Default)]
pub struct Lines {
    open: Mutex<HashMap<usize, Weak<OnceCell<Line>>>>,
}

/// A hold on a connection.
pub type Shared = Arc<OnceCell<Line>>;

impl Lines {
    /// The place of connection `number`, which may be empty: who finds it so opens the connection.
    pub fn place(&self, number: usize) -> Shared {
        // What a panic elsewhere leaves behind is still a map.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.get(&number).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let fresh = Shared::default();
            open.insert(number, Arc::downgrade(&fresh));
            fresh
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shared_while_it_is_held() {
        let lines = Lines::default();
        let (first, second, other) = (lines.place(1), lines.place(1), lines.place(2));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        let held = Arc::downgrade(&first);
        drop((first, second));
        assert!(held.upgrade().is_none(), "nobody holds it");
        assert_eq!(Arc::strong_count(&lines.place(1)), 1);
    }
}
