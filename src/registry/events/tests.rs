//! Tests of the ring of events.

use std::sync::atomic::AtomicU32;
use std::task::{Context, Wake, Waker};

use super::*;
use crate::registry::Registry;

fn miss(misses: u32) -> Event {
    Event::Missed { id: Registry::new(0).next_id(), misses, max: u32::MAX, at: SystemTime::UNIX_EPOCH }
}

/// The id of the event that is told, and which one it is.
fn told(told: Option<NextEvent>) -> Option<(u64, u32)> {
    match told? {
        NextEvent::Event(id, Event::Missed { misses, .. }) => Some((id, misses)),
        told => panic!("an event was expected, not {told:?}"),
    }
}

fn lost(told: Option<NextEvent>) -> u64 {
    match told {
        Some(NextEvent::Lost(count)) => count,
        told => panic!("a loss was expected, not {told:?}"),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_cursor_sees_every_event_once_and_in_order() {
    let events = EventRing::default();
    events.publish(miss(1));
    let mut from_now = events.since(None);
    let mut from_the_start = events.since(Some(0));
    let mut from_the_first = events.since(Some(1));
    for misses in 2..=4 {
        events.publish(miss(misses));
    }
    let all = |cursor: &mut EventCursor| std::iter::from_fn(|| told(cursor.try_next())).collect::<Vec<_>>();
    assert_eq!(all(&mut from_now), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(all(&mut from_the_first), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(all(&mut from_the_start), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(all(&mut from_the_start), []);
    events.publish(miss(5));
    assert_eq!(all(&mut from_the_start), [(5, 5)]);
    assert_eq!(events.newest(), 5);
}

#[test]
fn who_falls_behind_is_told_how_much_was_lost() {
    let events = EventRing::default();
    let mut slow = events.since(None);
    let mut quick = events.since(None);
    let over = 10;
    for misses in 1..=u32::try_from(RING).unwrap() + over {
        events.publish(miss(misses));
        assert_eq!(told(quick.try_next()), Some((misses.into(), misses)));
    }
    assert_eq!(events.0.ring().events.len(), RING, "no more is kept");
    assert_eq!(lost(slow.try_next()), u64::from(over), "the oldest");
    assert_eq!(told(slow.try_next()), Some((u64::from(over) + 1, over + 1)));
    // It falls behind again, in the middle.
    for misses in 0..100 {
        events.publish(miss(misses));
    }
    assert_eq!(lost(slow.try_next()), 99);
    let mut rest = 0;
    while slow.try_next().is_some() {
        rest += 1;
    }
    assert_eq!(rest, RING);
}

#[test]
fn an_id_that_is_yet_to_come_is_another_processes() {
    let events = EventRing::default();
    events.publish(miss(1));
    assert_eq!(told(events.since(Some(7000)).try_next()), Some((1, 1)));
    assert_eq!(told(events.since(Some(1)).try_next()), None);
}

#[tokio::test]
async fn a_cursor_waits_for_what_comes_and_is_woken() {
    let events = EventRing::default();
    let mut cursors = [events.since(None), events.since(None)];
    let publisher = events.clone();
    let (first, second) = {
        let [one, other] = &mut cursors;
        let both = async { tokio::join!(one.next(), other.next()) };
        let later = async {
            tokio::task::yield_now().await;
            publisher.publish(miss(1));
        };
        let waiting = async { tokio::join!(both, later).0 };
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.expect("both are woken")
    };
    assert_eq!((told(Some(first)), told(Some(second))), (Some((1, 1)), Some((1, 1))));
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    let events = EventRing::default();
    let mut cursor = events.since(None);
    let count = Arc::<Wakes>::default();
    let waker = Waker::from(Arc::clone(&count));
    {
        let mut waiting = std::pin::pin!(cursor.next());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        events.publish(miss(1));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
    assert_eq!(told(cursor.try_next()), Some((1, 1)));
    events.publish(miss(2));
    assert_eq!(count.0.load(Ordering::Relaxed), 1, "nobody waits");
}

#[test]
fn nobody_is_counted_as_listening_who_has_gone() {
    let events = EventRing::default();
    let cursors = [events.since(None), events.since(Some(0))];
    assert_eq!(events.0.cursors.load(Ordering::Relaxed), 2);
    drop(cursors);
    assert_eq!(events.0.cursors.load(Ordering::Relaxed), 0);
}
