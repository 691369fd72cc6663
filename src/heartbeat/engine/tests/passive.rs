//! Tests of heartbeats that are only observed: each proof of life, and changes of it during a session.

use super::*;
use crate::heartbeat::{Matching, Pattern};

const WINDOW: Duration = Duration::from_secs(30);

/// Advances by `step` until `until`, with a message of the app each time.
fn app_talks(rig: &mut Rig, until: Duration, step: Duration) {
    while rig.end.is_none() && rig.elapsed() < until {
        rig.app_speaks();
        rig.run(rig.elapsed() + step);
    }
}

#[test]
fn s49_an_engine_io_session_is_sent_nothing_of_the_proxys_own() {
    let mut rig = Rig::new(watched(ProofOfLife::Answers));
    rig.run(3600 * SECOND);
    rig.assert_alive();
    assert!(!rig.engine.wants_transmit(rig.now));
    assert_eq!((rig.pings.len(), rig.asked.len()), (0, 0));
}

#[test]
fn a_client_that_does_not_answer_its_app_is_gone_a_timeout_after_the_question() {
    let mut rig = Rig::new(watched(ProofOfLife::Answers)).page(50 * MS);
    for _ in 0..10 {
        rig.run(rig.elapsed() + 25 * SECOND);
        rig.app_asks();
    }
    rig.run(rig.elapsed() + SECOND);
    rig.assert_alive();
    assert!(rig.beats.iter().all(|(_, fate)| *fate == HeartbeatAction::Forward), "{:?}", rig.beats);
    assert_eq!(rig.engine.stats().rtt_last, Some(50 * MS));
    rig.page = None;
    rig.run(rig.elapsed() + 24 * SECOND);
    rig.app_asks();
    let asked = rig.elapsed();
    // The browser still answers pings, and the app probes again and again.
    for second in 1..100 {
        rig.app_ping(b"app");
        rig.app_asks();
        rig.run(asked + second * SECOND);
    }
    rig.assert_ended(EngineVerdict::Timeout, asked + 20 * SECOND, asked + 20 * SECOND);
}

#[test]
fn any_word_is_an_answer_to_a_watched_app() {
    let mut rig = Rig::new(watched(ProofOfLife::Answers));
    for _ in 0..10 {
        rig.app_asks();
        rig.arrives(rig.elapsed() + 19 * SECOND, Inbound::Frame);
        rig.run(rig.elapsed() + 25 * SECOND);
    }
    rig.assert_alive();
    rig.app_asks();
    let asked = rig.elapsed();
    rig.run(asked + 100 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, asked + 20 * SECOND, asked + 20 * SECOND);
}

#[test]
fn a_watched_app_that_asks_once_and_waits_is_served_with_max_missed_too() {
    let mut rig = Rig::new(Policy { max_missed: 3, ..watched(ProofOfLife::Answers) });
    rig.run(SECOND);
    rig.app_asks();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 61 * SECOND, 61 * SECOND);
    assert_eq!(rig.engine.stats().missed, 3);
}

#[test]
fn a_client_that_has_to_speak_is_gone_a_window_after_its_last_word() {
    let mut rig = Rig::new(watched(ProofOfLife::Sends(WINDOW))).answering(MS);
    rig.frames(29 * SECOND, 290 * SECOND, 29 * SECOND);
    app_talks(&mut rig, 290 * SECOND, SECOND);
    rig.assert_alive();
    app_talks(&mut rig, 500 * SECOND, SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 320 * SECOND, 320 * SECOND);
    assert_eq!((rig.pings.len(), rig.asked.len(), rig.engine.stats().missed), (0, 0, 1));
}

#[test]
fn a_client_that_beats_when_all_is_quiet_is_gone_a_window_after_the_last_word_of_either() {
    let mut rig = Rig::new(watched(ProofOfLife::SendsWhenIdle(WINDOW)));
    app_talks(&mut rig, 200 * SECOND, 29 * SECOND);
    rig.assert_alive();
    let last = rig.elapsed();
    rig.app_speaks();
    rig.run(last + 10 * SECOND);
    rig.arrives(last + 20 * SECOND, Inbound::Frame);
    rig.run(last + 1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, last + 50 * SECOND, last + 50 * SECOND);
}

#[test]
fn a_client_that_beats_when_spoken_to_is_not_missed_while_its_app_is_frozen() {
    let mut rig = Rig::new(watched(ProofOfLife::SendsAfterApp(WINDOW)));
    rig.run(3600 * SECOND);
    rig.assert_alive();
    // The app resumes; its client answers, and need not send anything while the app sends nothing.
    rig.app_speaks();
    rig.arrives(rig.elapsed() + 29 * SECOND, Inbound::Frame);
    rig.run(rig.elapsed() + 3600 * SECOND);
    rig.assert_alive();
    // The clock starts with the first unanswered message.
    let spoken = rig.elapsed();
    app_talks(&mut rig, spoken + 100 * SECOND, 7 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, spoken + WINDOW, spoken + WINDOW);
}

