//! Tests that every setting has its documented effect.

use super::*;

/// Returns the time from a dying client's last byte to its teardown.
fn gone(policy: Policy) -> Duration {
    let mut rig = Rig::new(policy).answering(MS);
    let last_byte = rig.run_to_ping() + SECOND;
    rig.rtt = None;
    rig.arrives(last_byte, Inbound::Frame);
    rig.run(2000 * SECOND);
    let (at, why) = rig.end.unwrap_or_else(|| panic!("never gone: {:?}", rig.engine));
    assert_eq!(why, EngineVerdict::Timeout);
    at.saturating_sub(last_byte)
}

#[test]
fn mode_off_neither_probes_nor_enforces() {
    let mut rig = Rig::new(Policy { mode: Mode::Off, ..exact() });
    assert_eq!(rig.engine.deadline(), None);
    rig.app_ping(b"app");
    rig.block();
    rig.pause();
    assert_eq!(rig.engine.deadline(), None);
    for _ in 0..1000 {
        assert_eq!(rig.engine.client_ping(rig.now), PingAction::Forward);
    }
    assert_eq!(rig.engine.pong(b"app", rig.now), PongAction::Forward);
}

#[test]
fn interval_and_timeout_are_the_bound() {
    assert_eq!(gone(exact()), 45 * SECOND);
    assert_eq!(gone(Policy { interval: 40 * SECOND, ..exact() }), 60 * SECOND);
    assert_eq!(gone(Policy { timeout: 7 * SECOND, ..exact() }), 32 * SECOND);
}

#[test]
fn max_missed_is_the_number_of_probes_in_a_row_that_may_go_unanswered() {
    assert_eq!(gone(Policy { max_missed: 3, ..exact() }), 25 * SECOND + 3 * 20 * SECOND);
    let mut rig = Rig::new(Policy { max_missed: 3, ..exact() });
    rig.run(500 * SECOND);
    assert_eq!((rig.pings.len(), rig.engine.stats().missed), (3, 3));
}

#[test]
fn a_sign_of_life_resets_the_count_of_misses() {
    let mut rig = Rig::new(Policy { max_missed: 3, ..exact() });
    for _ in 0..5 {
        rig.run_to_ping();
        rig.run_to_ping();
        let pinged = rig.run_to_ping();
        rig.arrives(pinged + 19 * SECOND, Inbound::Inside);
        rig.run(pinged + 19 * SECOND);
        rig.assert_alive();
    }
    assert_eq!(rig.engine.stats().missed, 10);
}

#[test]
fn jitter_shortens_by_its_share_at_most_and_never_lengthens() {
    for (jitter, shortest) in [(0.0, 25.0), (0.2, 20.0), (0.5, 12.5), (1.0, 0.0)] {
        let mut gaps = Vec::new();
        for seed in 0..200 {
            let mut rig = Rig::seeded(Policy { jitter, ..Policy::default() }, seed).answering(MS);
            rig.run(200 * SECOND);
            gaps.extend(rig.pings.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0 + MS).as_secs_f64()));
        }
        let least = gaps.iter().copied().fold(f64::INFINITY, f64::min);
        let most = gaps.iter().copied().fold(0.0, f64::max);
        assert!(least >= shortest && most <= 25.0, "jitter {jitter}: {least}..{most}");
        assert!(least <= shortest + 0.5 && most >= 24.5, "jitter {jitter} uses its range: {least}..{most}");
    }
}

#[test]
fn jitter_holds_for_busy_probes_too() {
    let mut gaps = Vec::new();
    for seed in 0..50 {
        let mut rig = Rig::seeded(Policy::default(), seed).answering(MS);
        rig.frames(SECOND, 1000 * SECOND, SECOND);
        rig.run(1000 * SECOND);
        gaps.extend(rig.pings.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0).as_secs_f64()));
    }
    let least = gaps.iter().copied().fold(f64::INFINITY, f64::min);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    assert!((80.0..82.0).contains(&least) && (98.0..100.1).contains(&most), "{least}..{most}");
}

#[test]
fn liveness_says_what_keeps_a_probed_client_alive() {
    use Liveness::{AnyBytes, AnyFrame, PongOnly};
    let cases = [
        (AnyBytes, Inbound::Inside, true),
        (AnyBytes, Inbound::Frame, true),
        (AnyFrame, Inbound::Inside, false),
        (AnyFrame, Inbound::FrameAndMore, true),
        (PongOnly, Inbound::Inside, false),
        (PongOnly, Inbound::Frame, false),
        (AnyBytes, Inbound::Pong(b"any".to_vec()), true),
        (AnyFrame, Inbound::Pong(b"any".to_vec()), true),
        (PongOnly, Inbound::Pong(b"any".to_vec()), true),
    ];
    for (liveness, what, alive) in cases {
        let mut rig = Rig::new(Policy { liveness, ..exact() });
        let pinged = rig.run_to_ping();
        rig.arrives(pinged + 10 * SECOND, what.clone());
        rig.run(pinged + 21 * SECOND);
        assert_eq!(rig.end.is_none(), alive, "{liveness:?} and {what:?}");
    }
}

