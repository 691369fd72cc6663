//! Tests of the registry of sessions.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::heartbeat::HeartbeatStats;
use crate::session::CloseCause;
use crate::ws::Sender;

fn liveness() -> Arc<UpstreamLiveness> {
    Arc::new(UpstreamLiveness::new(Instant::now()))
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(7))
}

fn enter(registry: &Arc<Registry>) -> RegistryEntry {
    registry.enter(registry.next_id(), Arc::default(), &liveness())
}

fn traffic(bytes: u64) -> Traffic {
    Traffic { bytes, payload: bytes / 2, messages: bytes / 10 }
}

fn ending(from_client: u64, from_upstream: u64) -> Ending {
    Ending {
        cause: CloseCause::Closed { by: Sender::Client },
        client_code: 1000,
        upstream_code: 1000,
        close_reason: "bye".into(),
        upstream_close_reason: "bye".into(),
        from_client: traffic(from_client),
        from_upstream: traffic(from_upstream),
        heartbeat: HeartbeatStats::default(),
        duration: Duration::from_secs(1),
        last_seen_ago: Duration::ZERO,
        last_pong_ago: Some(Duration::from_secs(45)),
    }
}

#[test]
fn walking_takes_every_session_in_turn_and_begins_again() {
    let registry = registry();
    let [liveness, other] = [(); 2].map(|()| liveness());
    assert!(registry.after(None, &liveness).is_none(), "nobody to speak to yet");
    let ids: Vec<_> = (0..6).map(|_| registry.next_id()).collect();
    let app = |index| if index % 2 == 0 { &liveness } else { &other };
    let entries: Vec<_> = ids.iter().enumerate().map(|(n, id)| registry.enter(*id, Arc::default(), app(n))).collect();
    assert_eq!((registry.of(&liveness).len(), registry.all().len()), (3, 6));
    let mut at = None;
    let mut seen = Vec::new();
    for _ in 0..4 {
        at = registry.after(at, &liveness).map(|(id, _)| id);
        seen.extend(at);
    }
    assert_eq!(seen, [ids[0], ids[2], ids[4], ids[0]], "and none of another app");
    // No ping is sent behind a Close.
    entries[2].live().control().close_for_test();
    assert!(registry.is_open(ids[0]) && !registry.is_open(ids[2]));
    assert_eq!(registry.after(Some(ids[0]), &liveness).map(|(id, _)| id), Some(ids[4]));
    drop(entries);
    assert!(!registry.is_open(ids[0]));
    assert!(registry.is_empty());
}

#[test]
fn a_session_is_found_while_it_lives_and_for_a_while_after() {
    let registry = Arc::new(Registry::new(7).keeping(2));
    let entry = enter(&registry);
    let id = entry.live().id;
    assert!(matches!(registry.find(id), Some(FoundSession::Live(live)) if live.id == id));
    let closed = entry.close(ending(10, 20));
    assert_eq!(closed.last_pong_ago, Some(Duration::from_secs(45)));
    assert!(Arc::ptr_eq(&closed.facts, &entry.live().facts), "shared, not copied");
    assert!(matches!(registry.find(id), Some(FoundSession::Closed(closed)) if closed.id == id));
    assert!(registry.is_empty() && registry.sessions().is_empty());
    entry.close(ending(10, 20));
    drop(entry);
    assert_eq!(registry.closed().len(), 1, "once");
    let newer: Vec<_> = (0..2).map(|_| enter(&registry).close(ending(0, 0)).id).collect();
    assert!(registry.find(id).is_none(), "forgotten for two newer ones");
    let kept: Vec<_> = registry.closed().iter().map(|closed| closed.id).collect();
    assert_eq!(kept, [newer[1], newer[0]], "newest first");
}

