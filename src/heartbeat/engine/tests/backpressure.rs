//! Tests of slow, stuck and dead paths in either direction.

use super::*;

/// Returns a kernel that acknowledges `backlog` bytes evenly over `lasting`, and from then on everything written.
fn steady(backlog: u64, lasting: Duration) -> impl Fn(Duration, u64) -> u64 {
    move |at, written| {
        if at >= lasting {
            return written;
        }
        let share = u128::from(backlog) * at.as_millis() / lasting.as_millis();
        written.min(u64::try_from(share).expect("a share of a u64"))
    }
}

#[test]
fn s13_a_probe_waits_for_the_boundary_and_its_timeout_starts_when_it_has_left() {
    let mut rig = Rig::new(exact());
    rig.boundary = false;
    rig.run(100 * SECOND);
    rig.assert_alive();
    assert_eq!(rig.pings, [], "inside a frame");
    rig.boundary = true;
    rig.poll();
    assert_eq!(rig.pings.len(), 1);
    rig.run(300 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 120 * SECOND, 120 * SECOND);
}

#[test]
fn s13_the_timeout_starts_at_the_flush_not_at_the_hand_over() {
    let mut rig = Rig::new(exact());
    rig.boundary = false;
    rig.run(26 * SECOND);
    assert!(rig.engine.wants_transmit(rig.now) && !rig.engine.awaits_flush());
    assert!(rig.engine.poll_transmit(rig.now, Gap::Message).is_some());
    assert!(!rig.engine.wants_transmit(rig.now) && rig.engine.awaits_flush());
    rig.run(40 * SECOND);
    rig.engine.flushed(rig.now, 10, None);
    rig.rearm();
    rig.run(100 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 60 * SECOND, 60 * SECOND);
}

#[test]
fn s13_a_pong_that_overtakes_the_flush_settles_the_probe() {
    // The probe left with the first part of a write whose rest waits; its answer arrives before the rest is written.
    let mut rig = Rig::new(exact());
    rig.boundary = false;
    rig.run(26 * SECOND);
    let ping = rig.engine.poll_transmit(rig.now, Gap::Message).expect("one is queued");
    rig.arrives(26 * SECOND + 50 * MS, Inbound::Pong(ping.as_bytes()[2..].to_vec()));
    rig.run(26 * SECOND + 60 * MS);
    assert_eq!(rig.fates.len(), 1);
    if rig.engine.awaits_flush() {
        rig.engine.flushed(rig.now, 100_000, None);
    }
    rig.rearm();
    rig.boundary = true;
    rig.rtt = Some(50 * MS);
    rig.run(120 * SECOND);
    rig.assert_alive();
    assert_eq!(rig.pings[0].0, 51 * SECOND + 50 * MS, "the next one comes an interval later");
}

#[test]
fn s14_between_fragments_is_a_boundary_and_the_next_one_serves() {
    let mut rig = Rig::new(exact()).answering(MS);
    for fragment in 1..=12 {
        rig.boundary = false;
        rig.run(fragment * 10 * SECOND);
        rig.boundary = true;
        rig.poll();
    }
    let due: Vec<_> = rig.pings.iter().map(|(at, _)| at.as_secs() % 10).collect();
    assert!(due.len() >= 3 && due.iter().all(|rest| *rest == 0), "only at a boundary: {:?}", rig.pings);
    rig.assert_alive();
}

#[test]
fn s13_a_frame_that_never_ends_holds_a_probe_for_max_deferral_at_most() {
    let mut rig = Rig::new(exact());
    rig.boundary = false;
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 312 * SECOND, 325 * SECOND);
    assert_eq!(rig.engine.stats().missed, 1, "what is told as a timeout is a miss");
}

#[test]
fn s17_a_40_mb_upload_in_one_frame_outlasts_any_timeout() {
    let no_kernel = Rig::new(exact());
    let acked = Rig::new(exact()).kernel(|_, written| written);
    for mut rig in [no_kernel, acked] {
        // The client has a ping to answer, but it ended a frame and began the large one before that ping arrived.
        let pinged = rig.run_to_ping();
        rig.arrives(pinged + 30 * MS, Inbound::FrameAndMore);
        for second in 1..=400 {
            rig.arrives(pinged + second * SECOND, Inbound::Inside);
        }
        rig.arrives(pinged + 401 * SECOND, Inbound::Frame);
        for at in 0..rig.pings.len() {
            let payload = rig.pings[at].1.clone();
            rig.arrives(pinged + 401 * SECOND + 10 * MS, Inbound::Pong(payload));
        }
        rig.run(pinged + 402 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.engine.stats().missed, 0);
    }
}

