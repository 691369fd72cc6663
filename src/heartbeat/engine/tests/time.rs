//! Tests of reconnect storms, suspended processes, clocks and time bounds.

use super::*;

#[test]
fn s27_a_reconnect_storm_never_beats_in_step() {
    const SESSIONS: u32 = 10_000;
    const INTERVALS: u32 = 10;
    let base = crate::any_instant();
    let mut buckets = vec![0_u32; 25 * INTERVALS as usize + 1];
    for seed in 0..SESSIONS {
        let connected = SECOND * seed / SESSIONS;
        let mut rig = Rig::starting_at(Policy::default(), u64::from(seed), base + connected).answering(20 * MS);
        rig.run((25 * INTERVALS - 1) * SECOND);
        for (at, _) in &rig.pings {
            buckets[usize::try_from((connected + *at).as_secs()).expect("minutes")] += 1;
        }
    }
    let mean = SESSIONS * 2 / (25 + 20);
    let fullest = buckets.iter().copied().max().unwrap_or_default();
    assert!(fullest <= 2 * mean, "{fullest} pings in one second where {mean} are the mean: {buckets:?}");
}

#[test]
fn s28_a_proxy_stopped_for_a_minute_tears_nobody_down() {
    // Suspended at every moment of a heartbeat; the pongs were buffered meanwhile.
    for tenth in 0..600 {
        let mut rig = Rig::new(Policy::default()).answering(100 * MS);
        rig.run(tenth * 100 * MS);
        rig.stop(60 * SECOND);
        rig.run(rig.elapsed() + 100 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.engine.stats().missed, 0);
    }
}

#[test]
fn s28_after_the_stop_a_probe_gets_one_fresh_timeout() {
    // The whole host was suspended, so no pong is waiting: it arrives after the stop, late but within a timeout.
    for late in [MS, 19 * SECOND] {
        let mut rig = Rig::new(exact()).kernel(|_, written| written);
        let pinged = rig.run_to_ping();
        rig.run(pinged + SECOND);
        rig.stop(60 * SECOND);
        rig.assert_alive();
        let woken = rig.elapsed();
        let ping = rig.pings[0].1.clone();
        rig.arrives(woken + late, Inbound::Pong(ping));
        rig.run(woken + 20 * SECOND);
        rig.assert_alive();
    }
}

#[test]
fn s28_the_fresh_timeout_is_one_and_no_more() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.run(pinged + SECOND);
    rig.stop(60 * SECOND);
    let woken = rig.elapsed();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, woken + 20 * SECOND, woken + 20 * SECOND);
}

#[test]
fn s28_stops_without_end_and_without_life_are_bounded() {
    let mut rig = Rig::new(exact());
    rig.run_to_ping();
    while rig.end.is_none() {
        rig.stop(30 * SECOND);
        assert!(rig.elapsed() < 1000 * SECOND, "never ends: {:?}", rig.engine);
    }
}

#[test]
fn s28_a_stop_while_the_upstream_is_slow_gives_it_a_fresh_timeout() {
    let mut rig = Rig::new(exact());
    rig.run(SECOND);
    rig.pause();
    rig.run(250 * SECOND);
    rig.stop(100 * SECOND);
    rig.assert_alive();
    rig.run(rig.elapsed() + SECOND);
    rig.rtt = Some(MS);
    rig.resume();
    rig.run(600 * SECOND);
    rig.assert_alive();
}

#[test]
fn s28_a_stop_while_writes_are_stuck_is_not_the_clients_fault() {
    let mut rig = Rig::new(exact()).kernel(|_, _| 1000);
    rig.written = 300_000;
    rig.run(SECOND);
    rig.block();
    rig.run(10 * SECOND);
    rig.stop(100 * SECOND);
    rig.assert_alive();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, 110 * SECOND, 110 * SECOND + WRITE_STALL + LOOK);
}