#[test]
fn a_handshake_that_agrees_on_beats_ends_the_pings_and_forgives_the_one_outstanding() {
    for answers_ping in [true, false] {
        let mut rig = Rig::new(watched(ProofOfLife::Pongs)).kernel(|_, written| written);
        let pinged = rig.run_to_ping();
        rig.run(pinged + 5 * SECOND);
        rig.engine.agreed(ProofOfLife::Sends(60 * SECOND), rig.now);
        rig.rearm();
        if answers_ping {
            let ping = rig.pings[0].1.clone();
            rig.arrives(pinged + 6 * SECOND, Inbound::Pong(ping));
        }
        rig.run(pinged + 64 * SECOND);
        rig.assert_alive();
        assert_eq!(rig.pings.len(), 1);
        rig.run(pinged + 1000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, pinged + 65 * SECOND, pinged + 65 * SECOND);
    }
}

#[test]
fn a_handshake_may_agree_while_a_ping_is_half_way_out() {
    let mut rig = Rig::new(watched(ProofOfLife::Pongs)).kernel(|_, written| written);
    rig.boundary = false;
    rig.run(26 * SECOND);
    assert!(rig.engine.poll_transmit(rig.now, Gap::Frame).is_some());
    rig.engine.agreed(ProofOfLife::Sends(60 * SECOND), rig.now);
    assert!(!rig.engine.awaits_flush() && !rig.engine.wants_transmit(rig.now));
    rig.boundary = true;
    rig.rearm();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 86 * SECOND, 86 * SECOND);
}

#[test]
fn a_handshake_that_agrees_on_nothing_leaves_the_pings_as_they_are() {
    let mut rig = Rig::new(watched(ProofOfLife::Pongs));
    let pinged = rig.run_to_ping();
    rig.run(pinged + 5 * SECOND);
    rig.engine.agreed(ProofOfLife::Pongs, rig.now);
    rig.rearm();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, pinged + 20 * SECOND, pinged + 20 * SECOND);
}

#[test]
fn the_window_of_the_configuration_overrules_the_handshake() {
    let proofs: [fn(Duration) -> ProofOfLife; 3] =
        [ProofOfLife::Sends, ProofOfLife::SendsWhenIdle, ProofOfLife::SendsAfterApp];
    for proof in proofs {
        let mut rig = Rig::new(Policy { window: Some(40 * SECOND), ..watched(ProofOfLife::Pongs) });
        rig.run(2 * SECOND);
        rig.engine.agreed(proof(5 * SECOND), rig.now);
        rig.app_speaks();
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, 42 * SECOND, 42 * SECOND);
    }
}

/// Returns `policy` with a message that must pass before its profile is in force.
fn late(mode: &Mode) -> Policy {
    let profile = mode.profile().expect("a mode with a profile");
    let start = Pattern::new(crate::ws::Opcode::TEXT, b"hello", Matching::Exact).expect("a valid pattern");
    let profile = Arc::new(Profile { start_after: Some(start), ..(**profile).clone() });
    let mode = match mode {
        Mode::App(_) => Mode::App(profile),
        Mode::Answer(_) => Mode::Answer(profile),
        _ => Mode::Passive(profile),
    };
    Policy { mode, ..exact() }
}

#[test]
fn until_it_has_started_a_session_is_pinged_and_nothing_is_asked_or_answered() {
    for policy in
        [express(Role::App), express(Role::Answer), watched(ProofOfLife::Answers), watched(ProofOfLife::Sends(WINDOW))]
    {
        let mut rig = Rig::new(late(&policy.mode)).answering(MS);
        rig.frames(SECOND, 20 * SECOND, 7 * SECOND);
        rig.run(300 * SECOND);
        rig.assert_alive();
        assert!(rig.pings.len() >= 10 && rig.asked.is_empty(), "{:?}", rig.pings);
        assert_eq!(rig.engine.client_heartbeat(rig.now), HeartbeatAction::Forward);
        rig.rtt = None;
        let died = rig.elapsed();
        rig.run(1000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, died + 20 * SECOND, died + 45 * SECOND);
    }
}