#[test]
fn s20_a_frame_that_trickles_ends_the_session() {
    for step in [SECOND, 19 * SECOND] {
        let mut rig = Rig::new(exact()).kernel(|_, written| written);
        let begun = 3 * SECOND;
        let mut at = begun;
        while at < 1000 * SECOND {
            rig.arrives(at, Inbound::Inside);
            at += step;
        }
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Trickle, begun + 600 * SECOND, begun + 600 * SECOND);
    }
}

#[test]
fn s20_many_frames_without_a_gap_are_no_trickle() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written).answering(MS);
    for second in 1..=1500 {
        rig.arrives(second * SECOND, Inbound::FrameAndMore);
    }
    rig.run(1500 * SECOND);
    rig.assert_alive();
}

#[test]
fn s21_a_steady_slow_reader_of_32_mib_is_alive() {
    let mut rig = Rig::new(exact()).kernel(steady(32 << 20, 60 * SECOND));
    rig.written = 32 << 20;
    rig.run_to_ping();
    let ping = rig.pings[0].1.clone();
    rig.arrives(61 * SECOND, Inbound::Pong(ping));
    rig.run(62 * SECOND);
    rig.assert_alive();
    assert_eq!(rig.engine.stats().missed, 0);
}

#[test]
fn s21_the_window_begins_when_the_probe_behind_the_backlog_has_arrived() {
    let mut rig = Rig::new(exact()).kernel(steady(32 << 20, 60 * SECOND));
    rig.written = 32 << 20;
    rig.run_to_ping();
    rig.run(200 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 80 * SECOND, 80 * SECOND + LOOK);
}

#[test]
fn s21_a_probe_that_arrives_soon_behind_its_backlog_is_judged_soon() {
    // Interval and timeout of one second; the checks for a stall are much further apart.
    let policy = Policy { interval: SECOND, timeout: SECOND, jitter: 0.0, ..Policy::default() };
    let mut rig = Rig::new(policy).kernel(steady(1 << 20, 1500 * MS));
    rig.written = 1 << 20;
    let pinged = rig.run_to_ping();
    assert!(pinged <= SECOND);
    rig.run(60 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 2500 * MS, 2500 * MS + SECOND / 8 + MS);
}

#[test]
fn s03_a_probe_only_just_behind_other_bytes_is_judged_in_time() {
    let pinged = Rig::new(exact()).run_to_ping();
    let behind = move |at: Duration, written: u64| if at < pinged + 50 * MS { written - 1000 } else { written };
    let mut rig = Rig::new(exact()).kernel(behind);
    rig.written = 1000;
    rig.run(pinged + 60 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, pinged + 20 * SECOND, pinged + 20 * SECOND + 400 * MS);
}

#[test]
fn s75_the_time_for_an_answer_begins_with_its_probe_whatever_unread_bytes_put_off() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    let window = rig.engine.answer_window();
    assert_eq!(window, Some((rig.base + pinged, 20 * SECOND)));
    rig.now = rig.base + pinged + 20 * SECOND;
    for look in 0..20 {
        assert_eq!(rig.engine.handle_timeout(rig.now), Due::Look, "look {look}");
        let delivery = Delivery { acked: rig.written, unread: true };
        assert_eq!(rig.engine.delivery_checked(rig.now, rig.written, Some(delivery)), None, "look {look}");
        assert_eq!(rig.engine.answer_window(), window, "look {look}");
        let next = rig.engine.deadline().expect("it is only put off");
        let step = next.saturating_duration_since(rig.now);
        assert!(step <= if look < 3 { 100 * MS } else { 2 * SECOND }, "look {look}: {step:?}");
        rig.now = next;
    }
}

#[test]
fn s21_a_slow_reader_whose_last_bytes_are_few_is_still_a_slow_reader() {
    // 20 bytes a second: at some check less than a small backlog is left, and it moves.
    let mut rig = Rig::new(exact()).kernel(steady(1600, 80 * SECOND));
    rig.written = 1600;
    rig.run_to_ping();
    let ping = rig.pings[0].1.clone();
    rig.arrives(81 * SECOND, Inbound::Pong(ping));
    rig.run(82 * SECOND);
    rig.assert_alive();
}

#[test]
fn s21_writes_that_still_make_progress_freeze_the_deadline() {
    // The client's kernel has the probe, but the page reads the data in front of it slowly: more bytes wait behind it.
    let acked = Rig::new(exact()).kernel(|_, written| written);
    let no_kernel = Rig::new(exact());
    for mut rig in [acked, no_kernel] {
        let pinged = rig.run_to_ping();
        for second in 1..=60 {
            rig.block();
            rig.run(pinged + second * SECOND);
        }
        rig.assert_alive();
        rig.clear(100_000);
        rig.run(pinged + 300 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, pinged + 60 * SECOND, pinged + 80 * SECOND + LOOK);
    }
}

