//! Tests of `answer` mode: the client probes, the proxy answers in place of the app.

use super::messages::{answer, fates};
use super::*;
use HeartbeatAction::Answer;

#[test]
fn s50_answer_a_hidden_tab_that_beats_once_a_minute_is_answered_and_alive() {
    let mut rig = Rig::new(answer());
    for minute in 1..=60 {
        rig.arrives(minute * 60 * SECOND, Inbound::Beat);
    }
    rig.run(3600 * SECOND);
    rig.assert_alive();
    assert_eq!(fates(&rig), [Answer; 60]);
    assert_eq!((rig.pings.len(), rig.asked.len()), (0, 0), "nothing is asked of it");
}

#[test]
fn s51_answer_ninety_seconds_of_silence_are_the_end() {
    for window in [None, Some(10 * SECOND)] {
        for beat in [Inbound::Beat, Inbound::Frame, Inbound::Inside] {
            let mut rig = Rig::new(Policy { window, ..answer() }).answering(MS);
            rig.arrives(7 * SECOND, beat);
            rig.run(8 * SECOND);
            // The browser continues to answer the pings of the app.
            for _ in 0..100 {
                rig.app_ping(b"app");
                rig.run(rig.elapsed() + SECOND);
            }
            let end = 7 * SECOND + window.unwrap_or(90 * SECOND);
            rig.assert_ended(EngineVerdict::Timeout, end, end);
            assert_eq!(rig.engine.stats().missed, 1);
        }
    }
}