/// Returns a rig suspended for a minute with a client in the middle of a frame that has two of its thirty seconds left,
/// and the time of its resumption.
fn stopped_inside_a_frame() -> (Rig, Duration) {
    let mut rig = Rig::new(Policy { frame_max_time: 30 * SECOND, ..exact() });
    for second in 0..=28 {
        rig.arrives(second * SECOND, Inbound::Inside);
    }
    rig.run(28 * SECOND);
    rig.stop(60 * SECOND);
    rig.assert_alive();
    let woken = rig.elapsed();
    (rig, woken)
}

#[test]
fn s77_a_frame_whose_time_ended_in_a_stop_has_a_fresh_timeout() {
    let (mut rig, woken) = stopped_inside_a_frame();
    rig.arrives(woken + 19 * SECOND, Inbound::Frame);
    rig.run(woken + 19 * SECOND);
    rig.assert_alive();
}

#[test]
fn s77_a_frame_whose_rest_lies_unread_when_its_time_ends_is_read_first_and_once() {
    for ends in [true, false] {
        let mut rig = Rig::new(Policy { frame_max_time: 30 * SECOND, ..exact() });
        for second in 0..=29 {
            rig.arrives(second * SECOND, Inbound::Inside);
        }
        rig.run(29 * SECOND);
        // A stop too short to be detected as one: the timer fires before the socket is read.
        rig.now = rig.base + 30 * SECOND;
        assert_eq!(rig.engine.handle_timeout(rig.now), Due::Look);
        let delivery = Delivery { acked: rig.written, unread: true };
        assert_eq!(rig.engine.delivery_checked(rig.now, rig.written, Some(delivery)), None);
        if ends {
            rig.arrives(31 * SECOND, Inbound::Frame);
            rig.run(60 * SECOND);
            rig.assert_alive();
        } else {
            for second in 31..100 {
                rig.arrives(second * SECOND, Inbound::Inside);
            }
            rig.run(200 * SECOND);
            rig.assert_ended(EngineVerdict::Trickle, 50 * SECOND, 50 * SECOND);
        }
    }
}

#[test]
fn s77_the_fresh_timeout_of_a_frame_is_one_and_no_more() {
    let (mut rig, woken) = stopped_inside_a_frame();
    for second in 1..100 {
        rig.arrives(woken + second * SECOND, Inbound::Inside);
    }
    rig.run(woken + 15 * SECOND);
    rig.stop(60 * SECOND);
    rig.run(woken + 200 * SECOND);
    rig.assert_ended(EngineVerdict::Trickle, woken + 75 * SECOND, woken + 75 * SECOND);
}

#[test]
fn s60_on_a_machine_whose_timers_are_always_late_a_dead_client_is_gone_in_time() {
    let quick = Policy { interval: 300 * MS, timeout: 300 * MS, stall_guard: MS, ..exact() };
    let no_kernel = Rig::new(quick.clone());
    let kernel = Rig::new(quick).kernel(|_, written| written);
    for mut rig in [no_kernel, kernel] {
        rig.rtt = Some(10 * MS);
        rig.run_late(10 * SECOND, 3 * MS);
        rig.assert_alive();
        rig.rtt = None;
        let last = rig.fates.last().expect("it answered").0;
        rig.run_late(100 * SECOND, 3 * MS);
        // One fresh window, plus the lateness of the few timers of two windows.
        rig.assert_ended(EngineVerdict::Timeout, last + 600 * MS, last + 900 * MS + 60 * MS);
    }
}

#[test]
fn s60_the_fresh_timeout_is_given_once_for_each_sign_of_life() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.run(pinged + 15 * SECOND);
    rig.stop(10 * SECOND);
    let woken = rig.elapsed();
    assert_eq!(rig.engine.next_action_at(), Some(rig.base + woken + 20 * SECOND), "fresh");
    rig.run(woken + 19 * SECOND);
    rig.stop(5 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, woken + 24 * SECOND, woken + 24 * SECOND);

    let mut alive = Rig::new(exact()).kernel(|_, written| written);
    for _ in 0..5 {
        let pinged = alive.run_to_ping();
        alive.run(pinged + 15 * SECOND);
        alive.stop(10 * SECOND);
        let woken = alive.elapsed();
        alive.arrives(woken + 19 * SECOND, Inbound::Frame);
        alive.run(woken + 19 * SECOND);
        alive.assert_alive();
    }
}