#[test]
fn once_it_has_started_the_profile_is_what_counts() {
    let mut asked = Rig::new(late(&express(Role::App).mode)).page(MS);
    asked.run(100 * SECOND);
    asked.engine.start(asked.now);
    asked.rearm();
    asked.run(300 * SECOND);
    asked.assert_alive();
    assert!(asked.asked.len() >= 7, "{:?}", asked.asked);
    assert!(asked.pings.iter().all(|(at, _)| *at <= 100 * SECOND), "{:?}", asked.pings);
    asked.page = None;
    asked.run(1000 * SECOND);
    asked.assert_ended(EngineVerdict::Timeout, 320 * SECOND, 345 * SECOND);

    let mut answered = Rig::new(late(&express(Role::Answer).mode)).answering(MS);
    answered.run(100 * SECOND);
    answered.engine.start(answered.now);
    answered.rearm();
    assert_eq!(answered.engine.client_heartbeat(answered.now), HeartbeatAction::Answer);
    answered.run(1000 * SECOND);
    answered.assert_ended(EngineVerdict::Timeout, 190 * SECOND, 190 * SECOND);
}

#[test]
fn a_start_forgives_whatever_ping_is_outstanding_the_apps_too() {
    // The app sends a ping and the start message together: the ping is in flight when the profile comes into force, and
    // its pong is no sign of life any more. The client is alive and need not send anything.
    for (policy, until) in [(express(Role::App), 25 * SECOND), (watched(ProofOfLife::Answers), 3600 * SECOND)] {
        let mut rig = Rig::new(late(&policy.mode));
        rig.run(5 * SECOND);
        rig.engine.app_ping(b"app", rig.now);
        rig.engine.start(rig.now);
        if rig.engine.awaits_flush() {
            rig.engine.flushed(rig.now, 10, None);
        }
        rig.rearm();
        rig.arrives(5 * SECOND + 10 * MS, Inbound::Pong(b"app".to_vec()));
        rig.run(5 * SECOND + until - MS);
        rig.assert_alive();
    }
}

#[test]
fn a_start_in_the_middle_of_a_long_window_makes_nothing_overdue() {
    let delays = Policy { timeout: 60 * SECOND, probe_when_busy: 20 * SECOND, ..late(&express(Role::App).mode) };
    let mut rig = Rig::new(delays);
    let pinged = rig.run_to_ping();
    rig.run(pinged + 50 * SECOND);
    rig.engine.start(rig.now);
    assert!(rig.engine.deadline().is_some_and(|at| at > rig.now), "{:?}", rig.engine);
    rig.rearm();
    let started = rig.elapsed();
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, started + 80 * SECOND, started + 80 * SECOND);
}

#[test]
fn what_cannot_be_read_may_be_what_was_waited_for() {
    // Compressed with context takeover: under pong_only the content would count, and is unknown.
    for proof in [ProofOfLife::Answers, ProofOfLife::Sends(WINDOW), ProofOfLife::SendsWhenIdle(WINDOW)] {
        let mut rig = Rig::new(Policy { liveness: Liveness::PongOnly, ..watched(proof) });
        for _ in 0..10 {
            rig.app_asks();
            rig.run(rig.elapsed() + 10 * SECOND);
            rig.engine.unreadable_message(rig.now);
            rig.rearm();
            rig.run(rig.elapsed() + 15 * SECOND);
        }
        rig.assert_alive();
        rig.app_asks();
        rig.run(rig.elapsed() + WINDOW);
        assert!(rig.end.is_some(), "{proof:?} {:?}", rig.engine);
    }
}

#[test]
fn liveness_says_what_a_client_has_to_say() {
    use Liveness::{AnyBytes, AnyFrame, PongOnly};
    let cases = [
        (AnyBytes, Inbound::Inside, true),
        (AnyFrame, Inbound::Inside, false),
        (AnyFrame, Inbound::Frame, true),
        (PongOnly, Inbound::Frame, false),
        (PongOnly, Inbound::Beat, true),
        (AnyBytes, Inbound::Pong(b"any".to_vec()), false),
    ];
    let proofs = [
        ProofOfLife::Answers,
        ProofOfLife::Sends(WINDOW),
        ProofOfLife::SendsWhenIdle(WINDOW),
        ProofOfLife::SendsAfterApp(WINDOW),
    ];
    for ((liveness, what, alive), proof) in cases.iter().flat_map(|case| proofs.map(|proof| (case, proof))) {
        let mut rig = Rig::new(Policy { liveness: *liveness, ..watched(proof) });
        rig.app_asks();
        rig.arrives(15 * SECOND, what.clone());
        rig.run(31 * SECOND);
        assert_eq!(rig.end.is_none(), *alive, "{proof:?}, {liveness:?} and {what:?}");
    }
}
