//! The body of a response on its way to the client, as the client takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;
use tokio::time::Instant;

use super::shared_io::StreamEntry;
use super::streams::Taken;
use crate::http::pace::{STRICT, is_enough};
use crate::http::response::ProxyResponse;
use crate::relay::{Held, Leg};
use crate::suspension::{self, paused_since};

/// The sending half of one stream with the response that is sent on it.
pub(super) struct Outgoing<C: Leg> {
    outflow: SendStream<Bytes>,
    entry: StreamEntry<C>,
    /// The time over which the rate is measured.
    stall: Duration,
    pace: Pace,
    /// The count of bytes that this stream holds beside the library.
    held: Held,
    /// The value of `limits.memory`, in bytes.
    limit: Option<u64>,
}

/// The measure of how fast a client takes bytes that wait for it.
#[derive(Debug, Default)]
struct Pace {
    /// Time in which bytes have waited since the measure began.
    waited: Duration,
    /// The client's position then.
    from: Option<Taken>,
}

/// The reason for which a response was not sent to its end.
enum Broken {
    /// The client does not want it, or is gone.
    Unwanted,
    /// The client takes too little of it.
    Stalled,
    /// It broke off where it comes from.
    Incomplete,
}

impl<C: Leg> Outgoing<C> {
    /// A response on `outflow`, to a client whose rate is measured over `stall`. `held` counts what it holds, together
    /// with everything else for which there is `limit`.
    pub(super) fn new(
        outflow: SendStream<Bytes>,
        entry: StreamEntry<C>,
        stall: Duration,
        held: Held,
        limit: Option<u64>,
    ) -> Self {
        Self { outflow, entry, stall, pace: Pace::default(), held, limit }
    }

    /// Sends `body`.
    pub(super) async fn send(mut self, mut body: ProxyResponse) {
        let sent = match self.feed(&mut body).await {
            Ok(()) => {
                drop(body);
                self.deliver().await
            }
            broken => broken,
        };
        match sent {
            Ok(()) => {}
            Err(Broken::Unwanted) => self.entry.abandoned(),
            Err(Broken::Stalled) => self.outflow.send_reset(Reason::CANCEL),
            Err(Broken::Incomplete) => self.outflow.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    async fn feed(&mut self, body: &mut ProxyResponse) -> Result<(), Broken> {
        loop {
            if !self.entry.has_turn() {
                // The app holds what is not asked for.
                self.wait(Self::poll_turn).await?;
            }
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => self.outflow.poll_reset(cx).map(|_| Err(Broken::Unwanted)),
            });
            let Some(frame) = frame.await? else {
                return self.outflow.send_data(Bytes::new(), true).map_err(|_| Broken::Unwanted);
            };
            match frame.map_err(|_| Broken::Incomplete)?.into_data() {
                Ok(mut data) => {
                    while !data.is_empty() {
                        let room = self.room(data.len()).await?;
                        let piece = data.split_to(room.min(data.len()));
                        self.entry.hand(piece.len());
                        let is_last = data.is_empty() && body.is_end_stream();
                        self.outflow.send_data(piece, is_last).map_err(|_| Broken::Unwanted)?;
                        if is_last {
                            return Ok(());
                        }
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers()
                        && !trailers.is_empty()
                    {
                        return self.outflow.send_trailers(trailers).map_err(|_| Broken::Unwanted);
                    }
                }
            }
        }
    }

    /// Waits until the socket has taken what the library holds of the response, unless nothing stands in the way: until
    /// then the stream counts as open, and its bytes as held.
    async fn deliver(&mut self) -> Result<(), Broken> {
        self.wait(|outgoing, cx| match outgoing.entry.poll_free(cx) {
            Poll::Ready(delivered) => Poll::Ready(delivered.map_err(|_| Broken::Unwanted)),
            // The library never writes what it holds for a stream that was reset.
            Poll::Pending => outgoing.outflow.poll_reset(cx).map(|_| Err(Broken::Unwanted)),
        })
        .await
    }

    /// Waits until some of `wanted` bytes are taken.
    async fn room(&mut self, wanted: usize) -> Result<usize, Broken> {
        if self.entry.has_turn() {
            self.outflow.reserve_capacity(wanted);
            if self.outflow.capacity() > 0 {
                return Ok(self.outflow.capacity());
            }
        }
        self.held.set(0, wanted);
        let room = self.wait(|outgoing, cx| outgoing.poll_room(wanted, cx)).await;
        self.held.set(0, 0);
        room
    }

    /// Waits until the connection holds little enough.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.entry.poll_turn(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.outflow.poll_reset(cx).map(|_| Err(Broken::Unwanted)),
        }
    }

    /// Returns the number of bytes, of `wanted`, that the client, the connection and the library take now.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        ready!(self.poll_turn(cx))?;
        self.outflow.reserve_capacity(wanted);
        loop {
            match self.outflow.capacity() {
                0 => match ready!(self.entry.note_room(self.outflow.poll_capacity(cx))) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Poll::Ready(Err(Broken::Unwanted)),
                },
                room => return Poll::Ready(Ok(room)),
            }
        }
    }

    /// Waits for the client, as long as it reads at the least rate ([`is_enough`]).
    async fn wait<T>(
        &mut self,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<Result<T, Broken>>,
    ) -> Result<T, Broken> {
        // Nearly always there is nothing to wait for, and nothing to measure: that takes two system calls.
        if let Poll::Ready(polled) = poll_fn(|cx| Poll::Ready(poll(self, cx))).await {
            return polled;
        }
        loop {
            let window = if self.held.exceeds(self.limit) { self.stall.min(STRICT) } else { self.stall };
            let begun = Instant::now();
            // The look in the middle begins what shows at the end whether a `WINDOW_UPDATE` is on its way.
            let taken = self.entry.taken(window);
            self.pace.from.get_or_insert(taken);
            let left = window.saturating_sub(self.pace.waited).min(STRICT).min(window / 2);
            let polled = suspension::timeout(left, poll_fn(|cx| poll(self, cx))).await;
            self.pace.waited += begun.elapsed().saturating_sub(paused_since(begun));
            match polled {
                Ok(polled) => return polled,
                Err(_) if self.pace.waited < window => {}
                Err(_) if self.pace.begin_anew(self.entry.taken(window), window) => {}
                Err(_) => return Err(Broken::Stalled),
            }
        }
    }
}

