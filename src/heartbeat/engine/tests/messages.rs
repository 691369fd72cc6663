//! Tests of heartbeats made of messages: attribution of answers, frames forwarded, signs of life. The scenarios of
//! *Identity* are repeated here, with probe messages in place of pings.

use super::*;

pub(super) fn app() -> Policy {
    express(Role::App)
}

pub(super) fn answer() -> Policy {
    express(Role::Answer)
}

pub(super) fn fates(rig: &Rig) -> Vec<HeartbeatAction> {
    rig.beats.iter().map(|(_, fate)| *fate).collect()
}

use HeartbeatAction::{Answer, Flood, Forward, Swallow};

#[test]
fn s01_app_an_idle_client_is_asked_once_and_not_pinged() {
    for seed in 0..100 {
        let policy = Policy { jitter: 0.2, ..app() };
        let mut rig = Rig::seeded(policy, seed).page(MS);
        rig.run(25 * SECOND);
        let [at] = rig.asked[..] else { panic!("one question in the first interval: {:?}", rig.asked) };
        assert!((12_500 * MS..=25 * SECOND).contains(&at), "the first probe × U[0.5, 1]: {at:?}");
        assert_eq!(rig.pings, [], "the question is the probe");
    }
}

#[test]
fn s02_app_the_answer_to_an_own_question_is_swallowed() {
    let mut rig = Rig::new(app()).page(50 * MS);
    rig.run(600 * SECOND);
    rig.assert_alive();
    assert!(rig.asked.len() >= 23, "one each 25.05 s: {:?}", rig.asked);
    assert_eq!(fates(&rig), vec![Swallow; rig.asked.len()]);
    let HeartbeatStats { pings, pongs, missed, strays, rtt_last } = rig.engine.stats();
    assert_eq!((pings, pongs), (rig.asked.len() as u64, rig.asked.len() as u64));
    assert_eq!((missed, strays, rtt_last), (0, 0, Some(50 * MS)));
}

#[test]
fn s03_app_a_client_that_dies_is_gone_exactly_interval_and_timeout_after_its_last_word() {
    let last_word = 70 * SECOND + 300 * MS;
    for mut rig in [Rig::new(app()), Rig::new(app()).kernel(|_, written| written)] {
        rig.page = Some(30 * MS);
        rig.run(70 * SECOND);
        rig.page = None;
        rig.arrives(last_word, Inbound::Frame);
        rig.run(200 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, last_word + 45 * SECOND, last_word + 45 * SECOND);
        assert_eq!(rig.engine.stats().missed, 1);
    }
}

#[test]
fn s04_app_the_apps_question_counts_as_the_probe_and_its_answer_is_forwarded() {
    let mut rig = Rig::new(app()).page(40 * MS);
    rig.run(10 * SECOND);
    rig.app_asks();
    rig.run(35 * SECOND);
    assert!(rig.asked.is_empty(), "no second question beside it");
    assert_eq!(rig.beats, [(10 * SECOND + 40 * MS, Forward)]);

    let mut unanswered = Rig::new(app());
    unanswered.run(10 * SECOND);
    unanswered.app_asks();
    unanswered.run(100 * SECOND);
    unanswered.assert_ended(EngineVerdict::Timeout, 30 * SECOND, 30 * SECOND);
}

#[test]
fn s04_app_the_apps_question_replaces_one_that_waits_for_a_gap() {
    let mut rig = Rig::new(app());
    rig.boundary = false;
    rig.run(26 * SECOND);
    rig.app_asks();
    rig.boundary = true;
    rig.run(27 * SECOND);
    assert!(rig.asked.is_empty(), "{:?}", rig.asked);
}

#[test]
fn s05_app_a_question_that_was_passed_over_shifts_no_answer() {
    // The client skips one of the proxy's probes, as its page was not ready, and answers every later one.
    let mut rig = Rig::new(app());
    rig.run_to_question();
    rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
    rig.run(rig.elapsed() + 2 * SECOND);
    rig.page = Some(100 * MS);
    rig.run_to_question();
    rig.run(rig.elapsed() + SECOND);
    assert_eq!(rig.engine.stats().rtt_last, Some(100 * MS), "measured from its own question");
    rig.app_asks();
    rig.run(rig.elapsed() + SECOND);
    assert_eq!(fates(&rig), [Swallow, Forward], "the app gets the answer to its question");
}

