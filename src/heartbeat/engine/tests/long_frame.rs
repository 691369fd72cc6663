//! Tests of a probe that waits behind one long frame of the app.

use super::messages::app;
use super::*;

/// Returns a policy under which a frame of 12 s lasts three times `max_deferral`.
fn quick() -> Policy {
    Policy { interval: 2 * SECOND, timeout: 2 * SECOND, max_deferral: 4 * SECOND, ..exact() }
}

/// The bytes per step, 200 KB a second.
const BYTES: u64 = 20_000;
const STEP: Duration = Duration::from_millis(100);

/// Returns a client whose kernel acknowledges everything at once until `until`, and nothing after.
fn prompt_until(until: Duration) -> impl Fn(Duration, u64) -> u64 {
    let last = std::cell::Cell::new(0);
    move |at, written| {
        if at <= until {
            last.set(written);
        }
        last.get()
    }
}

#[test]
fn s57_a_prompt_reader_of_one_frame_beyond_max_deferral_lives() {
    for liveness in [Liveness::AnyBytes, Liveness::AnyFrame, Liveness::PongOnly] {
        for (name, policy) in [("protocol", quick()), ("app", Policy { mode: app().mode, ..quick() })] {
            for kernel in [true, false] {
                let mut rig = Rig::new(Policy { liveness, ..policy.clone() }).page(50 * MS);
                rig.acked = kernel.then(|| Box::new(|_, written| written) as Acked);
                rig.stream(BYTES, STEP, 12 * SECOND);
                assert_eq!(rig.end, None, "{name}, {liveness:?}, kernel: {kernel}: {:?}", rig.engine);
                assert_eq!((rig.pings.len(), rig.asked.len()), (0, 0), "inside a frame");
                rig.boundary = true;
                rig.poll();
                assert_eq!(rig.pings.len() + rig.asked.len(), 1, "{name}: right behind it");
                rig.run(60 * SECOND);
                assert_eq!(rig.end, None, "{name}, {liveness:?}, kernel: {kernel}: {:?}", rig.engine);
                assert_eq!(rig.engine.stats().missed, 0);
            }
        }
    }
}

#[test]
fn s57_progress_is_no_sign_of_life() {
    for kernel in [true, false] {
        let mut rig = Rig::new(Policy { max_missed: 2, ..quick() });
        rig.acked = kernel.then(|| Box::new(|_, written| written) as Acked);
        let pinged = rig.run_to_ping();
        rig.boundary = false;
        rig.run(pinged + 2 * SECOND);
        assert_eq!((rig.engine.misses(), rig.engine.stats().missed), (1, 1), "the first probe");
        // The second probe waits behind a frame, and the count of misses is kept.
        rig.stream(BYTES, STEP, pinged + 20 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.engine.misses(), 1);
        rig.boundary = true;
        rig.poll();
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, pinged + 22 * SECOND, pinged + 22 * SECOND);
    }
}

#[test]
fn s57_a_client_that_stops_inside_the_frame_is_gone_write_stall_later() {
    for write_stall in [6 * SECOND, 45 * SECOND] {
        for blocks_after in [None, Some(2 * SECOND)] {
            let stops = 8 * SECOND;
            let mut rig = Rig::new(Policy { write_stall, ..quick() }).kernel(prompt_until(stops));
            rig.stream(BYTES, STEP, stops + blocks_after.unwrap_or(100 * SECOND));
            if blocks_after.is_some() {
                rig.block();
            }
            rig.run(1000 * SECOND);
            let full = stops + blocks_after.unwrap_or_default();
            // The buffer fills, write_stall passes, and each is detected one check later.
            rig.assert_ended(EngineVerdict::SlowReader, stops, full + write_stall + 2 * (write_stall / 8));
        }
    }
}

#[test]
fn s57_an_app_that_pauses_inside_its_frame_does_not_make_its_client_a_slow_reader() {
    // Longer than write_stall: nothing is in flight, so nothing can be acknowledged.
    let mut rig = Rig::new(exact()).kernel(|_, written| written).answering(50 * MS);
    for _ in 0..20 {
        rig.stream(BYTES, STEP, rig.elapsed() + SECOND);
        rig.run(rig.elapsed() + 100 * SECOND);
        rig.assert_alive();
    }
    rig.boundary = true;
    rig.poll();
    rig.run(rig.elapsed() + 100 * SECOND);
    rig.assert_alive();
}

#[test]
fn s57_an_app_that_never_ends_its_frame_is_waited_for_within_max_deferral() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written);
    rig.stream(BYTES, STEP, 400 * SECOND);
    rig.assert_alive();
    rig.run(2000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 700 * SECOND, 700 * SECOND + WRITE_STALL + LOOK);
}

#[test]
fn s57_with_a_backlog_max_deferral_counts() {
    // Every other second the proxy holds bytes for the client, which moves all the time.
    let mut rig = Rig::new(exact()).kernel(|at, written| written - 1000 + u64::from(at.subsec_millis()));
    while rig.end.is_none() && rig.elapsed() < 2000 * SECOND {
        rig.written += BYTES;
        rig.block();
        rig.run(rig.elapsed() + SECOND);
        if rig.end.is_some() {
            break;
        }
        rig.written += BYTES;
        rig.boundary = false;
        rig.engine.write_clear(rig.now);
        rig.rearm();
        rig.run(rig.elapsed() + SECOND);
    }
    let (from, to) = (600 * SECOND, 25 * SECOND + 600 * SECOND + WRITE_STALL + 2 * LOOK);
    rig.assert_ended(EngineVerdict::SlowReader, from, to);
}

#[test]
fn s57_a_backlog_while_the_client_is_not_read_uses_up_nothing() {
    // Both legs are slow at once: the clock stands still, and resumes from its reading.
    let mut rig = Rig::new(exact()).kernel(|at, _| u64::try_from(at.as_millis()).expect("minutes"));
    rig.written = 10_000_000;
    rig.block();
    rig.run(100 * SECOND);
    rig.pause();
    for _ in 0..250 {
        rig.block();
        rig.run(rig.elapsed() + SECOND);
    }
    rig.resume();
    rig.boundary = false;
    rig.run(500 * SECOND);
    rig.assert_alive();
    rig.run(2000 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, 562 * SECOND, 575 * SECOND + LOOK);
}