#[test]
fn s21_a_slow_reader_is_borne_with_for_max_deferral_at_most() {
    let mut rig = Rig::new(exact()).kernel(steady(1 << 30, 6000 * SECOND));
    rig.written = 1 << 30;
    let pinged = rig.run_to_ping();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, pinged + 300 * SECOND, pinged + 320 * SECOND + LOOK);
}

#[test]
fn s22_a_full_write_queue_on_a_pulled_cable_is_gone_within_write_stall() {
    for (mut rig, late) in [(Rig::new(exact()), Duration::ZERO), (Rig::new(exact()).kernel(|_, _| 50_000), LOOK)] {
        rig.written = 300_000;
        rig.run(5 * SECOND);
        rig.block();
        rig.run(200 * SECOND);
        rig.assert_ended(EngineVerdict::SlowReader, 50 * SECOND, 50 * SECOND + late);
    }
}

#[test]
fn s22_progress_of_writes_or_of_acks_puts_the_stall_off() {
    let mut writes = Rig::new(exact()).answering(MS);
    writes.rtt = None;
    writes.block();
    for round in 1..=6 {
        writes.run(round * 44 * SECOND);
        writes.assert_alive();
        writes.block();
    }
    writes.run(1000 * SECOND);
    writes.assert_ended(EngineVerdict::SlowReader, 309 * SECOND, 309 * SECOND);

    // Bytes are acknowledged for 100 s, then no more.
    let mut acks = Rig::new(exact()).kernel(|at, _| at.as_secs().min(100) * 1000);
    acks.written = 300_000;
    acks.block();
    acks.frames(SECOND, 400 * SECOND, SECOND);
    acks.run(400 * SECOND);
    acks.assert_ended(EngineVerdict::SlowReader, 145 * SECOND, 145 * SECOND + LOOK);
}

#[test]
fn s22_a_cleared_queue_is_not_held_against_the_client() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written).answering(MS);
    rig.block();
    rig.run(40 * SECOND);
    rig.clear(100_000);
    rig.run(300 * SECOND);
    rig.assert_alive();
}

#[test]
fn s23_a_hung_page_whose_browser_answers_pings_is_alive() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written).answering(5 * MS);
    rig.run(3600 * SECOND);
    rig.assert_alive();
}

#[test]
fn s24_a_hung_page_with_a_busy_downlink_is_a_slow_reader() {
    // The client's kernel accepted 400 kB and closed the window; frames from the page do not prevent the end.
    let mut rig = Rig::new(exact()).kernel(|_, written| written.min(400_000));
    rig.frames(SECOND, 200 * SECOND, SECOND);
    rig.run(10 * SECOND);
    rig.written = 700_000;
    rig.block();
    rig.run(200 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, 10 * SECOND + WRITE_STALL, 10 * SECOND + WRITE_STALL + LOOK);
}

#[test]
fn s24_a_probe_behind_a_backlog_that_does_not_move_is_a_slow_reader() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written.min(400_000));
    rig.written = 700_000;
    let pinged = rig.run_to_ping();
    rig.run(300 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, pinged + WRITE_STALL, pinged + 20 * SECOND + WRITE_STALL + LOOK);
}

#[test]
fn s25_while_the_upstream_is_slow_the_clock_is_frozen() {
    for kernel in [false, true] {
        let mut rig = Rig::new(exact());
        rig.acked = kernel.then(|| Box::new(|_, written| written) as Acked);
        let pinged = rig.run_to_ping();
        rig.run(pinged + 5 * SECOND);
        rig.pause();
        rig.run(pinged + 295 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.engine.stats().missed, 0);
        rig.resume();
        rig.run(pinged + 1000 * SECOND);
        let left = pinged + 295 * SECOND + 15 * SECOND;
        rig.assert_ended(EngineVerdict::Timeout, left, left);
    }
}

#[test]
fn s25_a_pause_in_quiet_puts_the_probe_off() {
    let mut rig = Rig::new(exact());
    rig.arrives(SECOND, Inbound::Frame);
    rig.run(2 * SECOND);
    rig.pause();
    rig.run(80 * SECOND);
    assert_eq!(rig.pings, []);
    rig.resume();
    let pinged = rig.run_to_ping();
    assert!(pinged > 78 * SECOND + 13 * SECOND && pinged <= 78 * SECOND + 26 * SECOND, "{pinged:?}");
}