#[test]
fn pong_only_finds_a_client_that_talks_but_never_answers() {
    let mut rig = Rig::new(Policy { liveness: Liveness::PongOnly, ..exact() });
    rig.frames(SECOND, 300 * SECOND, SECOND);
    rig.run(300 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 120 * SECOND, 120 * SECOND);
}

#[test]
fn probe_when_busy_is_the_time_between_probes_under_traffic() {
    for (busy, expected) in [(100, 10), (40, 25)] {
        let mut rig = Rig::new(Policy { probe_when_busy: busy * SECOND, ..exact() }).answering(Duration::ZERO);
        rig.frames(SECOND, 1000 * SECOND, SECOND);
        rig.run(1000 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.pings.len(), expected, "{:?}", rig.pings);
        assert!(rig.engine.stats().rtt_last.is_some());
    }
}

#[test]
fn write_stall_is_how_long_nothing_may_move() {
    for stall in [10 * SECOND, 45 * SECOND, 200 * SECOND] {
        let policy = Policy { write_stall: stall, ..exact() };
        for (mut rig, late) in
            [(Rig::new(policy.clone()), Duration::ZERO), (Rig::new(policy).kernel(|_, _| 5), stall / 8)]
        {
            rig.written = 300_000;
            rig.block();
            rig.frames(SECOND, 400 * SECOND, SECOND);
            rig.run(400 * SECOND);
            rig.assert_ended(EngineVerdict::SlowReader, stall, stall + late);
        }
    }
}

#[test]
fn max_deferral_caps_a_pause() {
    for cap in [30 * SECOND, 300 * SECOND] {
        let mut rig = Rig::new(Policy { max_deferral: cap, ..exact() });
        rig.run(SECOND);
        rig.pause();
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::UpstreamStalled, SECOND + cap, SECOND + cap);
    }
}

#[test]
fn max_deferral_does_not_add_pauses_up_that_end_because_the_app_takes_bytes() {
    // One frame of a live client, accepted by an app that is slow and progresses; no byte of it is a sign of life.
    for liveness in [Liveness::AnyFrame, Liveness::PongOnly] {
        let mut rig = Rig::new(Policy { liveness, ..exact() });
        let pinged = rig.run_to_ping();
        for _ in 0..20 {
            rig.pause();
            rig.run(rig.elapsed() + 40 * SECOND);
            rig.arrives(rig.elapsed(), Inbound::Inside);
            rig.resume();
            rig.run(rig.elapsed() + 500 * MS);
            assert_eq!(rig.end, None, "{liveness:?}: {:?}", rig.engine);
        }
        // The client has been read for 10 s of the 810; silence from here uses up the rest of its window.
        rig.run(rig.elapsed() + 1000 * SECOND);
        let end = pinged + 800 * SECOND + 20 * SECOND;
        rig.assert_ended(EngineVerdict::Timeout, end, end);
    }
}

#[test]
fn a_connection_that_is_found_dead_by_other_means_is_a_miss() {
    let mut rig = Rig::new(exact());
    rig.run(30 * SECOND);
    rig.engine.count_miss();
    assert_eq!((rig.engine.stats().missed, rig.engine.misses()), (1, 1));
    rig.engine.read(rig.now, seen(true, false));
    assert_eq!((rig.engine.stats().missed, rig.engine.misses()), (1, 0), "in a row no longer");
}

#[test]
fn frame_max_time_is_the_longest_that_one_frame_may_take() {
    for longest in [5 * SECOND, 30 * SECOND, 900 * SECOND] {
        let mut rig = Rig::new(Policy { frame_max_time: longest, ..exact() }).kernel(|_, written| written);
        for second in 1..1000 {
            rig.arrives(second * SECOND, Inbound::Inside);
        }
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Trickle, SECOND + longest, SECOND + longest);
    }
}

#[test]
fn stall_guard_is_how_late_a_timer_may_be() {
    for (guard, alive) in [(2, true), (5, false)] {
        let mut rig = Rig::new(Policy { stall_guard: guard * SECOND, ..exact() });
        let pinged = rig.run_to_ping();
        rig.now = rig.base + pinged + 23 * SECOND;
        rig.poll();
        assert_eq!(rig.end.is_none(), alive, "3 s late, guard {guard} s");
    }
}

#[test]
fn the_clients_own_pings_are_forwarded_or_answered_up_to_twenty_a_second() {
    for (client_ping, fate) in [(ClientPing::Forward, PingAction::Forward), (ClientPing::Answer, PingAction::Answer)] {
        let mut rig = Rig::new(Policy { client_ping, ..exact() });
        for _ in 0..60 {
            for _ in 0..20 {
                assert_eq!(rig.engine.client_ping(rig.now), fate);
            }
            rig.now += SECOND;
        }
        for _ in 0..20 {
            rig.engine.client_ping(rig.now);
        }
        assert_eq!(rig.engine.client_ping(rig.now), PingAction::Flood);
    }
}
