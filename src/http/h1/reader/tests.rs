//! Tests of the minimum rate of a reader of responses.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{advance, timeout};

use super::*;
use crate::relay::{Delivery, Memory};

const STALL: Duration = Duration::from_secs(40);

/// A socket that takes nothing, of which the client acknowledges what the test says.
#[derive(Debug, Default)]
struct Blocked {
    acked: Arc<AtomicU64>,
    is_aborted: AtomicBool,
}

impl Leg for Blocked {
    fn delivery(&self) -> Option<Delivery> {
        Some(Delivery { acked: self.acked.load(Ordering::Relaxed), unread: false })
    }

    fn unsent(&self) -> usize {
        1000
    }

    fn abort_on_drop(&mut self) {
        self.is_aborted.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Blocked {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Blocked {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// Waits for `time` behind 5000 bytes. Returns whether the client was too slow.
async fn waits(reader: &mut ResponseRate, stream: &mut Blocked, time: Duration) -> bool {
    let too_slow = poll_fn(|cx| match reader.check(cx, stream, 5000) {
        Ok(()) => Poll::Pending,
        Err(error) => Poll::Ready(error.kind() == ErrorKind::TimedOut),
    });
    timeout(time, too_slow).await.is_ok_and(|is_timed_out| is_timed_out)
}

fn reader(limit: Option<u64>) -> (ResponseRate, Blocked, Arc<Memory>) {
    let memory = Arc::<Memory>::default();
    (ResponseRate::new(STALL, Held::new(&memory), limit), Blocked::default(), memory)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_has_its_time_and_no_more() {
    let (mut reader, mut stream, memory) = reader(None);
    let begun = Instant::now();
    assert!(waits(&mut reader, &mut stream, 2 * STALL).await);
    assert_eq!((begun.elapsed().as_secs(), memory.to_client()), (STALL.as_secs(), 6000));
    assert!(stream.is_aborted.load(Ordering::Relaxed));
    drop(reader);
    assert_eq!(memory.to_client(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_its_kernel_acknowledges_is_taken() {
    for (rate, is_served) in [(100, false), (300, true)] {
        let (mut reader, mut stream, _) = reader(None);
        let acked = Arc::clone(&stream.acked);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                acked.fetch_add(rate, Ordering::Relaxed);
            }
        });
        assert_eq!(waits(&mut reader, &mut stream, 10 * STALL).await, !is_served, "{rate} bytes a second");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_nothing_waits_does_not_count() {
    let (mut reader, mut stream, memory) = reader(None);
    for _ in 0..3 {
        assert!(!waits(&mut reader, &mut stream, STALL / 4).await);
        reader.took(1);
        assert_eq!(memory.to_client(), 0);
        advance(10 * STALL).await;
    }
    assert!(!waits(&mut reader, &mut stream, STALL / 4 - Duration::from_secs(1)).await);
    assert!(waits(&mut reader, &mut stream, Duration::from_secs(2)).await, "three bytes in all of its time");
}

#[tokio::test(start_paused = true)]
async fn there_is_less_time_while_too_much_is_held() {
    let (mut reader, mut stream, memory) = reader(Some(10_000));
    let mut other = Held::new(&memory);
    assert!(!waits(&mut reader, &mut stream, Duration::from_secs(6)).await);
    other.set(0, 5000);
    let begun = Instant::now();
    assert!(waits(&mut reader, &mut stream, STALL).await);
    assert!(begun.elapsed() <= STRICT, "{:?}", begun.elapsed());
}