#[test]
fn no_more_closed_sessions_are_kept_than_was_asked_for() {
    for most in [0, 1, 5, DEFAULT_KEPT] {
        let registry = Arc::new(Registry::new(7).keeping(most));
        let facts: Vec<_> = (0..2 * DEFAULT_KEPT)
            .map(|_| {
                let entry = enter(&registry);
                entry.close(ending(0, 0));
                Arc::downgrade(&entry.live().facts)
            })
            .collect();
        assert_eq!(registry.closed().len(), most);
        let held = facts.iter().filter(|facts| facts.upgrade().is_some()).count();
        assert_eq!(held, DEFAULT_KEPT * 2, "the ring of events tells of them yet");
        for _ in 0..RING {
            let at = std::time::SystemTime::now();
            registry.events().publish(Event::Missed { id: registry.next_id(), misses: 1, max: 1, at });
        }
        let held = facts.iter().filter(|facts| facts.upgrade().is_some()).count();
        assert_eq!(held, most, "nothing else holds on to what is gone");
    }
}

#[test]
fn what_has_passed_is_that_of_the_dead_and_of_the_living() {
    let registry = registry();
    let (one, other) = (enter(&registry), enter(&registry));
    one.live().control().passed(traffic(100), traffic(1000));
    other.live().control().passed(traffic(10), traffic(20));
    assert_eq!(registry.traffic().0.bytes, 110);
    one.close(ending(150, 1500));
    assert_eq!(
        registry.traffic(),
        (Traffic { bytes: 160, payload: 80, messages: 16 }, Traffic { bytes: 1520, payload: 760, messages: 152 },)
    );
    // A session that is dropped before its end keeps its totals.
    drop(other);
    drop(one);
    assert_eq!((registry.traffic().0.bytes, registry.traffic().1.bytes), (160, 1520));
}

#[test]
fn totals_never_go_back_while_sessions_end() {
    const SESSIONS: u64 = 300;
    let registry = registry();
    let (done, looks) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for session in 0..SESSIONS {
                        // A reader runs in between, even on a busy machine.
                        while session == SESSIONS / 2 && looks.load(Ordering::Relaxed) < 10 {
                            thread::yield_now();
                        }
                        let entry = enter(&registry);
                        for step in 1..=10 {
                            entry.live().control().passed(traffic(step * 100), traffic(step * 10));
                        }
                        entry.close(ending(1000, 100));
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut last = registry.traffic();
            while !done.load(Ordering::Relaxed) {
                let now = registry.traffic();
                assert!(now.0.bytes >= last.0.bytes && now.1.messages >= last.1.messages, "{last:?} to {now:?}");
                last = now;
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        for worker in workers {
            worker.join().expect("a worker");
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the totals only grow");
    });
    let (from_clients, from_apps) = registry.traffic();
    assert_eq!((from_clients.bytes, from_apps.bytes), (2 * SESSIONS * 1000, 2 * SESSIONS * 100));
}

#[test]
fn what_happens_to_a_session_is_told_in_order() {
    let registry = registry();
    let mut cursor = registry.events().since(None);
    let entry = enter(&registry);
    let id = entry.live().id;
    entry.close(ending(0, 0));
    drop(entry);
    assert!(matches!(cursor.try_next(), Some(NextEvent::Event(1, Event::Opened(live))) if live.id == id));
    assert!(matches!(cursor.try_next(), Some(NextEvent::Event(2, Event::Closed(closed))) if closed.id == id));
    assert!(cursor.try_next().is_none());
}

#[test]
fn a_session_that_is_gone_keeps_no_task() {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let registry = registry();
    let task = Arc::new(Task);
    let entry = enter(&registry);
    entry.live().control().register_for_test(&Waker::from(Arc::clone(&task)));
    assert_eq!(Arc::strong_count(&task), 2);
    drop(entry);
    assert_eq!(Arc::strong_count(&task), 1, "although the ring of events still holds the session");
}

#[test]
fn a_client_whose_session_closed_a_minute_ago_at_most_comes_back() {
    let registry = registry();
    let first = enter(&registry);
    assert!(!first.is_reconnect());
    assert!(!enter(&registry).is_reconnect(), "its session is open");
    let closed = first.close(ending(0, 0));
    let again = enter(&registry);
    assert!(again.is_reconnect());
    assert!(closed.was_of(again.live(), Duration::from_secs(60)));
    assert!(!closed.was_of(again.live(), Duration::ZERO), "too long ago");
    let forgetful = Arc::new(Registry::new(7).keeping(0));
    enter(&forgetful).close(ending(0, 0));
    assert!(!enter(&forgetful).is_reconnect(), "nothing is kept to tell by");
}