#[test]
fn s25_two_pauses_with_life_between_are_counted_apart() {
    // The pause outlasts probe_when_busy, which does not indicate a suspension.
    let mut rig = Rig::new(exact()).answering(50 * MS);
    for _ in 0..4 {
        rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
        rig.run(rig.elapsed() + SECOND);
        rig.pause();
        rig.run(rig.elapsed() + 290 * SECOND);
        rig.assert_alive();
        rig.arrives(rig.elapsed(), Inbound::Frame);
        rig.resume();
    }
    rig.run(rig.elapsed() + 100 * SECOND);
    rig.assert_alive();
}

#[test]
fn s25_a_client_that_dies_in_a_pause_is_gone_in_its_bound_after_it() {
    // The pause outlasts probe_when_busy, and an app's ping is sent in the middle of it.
    for app_pings in [false, true] {
        let mut rig = Rig::new(exact());
        rig.arrives(10 * SECOND, Inbound::Frame);
        rig.run(11 * SECOND);
        rig.pause();
        rig.run(200 * SECOND);
        if app_pings {
            rig.app_ping(b"app");
        }
        rig.run(261 * SECOND);
        rig.resume();
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, 281 * SECOND, 261 * SECOND + 45 * SECOND);
    }
}

#[test]
fn s25_an_upstream_that_takes_nothing_for_max_deferral_ends_the_session() {
    let mut rig = Rig::new(exact());
    rig.run(2 * SECOND);
    rig.pause();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::UpstreamStalled, 302 * SECOND, 302 * SECOND);
}

#[test]
fn s26_a_constant_uploader_on_a_blackholed_downlink_is_detected() {
    for busy in [100 * SECOND, 30 * SECOND] {
        let policy = Policy { probe_when_busy: busy, ..exact() };
        for mut rig in [Rig::new(policy.clone()), Rig::new(policy).kernel(|_, _| 0)] {
            rig.frames(SECOND, 400 * SECOND, SECOND);
            let pinged = rig.run_to_ping();
            assert_eq!(pinged, busy, "a probe under traffic");
            rig.run(400 * SECOND);
            rig.assert_ended(
                EngineVerdict::SlowReader,
                pinged + WRITE_STALL,
                pinged + 20 * SECOND + WRITE_STALL + LOOK,
            );
        }
    }
}

#[test]
fn s26_a_client_that_speaks_now_and_then_hides_no_blackholed_downlink() {
    // Each probe is followed by a byte of the client, never by a pong.
    for mut rig in [Rig::new(exact()), Rig::new(exact()).kernel(|_, _| 0)] {
        rig.frames(27 * SECOND, 1000 * SECOND, 27 * SECOND);
        let pinged = rig.run_to_ping();
        rig.run(1000 * SECOND);
        let noticed = pinged + 20 * SECOND + WRITE_STALL;
        rig.assert_ended(EngineVerdict::SlowReader, pinged + WRITE_STALL, noticed + 27 * SECOND);
    }
}

#[test]
fn s26_an_uploader_that_answers_is_alive() {
    for mut rig in [Rig::new(exact()), Rig::new(exact()).kernel(|_, written| written)] {
        rig.rtt = Some(2 * SECOND);
        rig.frames(SECOND, 1000 * SECOND, SECOND);
        rig.run(1000 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.pings.len(), 10, "one each 100 s: {:?}", rig.pings);
    }
}

#[test]
fn s31_bytes_unread_at_the_deadline_are_read_first() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written);
    let pinged = rig.run_to_ping();
    let deadline = pinged + 20 * SECOND;
    // The pong arrives exactly at the deadline: the rig, as the relay, reads before the timer.
    let pong = rig.pings[0].1.clone();
    rig.arrives(deadline, Inbound::Pong(pong));
    rig.run(deadline + SECOND);
    rig.assert_alive();
}

#[test]
fn s31_what_the_kernel_holds_unread_puts_the_miss_off() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.now = rig.base + pinged + 20 * SECOND;
    assert_eq!(rig.engine.handle_timeout(rig.now), Due::Look);
    let delivery = Delivery { acked: rig.written, unread: true };
    assert_eq!(rig.engine.delivery_checked(rig.now, rig.written, Some(delivery)), None);
    assert!(rig.engine.deadline().is_some_and(|at| at > rig.now));
    let pong = rig.pings[0].1.clone();
    assert_eq!(rig.engine.pong(&pong, rig.now + MS), PongAction::Swallow { owed: None });
    assert_eq!(rig.engine.stats().missed, 0);
}
