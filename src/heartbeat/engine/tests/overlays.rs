//! Tests of the conditions that freeze a deadline, in each mode with message heartbeats: a slow app, a slow path to the
//! client, a suspended process, unread bytes.

use super::*;

/// A proof of life, with the app's part in it and the maximum silence of the client.
struct Way {
    name: &'static str,
    policy: Policy,
    /// Sends the app's probe or message, at the beginning and when called again.
    app: fn(&mut Rig),
    window: Duration,
}

/// Returns every proof of life, with its clock running from the beginning of the session.
fn ways() -> Vec<Way> {
    const WINDOW: Duration = Duration::from_secs(90);
    let way = |name, policy, app, window| Way { name, policy, app, window };
    let says_nothing: fn(&mut Rig) = |_| {};
    vec![
        way("app", express(Role::App), |rig| _ = rig.run_to_question(), 20 * SECOND),
        way("app, the app asks", express(Role::App), Rig::app_asks, 20 * SECOND),
        way("answer", express(Role::Answer), says_nothing, WINDOW),
        way("answers", watched(ProofOfLife::Answers), Rig::app_asks, 20 * SECOND),
        way("speaks", watched(ProofOfLife::Sends(WINDOW)), says_nothing, WINDOW),
        way("when quiet", watched(ProofOfLife::SendsWhenIdle(WINDOW)), Rig::app_speaks, WINDOW),
        way("when spoken to", watched(ProofOfLife::SendsAfterApp(WINDOW)), Rig::app_speaks, WINDOW),
    ]
}

impl Way {
    /// Starts a session and its clock; returns the start of the clock.
    fn begin(&self) -> (Rig, Duration) {
        let mut rig = Rig::new(self.policy.clone()).kernel(|_, written| written);
        (self.app)(&mut rig);
        let since = rig.elapsed();
        (rig, since)
    }
}

#[test]
fn every_way_ends_at_its_window_and_not_before() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.run(since + way.window - MS);
        assert_eq!(rig.end, None, "{}", way.name);
        rig.run(since + way.window);
        assert_eq!(rig.end, Some((since + way.window, EngineVerdict::Timeout)), "{}", way.name);
    }
}

#[test]
fn s25_while_the_upstream_is_slow_the_clock_stands_still() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.run(since + 5 * SECOND);
        rig.pause();
        rig.run(since + 205 * SECOND);
        assert_eq!(rig.end, None, "{}", way.name);
        rig.resume();
        rig.run(since + 200 * SECOND + way.window - MS);
        assert_eq!(rig.end, None, "{}", way.name);
        rig.run(2000 * SECOND);
        let end = since + 200 * SECOND + way.window;
        assert_eq!(rig.end, Some((end, EngineVerdict::Timeout)), "{}", way.name);
    }
}

#[test]
fn s25_what_came_in_a_pause_is_read_behind_it() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.run(since + 5 * SECOND);
        rig.pause();
        rig.arrives(since + 6 * SECOND, Inbound::Frame);
        rig.run(since + 280 * SECOND);
        rig.resume();
        rig.run(since + 280 * SECOND + 19 * SECOND);
        assert_eq!(rig.end, None, "{}", way.name);
    }
}

#[test]
fn s25_an_upstream_that_takes_nothing_for_max_deferral_ends_the_session() {
    for way in ways() {
        let (mut rig, _) = way.begin();
        let paused = rig.elapsed();
        rig.pause();
        rig.run(1000 * SECOND);
        assert_eq!(rig.end, Some((paused + 300 * SECOND, EngineVerdict::UpstreamStalled)), "{}", way.name);
    }
}

#[test]
fn s28_a_stopped_process_gives_one_fresh_window() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.run(since + way.window - SECOND);
        rig.stop(60 * SECOND);
        let woken = rig.elapsed();
        assert_eq!(rig.end, None, "{}", way.name);
        rig.run(2000 * SECOND);
        assert_eq!(rig.end, Some((woken + way.window, EngineVerdict::Timeout)), "{}", way.name);
    }
}

#[test]
fn s28_what_came_while_the_process_was_stopped_is_read_first() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.run(since + way.window - SECOND);
        rig.arrives(rig.elapsed() + 30 * SECOND, Inbound::Frame);
        rig.stop(60 * SECOND);
        assert_eq!((rig.end, rig.engine.stats().missed), (None, 0), "{}", way.name);
        rig.run(rig.elapsed() + 19 * SECOND);
        assert_eq!(rig.end, None, "{}", way.name);
    }
}

#[test]
fn s28_stall_guard_is_how_late_a_timer_may_be() {
    for way in ways() {
        for (guard, alive) in [(2, true), (5, false)] {
            let way = Way { policy: Policy { stall_guard: guard * SECOND, ..way.policy.clone() }, ..way };
            let (mut rig, since) = way.begin();
            rig.run(since + way.window - MS);
            rig.now = rig.base + since + way.window + 3 * SECOND;
            rig.poll();
            assert_eq!(rig.end.is_none(), alive, "{}: 3 s late, guard {guard} s", way.name);
        }
    }
}

