//! The connection limit of a listener, and the eviction of idle connections above it.
//!
//! A few hundred silent connections could otherwise block a port that is reachable from outside, and health probes
//! would fail while they wait for timeouts. At the limit, the longest-idle connection is closed for a new one;
//! connections with a request in progress stay.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::response::Body;

/// The connection slots of one listener.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    slots: Mutex<Slots>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    /// A logical clock, advanced by every accept and every end of a request.
    ticks: u64,
    taken: HashMap<u64, Slot>,
    /// Set while an accepted connection waits for a slot.
    is_waiting: bool,
}

#[derive(Debug)]
struct Slot {
    /// Requests in progress.
    busy: usize,
    /// The tick of the last end of a request; before the first one, that of the accept.
    idle_since: u64,
    evict: CancellationToken,
}

impl Slots {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

impl ConnectionSlots {
    /// Returns `limit` slots, all free.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, slots: Mutex::default(), freed: Notify::new() }))
    }

    /// Waits for a free slot and takes it. Supports one waiting task.
    pub(super) async fn acquire(&self) -> ConnectionSlot {
        loop {
            let freed = self.0.freed.notified();
            if let Some(place) = self.try_acquire() {
                return place;
            }
            freed.await;
        }
    }

    /// Takes a slot if one is free. Otherwise evicts the longest-idle connection, or the next one to become idle.
    fn try_acquire(&self) -> Option<ConnectionSlot> {
        let mut slots = self.0.slots();
        slots.is_waiting = slots.taken.len() >= self.0.limit;
        if slots.is_waiting {
            let idle = slots.taken.values().filter(|slot| slot.busy == 0);
            if let Some(longest) = idle.min_by_key(|slot| slot.idle_since) {
                longest.evict.cancel();
            }
            return None;
        }
        let key = slots.tick();
        let evict = CancellationToken::new();
        slots.taken.insert(key, Slot { busy: 0, idle_since: key, evict: evict.clone() });
        Some(ConnectionSlot { key, evict, shared: Arc::clone(&self.0) })
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one connection; freed on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    key: u64,
    evict: CancellationToken,
    shared: Arc<Shared>,
}

impl ConnectionSlot {
    /// Completes when the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evict.cancelled().await;
    }

    /// Marks the connection as busy until the returned guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        if let Some(slot) = self.shared.slots().taken.get_mut(&self.key) {
            slot.busy += 1;
        }
        ActiveRequest(Arc::clone(self))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.shared.slots().taken.remove(&self.key);
        self.shared.freed.notify_waiters();
    }
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<ConnectionSlot>);

impl ActiveRequest {
    /// Returns `response` with a body that keeps the connection busy until it is sent.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Answering { body, _attended: self }.boxed_unsync())
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut slots = self.0.shared.slots();
        let (tick, is_waiting) = (slots.tick(), slots.is_waiting);
        if let Some(slot) = slots.taken.get_mut(&self.0.key) {
            slot.busy -= 1;
            slot.idle_since = tick;
            if is_waiting && slot.busy == 0 {
                slot.evict.cancel();
            }
        }
    }
}

/// A body that keeps its connection busy until it is dropped.
struct Answering {
    body: Body,
    _attended: ActiveRequest,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn enter(places: &ConnectionSlots) -> Arc<ConnectionSlot> {
        Arc::new(timeout(LIMIT, places.acquire()).await.expect("a place"))
    }

    fn has_to_go(place: &ConnectionSlot) -> bool {
        place.evicted().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room() {
        let places = ConnectionSlots::new(3);
        let (first, second, third) = (enter(&places).await, enter(&places).await, enter(&places).await);
        // The first one had a request meanwhile, so the second has been idle for longer.
        drop(first.begin_request());
        let mut fourth = Box::pin(places.acquire());
        assert!(fourth.as_mut().now_or_never().is_none(), "there were three");
        assert_eq!([&first, &second, &third].map(|place| has_to_go(place)), [false, true, false]);
        drop(second);
        let fourth = timeout(LIMIT, fourth).await.expect("a place");
        assert!(!has_to_go(&fourth) && !has_to_go(&third));
    }

    #[tokio::test]
    async fn who_is_being_answered_stays_until_then() {
        let places = ConnectionSlots::new(1);
        let place = enter(&places).await;
        let answers = [place.begin_request(), place.begin_request()];
        let mut next = Box::pin(places.acquire());
        assert!(next.as_mut().now_or_never().is_none());
        let [one, other] = answers;
        drop(one);
        assert!(!has_to_go(&place), "there is another answer on its way");
        let response = other.until_sent(Response::new(http_body_util::Full::from("out").boxed_unsync()));
        assert_eq!(response.body().size_hint().exact(), Some(3));
        assert!(!has_to_go(&place), "its body is");
        drop(response);
        assert!(has_to_go(&place));
        drop(place);
        timeout(LIMIT, next).await.expect("a place");
    }
}