#[test]
fn s06_app_of_our_question_and_the_apps_behind_it_only_one_is_answered() {
    let mut rig = Rig::new(app());
    let asked = rig.run_to_question();
    rig.app_asks();
    rig.arrives(asked + 100 * MS, Inbound::Beat);
    rig.run(asked + SECOND);
    rig.page = Some(MS);
    rig.run(asked + 600 * SECOND);
    rig.assert_alive();
    let forwarded = fates(&rig).iter().filter(|fate| **fate == Forward).count();
    assert_eq!(forwarded, 0, "the app's question lapsed, so nothing of ours is taken for its answer");
}

#[test]
fn s07_app_an_answer_that_is_not_quite_one_is_alive_and_forwarded() {
    // A message that does not match is an ordinary message: the engine records data, and no heartbeat.
    let mut rig = Rig::new(app());
    for _ in 0..8 {
        let asked = rig.run_to_question();
        rig.arrives(asked + 100 * MS, Inbound::Frame);
        rig.run(asked + 101 * MS);
    }
    rig.assert_alive();
    assert_eq!((rig.engine.stats().missed, rig.engine.stats().pongs), (0, 0));
}

#[test]
fn s08_app_s46_what_answers_nothing_is_forwarded_and_never_answered() {
    let mut rig = Rig::new(app());
    for second in 1..=10 {
        rig.arrives(second * SECOND, Inbound::Beat);
    }
    rig.run(22 * SECOND);
    assert_eq!(fates(&rig), [Forward; 10]);
    assert_eq!((rig.asked.len(), rig.pings.len()), (0, 0), "nothing goes out for it");
}

#[test]
fn s09_app_a_late_first_answer_is_swallowed_and_measured_from_its_own_question() {
    let mut rig = Rig::new(Policy { max_missed: 2, ..app() });
    let first = rig.run_to_question();
    let second = rig.run_to_question();
    assert_eq!(second, first + 20 * SECOND);
    for (late, rtt) in [(21, 21), (22, 2)] {
        rig.arrives(first + late * SECOND, Inbound::Beat);
        rig.run(first + late * SECOND);
        assert_eq!(rig.engine.stats().rtt_last, Some(rtt * SECOND));
    }
    assert_eq!(fates(&rig), [Swallow; 2]);
}

#[test]
fn s09_app_answers_that_come_all_at_once_and_late_are_all_ours() {
    let mut rig = Rig::new(Policy { max_missed: 5, ..app() });
    rig.run_to_question();
    for _ in 1..4 {
        rig.run_to_question();
    }
    for _ in 0..5 {
        rig.arrives(rig.elapsed() + SECOND, Inbound::Beat);
    }
    rig.run(rig.elapsed() + 2 * SECOND);
    assert_eq!(fates(&rig), [Swallow, Swallow, Swallow, Swallow, Forward], "four were asked for");
}

#[test]
fn s10_s45_app_questions_of_both_are_answered_in_wire_order() {
    let mut rig = Rig::new(app()).page(300 * MS);
    let mut expected = Vec::new();
    for _ in 0..200 {
        rig.run_to_question();
        rig.app_asks();
        rig.app_asks();
        expected.extend([Swallow, Forward, Forward]);
        rig.run(rig.elapsed() + 7 * SECOND);
        rig.app_asks();
        expected.push(Forward);
        rig.run(rig.elapsed() + SECOND);
    }
    assert_eq!(fates(&rig), expected);
}

#[test]
fn s45_app_an_app_that_asks_all_the_time_gets_all_its_answers_and_ours_are_not_needed() {
    let mut rig = Rig::new(app()).page(100 * MS);
    while rig.elapsed() < 600 * SECOND {
        rig.run(rig.elapsed() + 300 * MS);
        rig.app_asks();
    }
    rig.run(rig.elapsed() + SECOND);
    rig.assert_alive();
    assert_eq!(fates(&rig), vec![Forward; rig.app_asked.len()]);
    assert!(rig.asked.is_empty(), "{:?}", rig.asked);

    rig.page = None;
    let hung = rig.elapsed();
    while rig.end.is_none() {
        rig.app_asks();
        rig.run(rig.elapsed() + 300 * MS);
    }
    rig.assert_ended(EngineVerdict::Timeout, hung + 20 * SECOND, hung + 20 * SECOND);
}