#[test]
fn s28_stops_without_end_and_without_life_are_bounded() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        while rig.end.is_none() {
            rig.stop(30 * SECOND);
            assert!(rig.elapsed() < since + 2000 * SECOND, "{} never ends: {:?}", way.name, rig.engine);
        }
    }
}

#[test]
fn s60_on_a_machine_whose_timers_are_always_late_the_window_is_doubled_at_most() {
    for way in ways() {
        let way = Way { policy: Policy { stall_guard: MS, ..way.policy.clone() }, ..way };
        let (mut rig, since) = way.begin();
        rig.run_late(since + 1000 * SECOND, 3 * MS);
        let bound = since + 2 * way.window + SECOND;
        assert!(rig.end.is_some_and(|(at, _)| at <= bound), "{}: {:?}, not by {bound:?}", way.name, rig.end);
    }
}

#[test]
fn s60_bytes_that_the_kernel_holds_are_not_looked_for_at_every_millisecond() {
    for way in ways() {
        let way = Way { policy: Policy { stall_guard: MS, ..way.policy.clone() }, ..way };
        let (mut rig, since) = way.begin();
        let looks = rig.looks_at_unread(since + 1000 * SECOND);
        assert!(looks <= 400 * 10, "{}: {looks} looks in {:?}", way.name, rig.elapsed());
    }
}

#[test]
fn s31_what_the_kernel_holds_unread_puts_the_miss_off_and_no_read_moves_it_back() {
    for way in ways() {
        for (name, window) in [("as it is", None), ("shorter than stall_guard", Some(SECOND))] {
            let way = Way { policy: Policy { window, ..way.policy.clone() }, ..way };
            let (mut rig, since) = way.begin();
            let window = window.filter(|_| rig.engine.proof.window().is_some()).unwrap_or(way.window);
            rig.run(since + window - MS);
            rig.now = rig.base + since + window;
            assert_eq!(rig.engine.handle_timeout(rig.now), Due::Look, "{} {name}", way.name);
            let unread = Delivery { acked: rig.written, unread: true };
            assert_eq!(rig.engine.delivery_checked(rig.now, rig.written, Some(unread)), None, "{} {name}", way.name);
            let deadline = rig.engine.deadline().expect("it is only put off");
            assert!(deadline > rig.now && deadline <= rig.now + 2 * SECOND, "{} {name}", way.name);
            rig.rearm();
            rig.arrives(rig.elapsed() + 10 * MS, Inbound::Frame);
            rig.run(rig.elapsed() + 500 * MS);
            assert_eq!((rig.end, rig.engine.stats().missed), (None, 0), "{} {name}", way.name);
        }
    }
}

#[test]
fn s31_unread_bytes_that_are_never_read_are_bounded() {
    for way in ways() {
        let (mut rig, _) = way.begin();
        while rig.end.is_none() {
            assert!(rig.elapsed() < 1000 * SECOND, "{} never ends: {:?}", way.name, rig.engine);
            rig.now = rig.engine.deadline().expect("a deadline");
            let verdict = match rig.engine.handle_timeout(rig.now) {
                Due::Look => rig.engine.delivery_checked(
                    rig.now,
                    rig.written,
                    Some(Delivery { acked: rig.written, unread: true }),
                ),
                Due::End(verdict) => Some(verdict),
                Due::Nothing => None,
            };
            rig.end = verdict.map(|verdict| (rig.elapsed(), verdict));
        }
    }
}

#[test]
fn s21_what_is_still_on_its_way_to_the_client_needs_no_answer_yet() {
    // The message of the app, or of the proxy, is behind a moving backlog for longer than any window.
    for way in ways() {
        let (mut rig, since) = way.begin();
        for second in 1..=200 {
            rig.block();
            rig.run(since + second * SECOND);
        }
        assert_eq!(rig.end, None, "{}", way.name);
        let cleared = rig.elapsed();
        rig.clear(100_000);
        rig.run(cleared + way.window - LOOK - MS);
        assert_eq!(rig.end, None, "{}: {:?}", way.name, rig.engine);
        rig.run(cleared + 1000 * SECOND);
        let bound = cleared + way.window + LOOK;
        assert!(rig.end.is_some_and(|(at, _)| at <= bound), "{}: {:?}, not by {bound:?}", way.name, rig.end);
    }
}

#[test]
fn s22_a_way_that_is_stuck_is_gone_within_write_stall() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        rig.acked = Some(Box::new(|_, _| 0));
        rig.written += 300_000;
        rig.block();
        rig.frames(since + SECOND, since + 200 * SECOND, SECOND);
        rig.run(since + 200 * SECOND);
        // Acknowledgements are counted from the first check.
        rig.assert_ended(EngineVerdict::SlowReader, since + WRITE_STALL, since + WRITE_STALL + 2 * LOOK);
    }
}

#[test]
fn s21_a_slow_reader_is_borne_with_for_max_deferral_at_most() {
    for way in ways() {
        let (mut rig, since) = way.begin();
        while rig.end.is_none() {
            rig.block();
            rig.run(rig.elapsed() + SECOND);
            assert!(rig.elapsed() < since + 420 * SECOND, "{}: {:?}", way.name, rig.engine);
        }
        assert!(rig.elapsed() >= since + 300 * SECOND, "{}: {:?}", way.name, rig.end);
    }
}
