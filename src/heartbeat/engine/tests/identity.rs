//! Tests of the attribution of pongs, and of the frames forwarded.

use std::collections::HashSet;

use super::*;

fn swallowed(owed: Option<&[u8]>) -> PongAction {
    PongAction::Swallow { owed: owed.map(Into::into) }
}

#[test]
fn s01_an_idle_client_gets_one_unmasked_ping_with_a_nonce_of_its_own() {
    let mut nonces = HashSet::new();
    for seed in 0..100 {
        let mut rig = Rig::seeded(Policy::default(), seed).answering(MS);
        rig.run(25 * SECOND);
        let [(at, first)] = &rig.pings[..] else { panic!("one ping in the first interval: {:?}", rig.pings) };
        assert!((12_500 * MS..=25 * SECOND).contains(at), "the first probe × U[0.5, 1]: {at:?}");
        assert_eq!(first.len(), 8, "a nonce and a sequence number");
        let first = first.clone();
        rig.run(60 * SECOND);
        assert_eq!(rig.pings[1].1[..4], first[..4], "one nonce a session");
        assert_ne!(rig.pings[1].1, first, "no payload twice");
        nonces.insert(first[..4].to_vec());
    }
    assert_eq!(nonces.len(), 100);
}

#[test]
fn s02_the_pong_to_an_own_ping_is_swallowed() {
    let mut rig = Rig::new(exact()).answering(50 * MS);
    rig.run(600 * SECOND);
    rig.assert_alive();
    assert!(rig.pings.len() >= 23, "one each 25.05 s: {:?}", rig.pings);
    assert!(rig.fates.iter().all(|(_, fate)| *fate == swallowed(None)), "{:?}", rig.fates);
    let HeartbeatStats { pings, pongs, missed, strays, rtt_last } = rig.engine.stats();
    assert_eq!((pings, pongs), (rig.pings.len() as u64, rig.fates.len() as u64));
    assert_eq!((missed, strays, rtt_last), (0, 0, Some(50 * MS)));
}

#[test]
fn s03_a_client_that_never_speaks_is_gone_a_timeout_after_the_first_ping() {
    let no_kernel = Rig::new(Policy::default());
    let hung = Rig::new(Policy::default()).kernel(|_, written| written);
    let cable_pulled = Rig::new(Policy::default()).kernel(|_, _| 0);
    for mut rig in [no_kernel, hung, cable_pulled] {
        let pinged = rig.run_to_ping();
        rig.run(100 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, pinged + 20 * SECOND, pinged + 20 * SECOND);
        assert!(rig.elapsed() <= 45 * SECOND);
        assert_eq!(rig.engine.stats().missed, 1);
    }
}

#[test]
fn s03_a_client_that_dies_is_gone_exactly_interval_and_timeout_after_its_last_byte() {
    let last_byte = 70 * SECOND + 300 * MS;
    let no_kernel = Rig::new(exact());
    let hung = Rig::new(exact()).kernel(|_, written| written);
    // Everything but the last probe was acknowledged.
    let cable_pulled = Rig::new(exact()).kernel(|_, written| written - 10);
    for mut rig in [no_kernel, hung, cable_pulled] {
        rig.rtt = Some(30 * MS);
        rig.run(70 * SECOND);
        rig.rtt = None;
        rig.arrives(last_byte, Inbound::Frame);
        rig.run(200 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, last_byte + 45 * SECOND, last_byte + 45 * SECOND);
    }
}

#[test]
fn s04_the_apps_ping_counts_as_the_probe_and_its_pong_is_forwarded() {
    let mut rig = Rig::new(exact()).answering(40 * MS);
    rig.run(10 * SECOND);
    rig.app_ping(b"from the app");
    rig.run(35 * SECOND);
    assert_eq!(rig.pings.len(), 1, "no second ping beside it: {:?}", rig.pings);
    assert_eq!(rig.fates, [(10 * SECOND + 40 * MS, PongAction::Forward)]);
    assert_eq!(rig.engine.stats().strays, 0);
}

#[test]
fn s04_the_apps_ping_unanswered_is_a_miss_like_our_own() {
    let mut rig = Rig::new(exact());
    rig.run(10 * SECOND);
    rig.app_ping(b"from the app");
    rig.run(100 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 30 * SECOND, 30 * SECOND);
}