#[test]
fn s45_app_more_questions_than_are_remembered_confuse_nobody_for_long() {
    let mut rig = Rig::new(app());
    rig.run_to_question();
    for _ in 0..1000 {
        rig.app_asks();
    }
    for _ in 0..1001 {
        rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
    }
    rig.run(rig.elapsed() + SECOND);
    for _ in 0..16 {
        rig.arrives(rig.elapsed() + MS, Inbound::Beat);
    }
    rig.run(rig.elapsed() + 10 * MS);
    assert_eq!(fates(&rig), [Forward; 16]);
    rig.page = Some(50 * MS);
    rig.run_to_question();
    rig.run(rig.elapsed() + SECOND);
    assert_eq!(rig.beats.last().map(|(_, fate)| *fate), Some(Swallow));
}

#[test]
fn s45_app_a_second_answer_to_one_question_is_forwarded() {
    let mut rig = Rig::new(app());
    let asked = rig.run_to_question();
    rig.arrives(asked + 100 * MS, Inbound::Beat);
    rig.arrives(asked + 101 * MS, Inbound::Beat);
    rig.run(asked + SECOND);
    assert_eq!(fates(&rig), [Swallow, Forward]);
}

#[test]
fn s11_app_the_clients_own_pings_are_still_the_apps_to_answer() {
    for role in [Role::App, Role::Answer] {
        let mut rig = Rig::new(express(role));
        for _ in 0..20 {
            assert_eq!(rig.engine.client_ping(rig.now), PingAction::Forward);
        }
        assert_eq!(rig.engine.client_ping(rig.now), PingAction::Flood);
    }
}

#[test]
fn s12_app_more_than_twenty_heartbeats_a_second_are_a_flood() {
    for (policy, fate) in [(app(), Forward), (answer(), Answer)] {
        let mut rig = Rig::new(policy);
        for _ in 0..60 {
            for _ in 0..20 {
                assert_eq!(rig.engine.client_heartbeat(rig.now), fate);
            }
            rig.now += SECOND;
        }
        for _ in 0..20 {
            rig.engine.client_heartbeat(rig.now);
        }
        assert_eq!(rig.engine.client_heartbeat(rig.now), Flood);
    }
}

#[test]
fn s12_app_answers_that_were_asked_for_are_no_flood() {
    let mut rig = Rig::new(app());
    for _ in 0..10 {
        for _ in 0..16 {
            rig.app_asks();
        }
        for _ in 0..16 {
            assert_eq!(rig.engine.client_heartbeat(rig.now), Forward);
        }
    }
    let mut passive = Rig::new(watched(ProofOfLife::Answers));
    for _ in 0..100 {
        assert_eq!(passive.engine.client_heartbeat(passive.now), Forward, "whatever is only watched is never too much");
    }
}

#[test]
fn s23_app_a_hung_page_whose_browser_answers_pings_is_gone_in_app_mode() {
    // The app sends pings as well, and all its pongs arrive.
    for app_pings in [false, true] {
        let mut rig = Rig::new(app()).kernel(|_, written| written).page(5 * MS);
        rig.run(300 * SECOND);
        rig.assert_alive();
        rig.page = None;
        let hung = rig.elapsed();
        while rig.end.is_none() && rig.elapsed() < hung + 100 * SECOND {
            if app_pings {
                rig.app_ping(b"beside");
            }
            rig.run(rig.elapsed() + SECOND);
        }
        rig.assert_ended(EngineVerdict::Timeout, hung + 20 * SECOND, hung + 45 * SECOND);
    }
}

#[test]
fn s23_app_a_pong_is_no_answer_to_a_question_that_has_not_left() {
    // The probe is behind a partly written frame, while pongs arrive for earlier pings.
    let mut rig = Rig::new(app());
    rig.run_to_question();
    rig.arrives(rig.elapsed() + MS, Inbound::Beat);
    rig.boundary = false;
    rig.run(rig.elapsed() + 30 * SECOND);
    rig.engine.app_ping(b"app", rig.now);
    assert!(rig.engine.poll_transmit(rig.now, Gap::Message).is_some() && rig.engine.awaits_flush());
    assert_eq!(rig.engine.pong(b"app", rig.now), PongAction::Forward);
    assert!(rig.engine.awaits_flush(), "it is still waited for: {:?}", rig.engine);
    assert!(!rig.engine.wants_transmit(rig.now), "and not asked a second time");
    assert!(rig.engine.deadline().is_some_and(|at| at > rig.now));
}

