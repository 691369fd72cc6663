//! Tests of the outbound side of a leg.

use std::future::poll_fn;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::relay::timer::tests::spend_budget;

struct Pipe(DuplexStream);

impl Leg for Pipe {}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Sends as much as goes into a pipe with room for ten bytes, and drains.
async fn drained(bytes: &[u8], spend: bool) -> Drained {
    let (ours, _theirs) = duplex(10);
    let (mut leg, mut outbound) = (Pipe(ours), Outbound::default());
    tokio::task::yield_now().await;
    poll_fn(|cx| {
        if spend {
            spend_budget();
        }
        outbound.send(&mut leg, cx, bytes);
        Poll::Ready(outbound.drain(&mut leg, cx).expect("the pipe is open"))
    })
    .await
}

#[tokio::test]
async fn s52_a_write_without_budget_shows_no_backlog() {
    assert_eq!(drained(b"five.", false).await, Drained::Clear);
    assert_eq!(drained(b"more than ten", false).await, Drained::Blocked { progress: false });
    // The heartbeat takes a backlog for time in which the client has not been told yet.
    assert_eq!(drained(b"five.", true).await, Drained::Starved);
}