#[test]
fn s04_the_apps_ping_replaces_a_probe_that_waits_for_a_boundary() {
    let mut rig = Rig::new(exact());
    rig.boundary = false;
    rig.run(26 * SECOND);
    rig.app_ping(b"x");
    rig.boundary = true;
    rig.run(27 * SECOND);
    assert_eq!(rig.pings.len(), 1, "{:?}", rig.pings);
}

#[test]
fn s05_the_apps_ping_that_was_passed_over_gets_its_pong_from_us_once() {
    let mut rig = Rig::new(exact());
    rig.run(SECOND);
    rig.app_ping(b"older");
    rig.app_ping(b"newer");
    rig.arrives(2 * SECOND, Inbound::Frame);
    let pinged = rig.run_to_ping();
    let own = rig.pings[2].1.clone();
    rig.arrives(pinged + SECOND, Inbound::Pong(own.clone()));
    rig.arrives(pinged + 2 * SECOND, Inbound::Pong(own));
    rig.run(pinged + 3 * SECOND);
    let fates: Vec<_> = rig.fates.iter().map(|(_, fate)| fate.clone()).collect();
    assert_eq!(fates, [swallowed(Some(b"newer")), swallowed(None)]);
}

#[test]
fn s06_the_apps_ping_behind_ours_is_reissued_once_and_nobody_is_killed() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.app_ping(b"app");
    let own = rig.pings[0].1.clone();
    rig.arrives(pinged + 100 * MS, Inbound::Pong(own));
    rig.run(pinged + 1099 * MS);
    assert_eq!(rig.pings.len(), 2, "its own pong may trail by a second: {:?}", rig.pings);
    rig.run(pinged + 1100 * MS);
    assert_eq!(rig.pings[2..], [(pinged + 1100 * MS, b"app".to_vec())]);
    rig.arrives(pinged + 1200 * MS, Inbound::Pong(b"app".to_vec()));
    rig.rtt = Some(MS);
    rig.run(pinged + 200 * SECOND);
    rig.assert_alive();
    assert_eq!(rig.fates[1].1, PongAction::Forward);
    assert_eq!(rig.pings.iter().filter(|(_, payload)| payload == b"app").count(), 2, "once, not again and again");
}

#[test]
fn s06_a_reissue_waits_for_its_boundary_without_a_spin() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.app_ping(b"app");
    let own = rig.pings[0].1.clone();
    rig.arrives(pinged + 100 * MS, Inbound::Pong(own));
    rig.run(pinged + SECOND);
    rig.boundary = false;
    rig.run(pinged + 20 * SECOND);
    assert_eq!(rig.pings.len(), 2);
    rig.boundary = true;
    rig.arrives(pinged + 20 * SECOND, Inbound::Frame);
    rig.run(pinged + 20 * SECOND);
    assert_eq!(rig.pings[2].1, b"app");
}

#[test]
fn s06_an_apps_ping_that_is_answered_in_time_is_not_reissued() {
    let mut rig = Rig::new(exact()).answering(80 * MS);
    let pinged = rig.run_to_ping();
    rig.app_ping(b"app");
    rig.run(pinged + 10 * SECOND);
    assert_eq!(rig.pings.len(), 2, "{:?}", rig.pings);
    assert_eq!(rig.fates[1].1, PongAction::Forward);
}

#[test]
fn s81_app_pings_that_are_answered_in_order_go_out_once_and_bring_one_pong_each() {
    let policy = Policy { interval: SECOND, timeout: 2 * SECOND, ..exact() };
    let mut rig = Rig::new(policy).answering(200 * MS);
    for round in 0..10 {
        let pinged = rig.run_to_ping();
        rig.run(pinged + 50 * MS);
        rig.app_ping(&[b'A', round]);
        rig.run(pinged + 1100 * MS);
        assert_eq!(rig.engine.reissue, Reissue::None, "A was answered");
        rig.app_ping(&[b'B', round]);
        rig.run(rig.elapsed() + SECOND);
        let count = |first| {
            let sent = rig.pings.iter().filter(|(_, payload)| *payload == [first, round]).count();
            (sent, rig.fates.iter().filter(|(_, fate)| *fate == PongAction::Forward).count())
        };
        let pongs = 2 * usize::from(round) + 2;
        assert_eq!((count(b'A'), count(b'B')), ((1, pongs), (1, pongs)), "round {round}: {:?}", rig.pings);
    }
    assert_eq!(rig.engine.stats().strays, 0);
}

