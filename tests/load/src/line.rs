//! HTTP/2 connections that many requests and WebSockets share, as the tabs of a browser do.
//!
//! A connection is opened by its first stream and closed after its last.

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

/// The window that Chromium announces for a stream. No measurement should be limited by the client's window.
pub const STREAM_WINDOW: u32 = 6 * 1024 * 1024;
/// The window that Chromium announces for a connection.
const CONNECTION_WINDOW: u32 = 15 * 1024 * 1024;

/// The limit of unread small DATA frames, in bytes of overhead. The client measures a proxy and needs no protection
/// from it.
const FRAME_BUDGET: usize = 64 * 1024 * 1024;

/// One connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Line {
    requests: SendRequest<Bytes>,
}

impl Line {
    /// Exchanges the prefaces on a TLS stream that has agreed on `h2`, for `streams` concurrent streams, each with a
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
        // Ends with the last stream, or with an error that every stream reports.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        // The settings precede all other frames of a server (RFC 9113 §3.4): they are known after a pong.
        if let Some(mut pings) = pings {
            pings.ping(Ping::opaque()).await?;
        }
        let allowed = requests.current_max_send_streams();
        if streams > allowed {
            return Err(DialError::Streams { wanted: streams, allowed });
        }
        Ok(Self { requests })
    }

    /// Returns true if the server supports extended CONNECT (RFC 8441 §3).
    pub fn takes_websockets(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Sends a request and waits for its response. The first half of the result is for the client's data, unless
    /// `finished` is set.
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

/// A shared handle of a connection. The connection closes with the last handle.
pub type Shared = Arc<OnceCell<Line>>;

impl Lines {
    /// Returns the cell of connection `number`. The caller that finds it empty opens the connection.
    pub fn place(&self, number: usize) -> Shared {
        // The map is valid even after a panic in another task.
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
    fn a_connection_is_shared_while_it_is_held() {
        let lines = Lines::default();
        let (first, second, other) = (lines.place(1), lines.place(1), lines.place(2));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        let held = Arc::downgrade(&first);
        drop((first, second));
        assert!(held.upgrade().is_none(), "no handle is left");
        assert_eq!(Arc::strong_count(&lines.place(1)), 1);
    }
}
