//! Worlds with one session, each for a fault that a seed has found.

use std::time::Duration;

use pulsegate::heartbeat::{Liveness, Policy};
use pulsegate::session::EndReason;

use crate::plan::{Behaviour, EndKind, Event, Link, Plan, Reading, Talk, Trouble};
use crate::proxy::Flaw;
use crate::world;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn s53_a_drain_waits_for_a_frame_that_a_slow_client_takes() {
    let policy = Policy { close_grace: 12 * SECOND, ..Policy::default() };
    let client = Behaviour { reading: Reading::Slow { bytes_per_second: 4000 }, ..Behaviour::QUIET };
    let talk = Talk::Huge { at: 5 * SECOND, len: 100_000, chunk: 100_000, every: SECOND };
    let mut plan = Plan::single(policy, client, Behaviour { talk, ..Behaviour::QUIET });
    // The rest of the frame takes 14 seconds from here on, and the drain has 17. It is read 16 KiB at a time, which
    // takes longer than the wait for a frame without progress.
    plan.events.push((16 * SECOND, Event::Drain { window: Duration::ZERO }));
    let outcome = world::run(&plan, Flaw::None);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    let end = outcome.proxy.sessions[&0].client_end.borrow();
    assert_eq!((end.received, end.close_received.map(|(_, code)| code)), (1, Some(1012)), "{end:?}");
}

#[test]
fn s54_an_app_that_is_lost_inside_a_frame_costs_the_client_no_whole_message() {
    let client = Behaviour { reading: Reading::Slow { bytes_per_second: 20_000 }, ..Behaviour::QUIET };
    let talk = Talk::Flood { at: 5 * SECOND, count: 20, len: 10_000 };
    for kind in [EndKind::Reset, EndKind::Fin] {
        // Messages of 10,000 bytes never end where the stream is cut: the app's kernel sends pieces of 8 KiB.
        let app = Behaviour { talk, end: Some((8 * SECOND, kind)), ..Behaviour::QUIET };
        let outcome = world::run(&Plan::single(Policy::default(), client, app), Flaw::None);
        assert!(outcome.failures.is_empty(), "{kind:?}: {:#?}", outcome.failures);
        let session = &outcome.proxy.sessions[&0];
        let ending = session.endings().first().map(|(_, ending)| ending.from_upstream.messages);
        assert_eq!(Some(u64::from(session.client_end.borrow().received)), ending, "{kind:?}: {:?}", session.client_end);
    }
}

#[test]
fn s03_a_client_that_is_lost_with_its_probe_is_not_spared_for_what_is_written_later() {
    let policy = Policy {
        interval: 2 * SECOND,
        timeout: 5 * SECOND,
        write_stall: 9 * SECOND,
        jitter: 0.0,
        liveness: Liveness::PongOnly,
        ..Policy::default()
    };
    // Each message fills the send buffer. One is acknowledged, the next probe is lost, and another message follows it.
    let talk = Talk::Messages { every: SECOND * 9 / 2, len: 20_000, fragments: 1 };
    let mut plan = Plan::single(policy, Behaviour::QUIET, Behaviour { talk, ..Behaviour::QUIET });
    let cut = Event::Trouble { link: Link::Client(0), trouble: Trouble::Partition, lasts: 20 * SECOND };
    plan.events.push((SECOND * 31 / 2, cut));
    let outcome = world::run(&plan, Flaw::None);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    let session = &outcome.proxy.sessions[&0];
    let given_up = session.given_up().expect("the client is given up");
    assert!(given_up < 23 * SECOND, "{given_up:?}, {:?}", session.client);
    assert_eq!(session.endings()[0].1.cause.reason(), EndReason::HeartbeatTimeout, "{:?}", session.client);
}