#[test]
fn s81_a_ping_behind_the_answer_to_ours_is_not_reissued() {
    // A is dropped by a client that answers only the first; B follows, and its pong trails.
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    let own = rig.pings[0].1.clone();
    rig.app_ping(b"A");
    rig.arrives(pinged + 100 * MS, Inbound::Pong(own));
    rig.run(pinged + 900 * MS);
    rig.app_ping(b"B");
    rig.run(pinged + 5 * SECOND);
    let payloads: Vec<_> = rig.pings[1..].iter().map(|(_, payload)| payload.clone()).collect();
    assert_eq!(payloads, [b"A", b"B", b"A"], "{:?}", rig.pings);
    // Both sendings of A are answered after all.
    for pong in [b"A", b"B", b"A"] {
        rig.arrives(rig.elapsed() + MS, Inbound::Pong(pong.to_vec()));
        rig.run(rig.elapsed() + 2 * MS);
    }
    let fates: Vec<_> = rig.fates[1..].iter().map(|(_, fate)| fate.clone()).collect();
    assert_eq!(fates, [PongAction::Forward, PongAction::Forward, PongAction::Surplus]);
    assert_eq!((rig.engine.stats().strays, rig.engine.stats().pongs), (0, 1));
}

#[test]
fn s81_two_pings_that_ours_overtook_at_different_times_wait_each_for_its_own() {
    let mut rig = Rig::new(Policy { interval: SECOND, timeout: 8 * SECOND, ..exact() });
    let first = rig.run_to_ping();
    let own = rig.pings[0].1.clone();
    rig.app_ping(b"A");
    rig.arrives(first + 10 * MS, Inbound::Pong(own.clone()));
    rig.run(first + 900 * MS);
    rig.app_ping(b"C");
    // The proxy's pong once more: C was sent only just before.
    rig.arrives(first + 901 * MS, Inbound::Pong(own));
    rig.run(first + 1500 * MS);
    let reissued: Vec<_> = rig.pings.iter().filter(|(_, payload)| payload.len() == 1).cloned().collect();
    assert_eq!(reissued[2..], [(first + 1010 * MS, b"A".to_vec())], "{reissued:?}");
    rig.arrives(first + 1600 * MS, Inbound::Pong(b"C".to_vec()));
    rig.run(first + 4 * SECOND);
    assert_eq!(rig.pings.iter().filter(|(_, payload)| payload == b"C").count(), 1, "{:?}", rig.pings);
}

#[test]
fn s07_a_pong_with_a_damaged_payload_is_alive_forwarded_and_counted() {
    // An interval beyond write_stall: a corrupted pong must not count as a missing answer there either.
    let policy = Policy { interval: 120 * SECOND, probe_when_busy: 200 * SECOND, ..exact() };
    for mut rig in [Rig::new(exact()), Rig::new(policy.clone()), Rig::new(policy).kernel(|_, written| written)] {
        for round in 1..=4 {
            let pinged = rig.run_to_ping();
            let mut payload = rig.pings[round - 1].1.clone();
            payload[0] ^= 1;
            rig.arrives(pinged + 100 * MS, Inbound::Pong(payload));
            rig.arrives(pinged + 30 * SECOND, Inbound::Frame);
            rig.run(pinged + 100 * MS);
            assert_eq!(rig.fates.last(), Some(&(pinged + 100 * MS, PongAction::Forward)));
            assert_eq!(rig.engine.stats().strays, round as u64);
        }
        rig.assert_alive();
    }
}

#[test]
fn s08_an_unsolicited_pong_is_forwarded_and_never_answered() {
    let mut rig = Rig::new(exact());
    for second in 1..=10 {
        rig.arrives(second * SECOND, Inbound::Pong(b"still here".to_vec()));
    }
    rig.run(22 * SECOND);
    assert_eq!(rig.pings, [], "nothing goes out for it");
    assert_eq!(rig.fates.len(), 10);
    assert!(rig.fates.iter().all(|(_, fate)| *fate == PongAction::Forward), "{:?}", rig.fates);
    assert_eq!(rig.engine.stats().strays, 10);
}