#[test]
fn s60_bytes_that_the_kernel_holds_are_not_looked_for_at_every_millisecond() {
    let mut rig = Rig::new(Policy { stall_guard: MS, ..exact() });
    let pinged = rig.run_to_ping();
    let looks = rig.looks_at_unread(pinged + 1000 * SECOND);
    assert!(looks <= 320 * 10, "{looks} looks in {:?}", rig.elapsed());
}

#[test]
fn s29_only_the_difference_between_instants_matters() {
    let trace = |base: Instant| {
        let mut rig = Rig::starting_at(Policy::default(), 7, base).answering(3 * SECOND);
        rig.run(100 * SECOND);
        rig.app_ping(b"app");
        rig.frames(101 * SECOND, 300 * SECOND, 7 * SECOND);
        rig.run(290 * SECOND);
        rig.rtt = None;
        rig.run(1000 * SECOND);
        (rig.pings, rig.fates, rig.end)
    };
    let now = crate::any_instant();
    assert_eq!(trace(now), trace(now + 3600 * SECOND));
}

#[test]
fn s30_a_long_round_trip_extends_an_adaptive_window_up_to_a_minute() {
    for (adaptive, alive) in [(true, true), (false, false)] {
        let mut rig = Rig::new(Policy { adaptive, ..exact() }).answering(15 * SECOND);
        rig.run(100 * SECOND);
        rig.rtt = Some(25 * SECOND);
        rig.run(600 * SECOND);
        assert_eq!(rig.end.is_none(), alive, "adaptive: {adaptive}, {:?}", rig.engine);
    }
    let mut capped = Rig::new(Policy { adaptive: true, max_missed: 9, ..exact() }).answering(55 * SECOND);
    capped.run(300 * SECOND);
    capped.rtt = None;
    let pinged = capped.run_to_ping();
    let again = capped.run_to_ping();
    let window = again.saturating_sub(pinged);
    assert!(window.abs_diff(60 * SECOND) < SECOND, "{window:?}");
}

#[test]
fn s30_a_short_round_trip_never_shortens_the_window() {
    let mut rig = Rig::new(Policy { adaptive: true, ..exact() }).answering(MS);
    rig.run(300 * SECOND);
    rig.rtt = None;
    let pinged = rig.run_to_ping();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, pinged + 20 * SECOND, pinged + 20 * SECOND);
}

#[test]
fn the_bound_holds_whatever_the_ratio_of_interval_and_timeout() {
    // With a window longer than the interval, a byte during the window makes the next probe due before its end.
    for (interval, timeout) in [(1, 20), (5, 20), (20, 5), (25, 60)].map(|(i, t)| (i * SECOND, t * SECOND)) {
        for seed in 0..20 {
            let mut rig = Rig::seeded(Policy { interval, timeout, ..Policy::default() }, seed);
            let pinged = rig.run_to_ping();
            let last_byte = pinged + 100 * MS;
            rig.arrives(last_byte, Inbound::Frame);
            rig.run(300 * SECOND);
            rig.assert_ended(EngineVerdict::Timeout, last_byte + timeout, last_byte + interval + timeout);
        }
    }
}

#[test]
fn a_slow_pong_is_no_sign_that_the_process_was_stopped() {
    // A reader so slow that its pong arrives after probe_when_busy; then its cable is pulled under a full queue.
    let mut rig = Rig::new(exact())
        .kernel(|at, written| if at < 150 * SECOND { at.as_secs() * 2000 } else { written.min(300_000) });
    rig.written = 300_000;
    rig.run_to_ping();
    rig.run(150 * SECOND);
    rig.assert_alive();
    rig.written += 100_000;
    rig.block();
    let ping = rig.pings[0].1.clone();
    rig.arrives(151 * SECOND, Inbound::Pong(ping));
    rig.run(600 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, 150 * SECOND + WRITE_STALL, 151 * SECOND + WRITE_STALL + LOOK);
}