impl Pace {
    /// Begins the next measure. Returns whether the client, which has come as far as `now`, took enough in `window`, or
    /// may have acknowledged it.
    fn begin_anew(&mut self, now: Taken, window: Duration) -> bool {
        let taken = self.from.map_or(0, |from| {
            let of_all = now.of_all.zip(from.of_all).map_or(0, |(now, from)| now.saturating_sub(from));
            // Bytes that stand behind other streams move with the connection.
            (now.own - from.own).max(if now.is_behind { of_all } else { 0 })
        });
        *self = Self { waited: Duration::ZERO, from: Some(now) };
        now.awaits_update || is_enough(taken, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_has_a_least_rate() {
        let window = Duration::from_secs(45);
        let at = |own, of_all, is_behind| Taken { own, of_all, is_behind, awaits_update: false };
        let judge = |to: Taken| Pace { waited: window, from: Some(at(1000, Some(5000), false)) }.begin_anew(to, window);
        assert!(!judge(at(1000, Some(5000), false)), "nothing");
        assert!(!judge(at(1000 + 45 * 100, Some(99_000), false)), "100 bytes a second, whatever others take");
        assert!(judge(at(1000 + 45 * 240, None, false)), "240 bytes a second");
        assert!(judge(at(1000, Some(5000 + 45 * 240), true)), "it is not this stream's turn");
        assert!(!judge(at(1000, Some(5000 + 45 * 100), true)), "the connection as a whole is too slow");
        assert!(!judge(at(1000, None, true)), "the kernel has no figures");
        assert!(judge(Taken { awaits_update: true, ..at(1000, None, false) }), "what it took may be on its way");
        let quick = Duration::from_millis(500);
        let mut pace = Pace { waited: quick, from: Some(at(0, None, false)) };
        assert!(pace.begin_anew(at(1, None, false), quick), "too short a time to measure a rate");
        assert_eq!((pace.waited, pace.from), (Duration::ZERO, Some(at(1, None, false))));
    }
}