#[test]
fn s09_a_late_first_pong_is_swallowed_and_measured_from_its_own_ping() {
    let mut rig = Rig::new(Policy { max_missed: 2, ..exact() });
    let first = rig.run_to_ping();
    let second = rig.run_to_ping();
    assert_eq!(second, first + 20 * SECOND);
    let payloads: Vec<_> = rig.pings.iter().map(|(_, payload)| payload.clone()).collect();
    rig.arrives(first + 21 * SECOND, Inbound::Pong(payloads[0].clone()));
    rig.run(first + 21 * SECOND);
    assert_eq!(rig.engine.stats().rtt_last, Some(21 * SECOND));
    rig.arrives(first + 22 * SECOND, Inbound::Pong(payloads[1].clone()));
    rig.run(first + 22 * SECOND);
    assert_eq!(rig.engine.stats().rtt_last, Some(2 * SECOND));
    assert!(rig.fates.iter().all(|(_, fate)| *fate == swallowed(None)), "{:?}", rig.fates);
    assert_eq!(rig.fates.len(), 2);
}

#[test]
fn s10_empty_pings_of_the_app_and_our_own_are_never_confused() {
    let mut rig = Rig::new(exact()).answering(300 * MS);
    let mut own = 0;
    for _ in 0..200 {
        rig.run_to_ping();
        own += 1;
        rig.app_ping(b"");
        rig.app_ping(b"");
        rig.run(rig.elapsed() + 7 * SECOND);
    }
    let forwarded = rig.fates.iter().filter(|(_, fate)| *fate == PongAction::Forward).count();
    assert_eq!((rig.fates.len() - forwarded, forwarded), (own, 2 * own));
    assert!(!rig.fates.iter().any(|(_, fate)| matches!(fate, PongAction::Swallow { owed: Some(_) })));
    assert_eq!(rig.engine.stats().strays, 0);
}

#[test]
fn s37_after_a_close_no_ping_goes_out() {
    let mut rig = Rig::new(exact());
    rig.engine.closing();
    rig.rearm();
    rig.timer = Some(rig.now + 60 * SECOND);
    rig.run(200 * SECOND);
    assert_eq!((rig.pings.len(), rig.engine.deadline()), (0, None));

    let mut queued = Rig::new(exact());
    queued.boundary = false;
    queued.run(26 * SECOND);
    assert!(queued.engine.wants_transmit(queued.now));
    queued.engine.closing();
    assert!(!queued.engine.wants_transmit(queued.now));
    assert!(queued.engine.poll_transmit(queued.now, Gap::Message).is_none());
}

#[test]
fn s37_after_a_close_no_ping_of_the_app_is_reissued() {
    for closing_first in [false, true] {
        let mut rig = Rig::new(exact());
        let pinged = rig.run_to_ping();
        rig.app_ping(b"app");
        let own = rig.pings[0].1.clone();
        if closing_first {
            rig.engine.closing();
        }
        rig.arrives(pinged + 100 * MS, Inbound::Pong(own));
        rig.run(pinged + 500 * MS);
        rig.engine.closing();
        rig.run(pinged + 10 * SECOND);
        assert!(!rig.engine.wants_transmit(rig.now));
        assert!(rig.engine.poll_transmit(rig.now, Gap::Message).is_none());
        assert_eq!(rig.pings.len(), 2, "{:?}", rig.pings);
    }
}

#[test]
fn s38_a_decided_miss_stays_decided() {
    let mut rig = Rig::new(exact());
    rig.run(100 * SECOND);
    assert!(rig.end.is_some());
    let own = rig.pings[0].1.clone();
    for second in 1..200 {
        rig.now += SECOND;
        rig.engine.read(rig.now, seen(true, false));
        assert!(matches!(rig.engine.pong(&own, rig.now), PongAction::Swallow { .. }));
        rig.engine.app_ping(b"late", rig.now);
        rig.engine.flushed(rig.now, 1000, None);
        assert_eq!(rig.engine.deadline(), None, "{second} s later");
        assert_eq!(rig.engine.handle_timeout(rig.now), Due::Nothing);
        assert_eq!(rig.engine.delivery_checked(rig.now, 1000, None), None);
        assert!(!rig.engine.wants_transmit(rig.now) && rig.engine.poll_transmit(rig.now, Gap::Message).is_none());
    }
}