/// Puts the client in the middle of a long frame from `from`, with its ping answered only after the frame.
fn long_frame(rig: &mut Rig, from: Duration) {
    for step in 0..40 {
        rig.arrives(from + step * 5 * SECOND, Inbound::Inside);
    }
    rig.run(from + 195 * SECOND);
    rig.assert_alive();
    let newest = rig.pings.last().expect("it was pinged").1.clone();
    rig.arrives(from + 196 * SECOND, Inbound::Pong(newest));
    rig.run(from + 210 * SECOND);
    rig.assert_alive();
}

#[test]
fn s28_a_frame_that_ended_in_a_stop_shows_nothing_about_the_ping_before_it() {
    // Without kernel information: a client that ends one frame long after a ping and begins another could have
    // answered.
    for stop in [25 * SECOND, 60 * SECOND, 200 * SECOND] {
        let mut rig = Rig::new(exact());
        let pinged = rig.run_to_ping();
        rig.arrives(pinged + 2 * SECOND, Inbound::Frame);
        rig.arrives(pinged + 2 * SECOND, Inbound::Inside);
        rig.run(pinged + SECOND);
        rig.stop(stop);
        let woken = rig.elapsed();
        long_frame(&mut rig, woken);
    }
}

#[test]
fn s28_nor_does_one_that_ended_in_a_stop_behind_a_time_without_reads() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.run(pinged + SECOND);
    rig.pause();
    rig.run(pinged + 9 * SECOND);
    rig.resume();
    rig.arrives(pinged + 10 * SECOND, Inbound::Frame);
    rig.run(pinged + 27 * SECOND);
    rig.assert_alive();
    // The client could have answered from 28 s after its ping, and no other deadline is near.
    rig.arrives(pinged + 27 * SECOND, Inbound::Frame);
    rig.arrives(pinged + 27 * SECOND, Inbound::Inside);
    rig.stop(4 * SECOND);
    let woken = rig.elapsed();
    long_frame(&mut rig, woken);
}

#[test]
fn s77_a_stop_is_seen_although_what_is_read_after_it_moves_the_deadline() {
    let mut rig = Rig::new(Policy { frame_max_time: 30 * SECOND, ..exact() }).answering(100 * MS);
    let pinged = rig.run_to_ping();
    // The timer is due just after the beginning of the stop.
    for second in 0..50 {
        rig.arrives(pinged + 25 * SECOND + second * SECOND, Inbound::Inside);
    }
    rig.run(pinged + 25_050 * MS);
    rig.stop(20 * SECOND);
    rig.run(pinged + 70 * SECOND);
    rig.assert_alive();
    rig.run(pinged + 200 * SECOND);
    rig.assert_ended(EngineVerdict::Trickle, pinged + 74_950 * MS, pinged + 75 * SECOND);
}

#[test]
fn s28_the_late_answer_to_a_lapsed_question_may_lie_unread_in_a_stop() {
    let mut rig = Rig::new(Policy { max_missed: 5, ..express(Role::App) });
    rig.run_to_question();
    rig.run_to_question();
    let third = rig.run_to_question();
    // The stuck answers arrive at once: those to the outstanding probes, and after a stop the one to the dropped probe.
    let counted = rig.engine.questions.counted();
    for answer in 0..counted {
        rig.arrives(third + SECOND + MS * u32::try_from(answer).expect("few"), Inbound::Beat);
    }
    rig.run(third + 2 * SECOND);
    rig.arrives(third + 3 * SECOND, Inbound::Beat);
    rig.stop(100 * SECOND);
    let fates: Vec<_> = rig.beats.iter().map(|(_, fate)| *fate).collect();
    assert_eq!(fates, vec![HeartbeatAction::Swallow; counted + 1], "none of them reaches the app");
}