#[test]
fn s24_app_a_hung_page_with_a_busy_downlink_is_a_slow_reader() {
    let mut rig = Rig::new(app()).kernel(|_, written| written.min(400_000));
    rig.run(10 * SECOND);
    rig.written = 700_000;
    rig.block();
    rig.run(200 * SECOND);
    rig.assert_ended(EngineVerdict::SlowReader, 10 * SECOND + WRITE_STALL, 10 * SECOND + WRITE_STALL + LOOK);
}

#[test]
fn s34_s37_app_after_a_close_nothing_is_asked_and_no_answer_revives() {
    let mut rig = Rig::new(app());
    rig.run_to_question();
    rig.engine.closing();
    assert_eq!(rig.engine.deadline(), None);
    for second in 0..200 {
        rig.now += SECOND;
        rig.engine.app_probe(rig.now);
        rig.engine.start(rig.now);
        rig.engine.agreed(ProofOfLife::Sends(SECOND), rig.now);
        rig.engine.app_sent(rig.now);
        rig.engine.client_heartbeat(rig.now);
        rig.engine.read(rig.now, seen(true, false));
        assert!(!rig.engine.wants_transmit(rig.now) && rig.engine.poll_transmit(rig.now, Gap::Message).is_none());
        assert_eq!(rig.engine.deadline(), None, "{second} s later: {:?}", rig.engine);
        assert_eq!(rig.engine.handle_timeout(rig.now), Due::Nothing);
        assert_eq!(rig.engine.delivery_checked(rig.now, 6, None), None);
    }
}

#[test]
fn s44_app_a_question_waits_for_the_end_of_a_message() {
    let mut rig = Rig::new(app()).page(MS);
    rig.gap = Gap::Frame;
    rig.run(30 * SECOND);
    assert_eq!((rig.asked.len(), rig.pings.len()), (0, 0), "between two fragments");
    rig.gap = Gap::Message;
    rig.poll();
    assert_eq!(rig.asked, [30 * SECOND]);
    rig.run(31 * SECOND);
    assert_eq!(fates(&rig), [Swallow]);
}

#[test]
fn s44_app_a_message_that_stays_open_lets_a_ping_through_whose_pong_counts() {
    let mut rig = Rig::new(app()).page(50 * MS);
    rig.gap = Gap::Frame;
    rig.run(600 * SECOND);
    rig.assert_alive();
    assert!(rig.pings.len() >= 12, "one each 45.05 s: {:?}", rig.pings);
    assert!(rig.asked.is_empty(), "{:?}", rig.asked);
    rig.gap = Gap::Message;
    rig.run(rig.elapsed() + 100 * SECOND);
    rig.assert_alive();
    assert!(rig.asked.len() >= 3, "the next probes are questions again: {:?}", rig.asked);
    assert!(fates(&rig).iter().all(|fate| *fate == Swallow), "{:?}", rig.beats);

    // Only the network process of a hung page continues to answer.
    rig.page = None;
    rig.arrives(rig.elapsed() + MS, Inbound::Pong(b"stray".to_vec()));
    let hung = rig.elapsed();
    rig.run(hung + 100 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, hung, hung + 45 * SECOND);
}

#[test]
fn s44_app_one_ping_in_place_of_a_question_is_one_sign_of_life_and_no_more() {
    let mut rig = Rig::new(app()).answering(MS);
    rig.gap = Gap::Frame;
    let pinged = rig.run_to_ping();
    rig.run(pinged + SECOND);
    rig.gap = Gap::Message;
    // Pongs to pings of the app, which prove nothing about the page.
    while rig.end.is_none() && rig.elapsed() < pinged + 100 * SECOND {
        rig.app_ping(b"app");
        rig.run(rig.elapsed() + SECOND);
    }
    assert_eq!(rig.asked, [pinged + MS + 25 * SECOND]);
    rig.assert_ended(EngineVerdict::Timeout, pinged + MS + 45 * SECOND, pinged + MS + 45 * SECOND);
}

