//! Tests of client bytes that have left the socket and form no readable frame yet.

use super::messages::{answer, app};
use super::*;

/// Schedules one record of the client, a part each `step`.
fn record(rig: &mut Rig, mut from: Duration, to: Duration, step: Duration) {
    while from <= to {
        rig.arrives(from, Inbound::Partial);
        from += step;
    }
}

#[test]
fn s56_an_unfinished_record_is_a_sign_of_life_under_any_bytes() {
    let watched = watched(ProofOfLife::Sends(30 * SECOND));
    for (name, policy) in [("protocol", exact()), ("app", app()), ("answer", answer()), ("passive", watched)] {
        for liveness in [Liveness::AnyBytes, Liveness::AnyFrame, Liveness::PongOnly] {
            let policy = Policy { liveness, write_stall: 400 * SECOND, ..policy.clone() };
            let mut rig = Rig::new(policy).kernel(|_, written| written);
            record(&mut rig, SECOND, 300 * SECOND, 3 * SECOND);
            rig.run(300 * SECOND);
            let lives = liveness == Liveness::AnyBytes;
            assert_eq!(rig.end.is_none(), lives, "{name}, {liveness:?}: {:?}, {:?}", rig.end, rig.engine);
            assert_eq!(rig.engine.stats().missed, u64::from(!lives), "{name}, {liveness:?}");
        }
    }
}

#[test]
fn s56_a_client_that_stops_inside_a_record_is_gone_in_its_bound() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written);
    record(&mut rig, SECOND, 100 * SECOND, SECOND);
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 100 * SECOND + 20 * SECOND, 100 * SECOND + 45 * SECOND);
}

#[test]
fn s56_an_unfinished_record_is_an_unfinished_frame_for_frame_max_time() {
    for (name, policy) in [("protocol", exact()), ("answer", answer())] {
        let mut rig = Rig::new(policy).kernel(|_, written| written);
        record(&mut rig, 3 * SECOND, 1000 * SECOND, SECOND);
        rig.run(1000 * SECOND);
        assert_eq!(rig.end, Some((603 * SECOND, EngineVerdict::Trickle)), "{name}");
    }
}

#[test]
fn s56_the_frame_in_a_record_began_with_the_record() {
    // The record is complete after 100 s, and the frame in it continues in whole records.
    let mut rig = Rig::new(exact()).kernel(|_, written| written);
    record(&mut rig, 3 * SECOND, 100 * SECOND, SECOND);
    for second in 101..1000 {
        rig.arrives(second * SECOND, Inbound::Inside);
    }
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Trickle, 603 * SECOND, 603 * SECOND);
}

#[test]
fn s56_records_that_end_frames_are_no_trickle() {
    let mut rig = Rig::new(exact()).kernel(|_, written| written).answering(MS);
    for record_of in 0..10 {
        let begun = record_of * 200 * SECOND;
        record(&mut rig, begun + SECOND, begun + 199 * SECOND, SECOND);
        rig.arrives(begun + 200 * SECOND, Inbound::Frame);
    }
    rig.run(2000 * SECOND);
    rig.assert_alive();
}

#[test]
fn s56_the_same_bytes_reported_again_are_no_new_sign_of_life() {
    let mut rig = Rig::new(exact());
    let heard = 10 * SECOND;
    rig.arrives(heard, Inbound::Partial);
    for second in 0..1000 {
        rig.run(heard + second * SECOND);
        if rig.end.is_some() {
            break;
        }
        rig.engine.partial(rig.base + heard);
        rig.rearm();
    }
    rig.assert_ended(EngineVerdict::Timeout, heard + 20 * SECOND, heard + 45 * SECOND);
}

#[test]
fn s56_a_record_that_had_nothing_to_read_leaves_no_frame_behind() {
    // As a key update does; the client then sends nothing, and need not.
    let mut rig = Rig::new(watched(ProofOfLife::SendsAfterApp(30 * SECOND)));
    rig.arrives(SECOND, Inbound::Partial);
    rig.run(2 * SECOND);
    rig.engine.partial_ended();
    rig.run(3600 * SECOND);
    rig.assert_alive();

    // A record that ends while a frame is in progress does not end the frame.
    let mut rig = Rig::new(exact());
    rig.arrives(SECOND, Inbound::Inside);
    record(&mut rig, 2 * SECOND, 1000 * SECOND, SECOND);
    rig.run(100 * SECOND);
    rig.engine.partial_ended();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Trickle, 601 * SECOND, 601 * SECOND);
}

#[test]
fn s56_bytes_that_arrived_before_the_probe_left_are_no_answer_to_it() {
    let mut rig = Rig::new(exact());
    let pinged = rig.run_to_ping();
    rig.run(pinged + SECOND);
    // Detected only now: the task was late.
    rig.engine.partial(rig.base + pinged - MS);
    rig.rearm();
    rig.run(pinged + 1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, pinged + 20 * SECOND, pinged + 20 * SECOND);
}

#[test]
fn s56_a_frame_clock_that_began_in_the_past_is_not_missed() {
    let policy = Policy { frame_max_time: 10 * SECOND, ..exact() };
    let mut rig = Rig::new(policy);
    rig.run(5 * SECOND);
    rig.engine.partial(rig.base + 2 * SECOND);
    rig.rearm();
    record(&mut rig, 6 * SECOND, 100 * SECOND, SECOND);
    rig.run(100 * SECOND);
    rig.assert_ended(EngineVerdict::Trickle, 12 * SECOND, 12 * SECOND);
}
