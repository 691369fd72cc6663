//! Tests of every setting in `app` mode.

use super::messages::{answer, app, fates};
use super::*;
use HeartbeatAction::Swallow;

#[test]
fn liveness_says_what_keeps_an_asked_client_alive() {
    use Liveness::{AnyBytes, AnyFrame, PongOnly};
    let pong = || Inbound::Pong(b"any".to_vec());
    let cases = [
        (AnyBytes, Inbound::Inside, true),
        (AnyBytes, Inbound::Frame, true),
        (AnyBytes, Inbound::Beat, true),
        (AnyBytes, pong(), false),
        (AnyFrame, Inbound::Inside, false),
        (AnyFrame, Inbound::FrameAndMore, true),
        (AnyFrame, Inbound::Beat, true),
        (AnyFrame, pong(), false),
        (PongOnly, Inbound::Inside, false),
        (PongOnly, Inbound::Frame, false),
        (PongOnly, Inbound::Beat, true),
        (PongOnly, pong(), false),
    ];
    for (liveness, what, alive) in cases {
        let mut rig = Rig::new(Policy { liveness, ..app() });
        let asked = rig.run_to_question();
        rig.arrives(asked + 10 * SECOND, what.clone());
        rig.run(asked + 21 * SECOND);
        assert_eq!(rig.end.is_none(), alive, "app, {liveness:?} and {what:?}");

        let mut rig = Rig::new(Policy { liveness, ..answer() });
        rig.arrives(80 * SECOND, what.clone());
        rig.run(91 * SECOND);
        assert_eq!(rig.end.is_none(), alive, "answer, {liveness:?} and {what:?}");
    }
}

#[test]
fn pong_only_finds_a_client_that_talks_but_never_answers() {
    let mut app = Rig::new(Policy { liveness: Liveness::PongOnly, ..app() });
    app.frames(SECOND, 300 * SECOND, SECOND);
    app.run(300 * SECOND);
    app.assert_ended(EngineVerdict::Timeout, 120 * SECOND, 120 * SECOND);
    let mut answer = Rig::new(Policy { liveness: Liveness::PongOnly, ..answer() });
    answer.frames(SECOND, 300 * SECOND, SECOND);
    answer.run(300 * SECOND);
    answer.assert_ended(EngineVerdict::Timeout, 90 * SECOND, 90 * SECOND);
}

#[test]
fn probe_when_busy_asks_under_traffic_and_measures() {
    let mut rig = Rig::new(Policy { probe_when_busy: 40 * SECOND, ..app() }).page(Duration::ZERO);
    rig.frames(SECOND, 1000 * SECOND, SECOND);
    rig.run(1000 * SECOND);
    rig.assert_alive();
    assert_eq!(rig.asked.len(), 25, "{:?}", rig.asked);
    assert_eq!(fates(&rig), [Swallow; 25]);
}

#[test]
fn a_client_that_talks_and_answers_nothing_is_alive_with_or_without_a_kernel() {
    for mut rig in [Rig::new(app()), Rig::new(app()).kernel(|_, written| written)] {
        rig.frames(SECOND, 2000 * SECOND, SECOND);
        rig.run(2000 * SECOND);
        rig.assert_alive();
        rig.run(3000 * SECOND);
        rig.assert_ended(EngineVerdict::Timeout, 2020 * SECOND, 2045 * SECOND);
    }
}

#[test]
fn max_missed_is_the_number_of_questions_in_a_row_that_may_go_unanswered() {
    let mut rig = Rig::new(Policy { max_missed: 3, ..app() });
    rig.arrives(SECOND, Inbound::Frame);
    rig.run(500 * SECOND);
    let end = SECOND + 25 * SECOND + 3 * 20 * SECOND;
    rig.assert_ended(EngineVerdict::Timeout, end - 13 * SECOND, end);
    assert_eq!((rig.asked.len(), rig.engine.stats().missed), (3, 3));
}

#[test]
fn a_slow_page_widens_an_adaptive_window_up_to_a_minute() {
    for (adaptive, alive) in [(true, true), (false, false)] {
        let mut rig = Rig::new(Policy { adaptive, ..app() }).page(15 * SECOND);
        rig.run(100 * SECOND);
        rig.page = Some(25 * SECOND);
        rig.run(600 * SECOND);
        assert_eq!(rig.end.is_none(), alive, "adaptive: {adaptive}, {:?}", rig.engine);
    }
}
