//! How many connections a listener serves at once, and who makes room when there are more.
//!
//! A port that anybody can reach would otherwise be shut by a few hundred connections that say nothing: a probe that
//! waits until they time out is a probe that has failed. So who has been idle for longest goes when another comes; who
//! is being answered stays.

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

use super::answer::Body;

/// The places of one listener.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    guests: Mutex<Guests>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    /// Grows by one whenever somebody becomes idle: a clock for the order alone.
    turns: u64,
    present: HashMap<u64, Guest>,
    /// Whether somebody waits for a place.
    wanted: bool,
}

#[derive(Debug)]
struct Guest {
    /// Requests that are being answered.
    busy: usize,
    /// Its turn, which is also its key until it is first answered.
    idle_since: u64,
    leave: CancellationToken,
}

impl Guests {
    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

impl Places {
    /// `most` of them, all free.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Shared { most, guests: Mutex::default(), freed: Notify::new() }))
    }

    /// A place, once there is one. One caller at a time waits.
    pub(super) async fn enter(&self) -> Place {
        loop {
            let freed = self.0.freed.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            freed.await;
        }
    }

    /// A place if one is free; otherwise whoever has been idle for longest is asked to go, or the next who becomes so.
    fn try_enter(&self) -> Option<Place> {
        let mut guests = self.0.guests();
        guests.wanted = guests.present.len() >= self.0.most;
        if guests.wanted {
            let idle = guests.present.values().filter(|guest| guest.busy == 0);
            if let Some(longest) = idle.min_by_key(|guest| guest.idle_since) {
                longest.leave.cancel();
            }
            return None;
        }
        let key = guests.turn();
        let leave = CancellationToken::new();
        guests.present.insert(key, Guest { busy: 0, idle_since: key, leave: leave.clone() });
        Some(Place { key, leave, shared: Arc::clone(&self.0) })
    }
}

impl Shared {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    key: u64,
    leave: CancellationToken,
    shared: Arc<Shared>,
}

impl Place {
    /// Comes when the connection has to make room.
    pub(super) async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    /// From now on the connection waits for an answer.
    pub(super) fn attend(self: &Arc<Self>) -> Attended {
        if let Some(guest) = self.shared.guests().present.get_mut(&self.key) {
            guest.busy += 1;
        }
        Attended(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.guests().present.remove(&self.key);
        self.shared.freed.notify_waiters();
    }
}

/// A connection that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Attended(Arc<Place>);

impl Attended {
    /// `response`, which is an answer until its body has gone out.
    pub(super) fn until_out(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Answering { body, _attended: self }.boxed_unsync())
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let mut guests = self.0.shared.guests();
        let (turn, wanted) = (guests.turn(), guests.wanted);
        if let Some(guest) = guests.present.get_mut(&self.0.key) {
            guest.busy -= 1;
            guest.idle_since = turn;
            if wanted && guest.busy == 0 {
                guest.leave.cancel();
            }
        }
    }
}

/// A body whose connection is attended to for as long as it lasts.
struct Answering {
    body: Body,
    _attended: Attended,
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

    async fn enter(places: &Places) -> Arc<Place> {
        Arc::new(timeout(LIMIT, places.enter()).await.expect("a place"))
    }

    fn has_to_go(place: &Place) -> bool {
        place.wanted().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room() {
        let places = Places::new(3);
        let (first, second, third) = (enter(&places).await, enter(&places).await, enter(&places).await);
        // The first one was answered meanwhile, so the second has been idle for longer.
        drop(first.attend());
        let mut fourth = Box::pin(places.enter());
        assert!(fourth.as_mut().now_or_never().is_none(), "there were three");
        assert_eq!([&first, &second, &third].map(|place| has_to_go(place)), [false, true, false]);
        drop(second);
        let fourth = timeout(LIMIT, fourth).await.expect("a place");
        assert!(!has_to_go(&fourth) && !has_to_go(&third));
    }

    #[tokio::test]
    async fn who_is_being_answered_stays_until_then() {
        let places = Places::new(1);
        let place = enter(&places).await;
        let answers = [place.attend(), place.attend()];
        let mut next = Box::pin(places.enter());
        assert!(next.as_mut().now_or_never().is_none());
        let [one, other] = answers;
        drop(one);
        assert!(!has_to_go(&place), "there is another answer on its way");
        let response = other.until_out(Response::new(http_body_util::Full::from("out").boxed_unsync()));
        assert_eq!(response.body().size_hint().exact(), Some(3));
        assert!(!has_to_go(&place), "its body is");
        drop(response);
        assert!(has_to_go(&place));
        drop(place);
        timeout(LIMIT, next).await.expect("a place");
    }
}