#[test]
fn s44_app_a_dead_client_is_found_although_a_message_stays_open() {
    for max_missed in [1, 3] {
        let mut rig = Rig::new(Policy { max_missed, ..app() });
        rig.gap = Gap::Frame;
        rig.arrives(10 * SECOND, Inbound::Frame);
        rig.run(1000 * SECOND);
        // Each probe waits one window for a gap, and then for its pong.
        let bound = 10 * SECOND + 25 * SECOND + max_missed * 40 * SECOND;
        rig.assert_ended(EngineVerdict::Timeout, bound - 13 * SECOND, bound);
        assert_eq!(rig.pings.len(), max_missed as usize);
    }
}

#[test]
fn s44_app_a_word_of_the_client_does_not_keep_a_waiting_question_waiting_for_minutes() {
    // Inside a frame of a message; the client sends once more and is dead. Nothing else moves.
    let mut rig = Rig::new(app());
    rig.gap = Gap::Frame;
    rig.boundary = false;
    rig.run(50 * SECOND);
    rig.arrives(60 * SECOND, Inbound::Frame);
    rig.run(61 * SECOND);
    rig.boundary = true;
    rig.run(1000 * SECOND);
    rig.assert_ended(EngineVerdict::Timeout, 100 * SECOND, 100 * SECOND + 20 * SECOND);
}

#[test]
fn s46_app_a_pong_behind_a_lapsed_question_is_taken_for_its_answer_once() {
    let mut rig = Rig::new(app());
    rig.run_to_question();
    rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
    rig.run(rig.elapsed() + 2 * SECOND);
    rig.run_to_question();
    for _ in 0..4 {
        rig.arrives(rig.elapsed() + SECOND, Inbound::Beat);
    }
    rig.run(rig.elapsed() + 2 * SECOND);
    assert_eq!(fates(&rig), [Swallow, Swallow, Forward, Forward]);
}

#[test]
fn s46_app_a_pong_long_after_a_question_was_skipped_is_the_clients_own() {
    let mut rig = Rig::new(app());
    // The client skips one probe, answers the next ones, and sends the same message on its own an hour later.
    rig.run_to_question();
    rig.arrives(rig.elapsed() + SECOND, Inbound::Frame);
    rig.run(rig.elapsed() + 2 * SECOND);
    rig.page = Some(50 * MS);
    rig.run_to_question();
    rig.run(3600 * SECOND);
    let answered = rig.beats.len();
    let asked = rig.run_to_question();
    rig.arrives(asked + SECOND, Inbound::Beat);
    rig.run(asked + 2 * SECOND);
    assert_eq!(fates(&rig)[answered..], [Swallow, Forward], "its answer, and nothing outstanding");
}

#[test]
fn s45_app_answers_behind_a_long_upload_or_a_slow_app_are_in_wire_order_still() {
    for app_is_slow in [false, true] {
        let mut rig = Rig::new(app());
        let asked = rig.run_to_question();
        rig.app_asks();
        // One long frame, or a client that is not read; its answers wait behind that.
        if app_is_slow {
            rig.pause();
        } else {
            rig.arrives(asked + SECOND, Inbound::Inside);
        }
        for second in 2..200 {
            if !app_is_slow {
                rig.arrives(asked + second * SECOND, Inbound::Inside);
            }
        }
        rig.run(asked + 150 * SECOND);
        rig.app_asks();
        let questions = rig.asked.len() + rig.app_asked.len();
        rig.arrives(asked + 200 * SECOND, Inbound::Frame);
        for _ in 0..questions {
            rig.arrives(asked + 200 * SECOND, Inbound::Beat);
        }
        rig.run(asked + 200 * SECOND);
        if app_is_slow {
            rig.resume();
        }
        rig.assert_alive();
        assert_eq!(fates(&rig)[..2], [Swallow, Forward], "slow app: {app_is_slow}");
        let forwarded = fates(&rig).iter().filter(|fate| **fate == Forward).count();
        assert_eq!((rig.beats.len(), forwarded), (questions, 2), "slow app: {app_is_slow}, {:?}", rig.beats);
    }
}
