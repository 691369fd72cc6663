//! The unanswered probe messages of one client, in wire order, which attribute each answer to its probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::MAX_OUTSTANDING;

/// The probe messages that a client has yet to answer. Their answers are indistinguishable, so they are attributed
/// first in, first out.
///
/// A client may leave a probe unanswered; every later answer would then be attributed to the probe before its own. A
/// probe that is stale when the next one is sent is therefore dropped. If it was the proxy's own, its answer may still
/// arrive late: it is the surplus after all others have been answered, and must not reach the app. A client that was
/// stuck catches up at once: an answer that has not arrived within one answer time after the next answer was skipped, and
/// a later message that resembles it is the client's own.
#[derive(Debug, Default)]
pub(super) struct AppProbes {
    outstanding: VecDeque<Question>,
    /// Dropped probes of the proxy that may still be answered; at most [`MAX_OUTSTANDING`].
    lapsed: usize,
    /// The time until which they may, once a later probe has been answered.
    lapsed_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    ours: bool,
    asked: Instant,
    /// The time at which it was written; `None` before.
    sent: Option<Instant>,
}

/// The probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// True if it was the proxy's own.
    pub(super) ours: bool,
    /// The round trip, if the probe had been written before.
    pub(super) rtt: Option<Duration>,
}

impl AppProbes {
    /// Adds a probe of the proxy; probes sent more than `stale` ago are dropped.
    pub(super) fn ours(&mut self, now: Instant, stale: Duration) {
        self.enter(Question { ours: true, asked: now, sent: None }, stale);
    }

    /// Adds a probe of the app; probes sent more than `stale` ago are dropped.
    pub(super) fn apps(&mut self, now: Instant, stale: Duration) {
        self.enter(Question { ours: false, asked: now, sent: None }, stale);
    }

    /// Records that all probes added so far have been written.
    pub(super) fn left(&mut self, now: Instant) {
        for question in self.outstanding.iter_mut().rev() {
            if question.sent.replace(question.sent.unwrap_or(now)).is_some() {
                break;
            }
        }
    }

    /// Attributes an answer of the client to the oldest probe; `None` if there is none. The answer to a dropped probe
    /// before it may follow within `stale`.
    pub(super) fn answered(&mut self, now: Instant, stale: Duration) -> Option<Answered> {
        if self.lapsed_until.is_some_and(|until| until < now) {
            self.lapsed = 0;
            self.lapsed_until = None;
        }
        if let Some(Question { ours, sent, .. }) = self.outstanding.pop_front() {
            if self.lapsed > 0 && self.lapsed_until.is_none() {
                self.lapsed_until = now.checked_add(stale);
            }
            return Some(Answered { ours, rtt: sent.map(|sent| now.saturating_duration_since(sent)) });
        }
        self.lapsed = self.lapsed.checked_sub(1)?;
        Some(Answered { ours: true, rtt: None })
    }

    /// Records that the client was not read between `from` and `now`: its answers may be unread.
    pub(super) fn reads_paused_between(&mut self, from: Instant, now: Instant) {
        for question in &mut self.outstanding {
            question.asked += now.saturating_duration_since(from.max(question.asked));
        }
        if let Some(until) = &mut self.lapsed_until {
            *until += now.saturating_duration_since(from);
        }
    }

    /// Returns the number of outstanding probes.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.outstanding.len()
    }

    fn enter(&mut self, question: Question, stale: Duration) {
        let lapses = |oldest: &Question| question.asked.saturating_duration_since(oldest.asked) > stale;
        while self.outstanding.front().is_some_and(lapses) || self.outstanding.len() == MAX_OUTSTANDING {
            if self.outstanding.pop_front().is_some_and(|oldest| oldest.ours) {
                self.lapsed = MAX_OUTSTANDING.min(self.lapsed + 1);
                self.lapsed_until = None;
            }
        }
        self.outstanding.push_back(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(20);

    fn ours(questions: &mut AppProbes, now: Instant) -> Option<bool> {
        questions.answered(now, STALE).map(|answered| answered.ours)
    }

    #[test]
    fn s45_answers_are_attributed_in_wire_order() {
        let mut questions = AppProbes::default();
        let now = crate::any_instant();
        questions.ours(now, STALE);
        questions.apps(now, STALE);
        questions.apps(now, STALE);
        questions.ours(now, STALE);
        let whose: Vec<_> = (0..5).map(|_| ours(&mut questions, now)).collect();
        assert_eq!(whose, [Some(true), Some(false), Some(false), Some(true), None]);
    }

    #[test]
    fn a_round_trip_is_measured_from_its_own_question() {
        let mut questions = AppProbes::default();
        let base = crate::any_instant();
        let at = |ms| base + Duration::from_millis(ms);
        questions.ours(at(0), STALE);
        questions.left(at(5));
        questions.ours(at(1000), STALE);
        questions.left(at(1010));
        questions.ours(at(2000), STALE);
        let rtt = |questions: &mut AppProbes, ms| questions.answered(at(ms), STALE).and_then(|answered| answered.rtt);
        assert_eq!(rtt(&mut questions, 1105), Some(Duration::from_millis(1100)));
        assert_eq!(rtt(&mut questions, 1110), Some(Duration::from_millis(100)));
        assert_eq!(rtt(&mut questions, 2001), None, "it has not left");
    }

    #[test]
    fn what_was_never_answered_does_not_take_the_answer_to_a_later_question() {
        let base = crate::any_instant();
        let soon = Duration::from_millis(1);
        for skipped_is_ours in [true, false] {
            let mut questions = AppProbes::default();
            questions.enter(Question { ours: skipped_is_ours, asked: base, sent: None }, STALE);
            let now = base + STALE + soon;
            questions.ours(now, STALE);
            questions.left(now);
            let answered = questions.answered(now + soon, STALE);
            assert_eq!(answered, Some(Answered { ours: true, rtt: Some(soon) }), "{skipped_is_ours}");
            questions.apps(now + soon * 2, STALE);
            assert_eq!(ours(&mut questions, now + soon * 3), Some(false), "{skipped_is_ours}");
        }
    }

    #[test]
    fn what_is_not_stale_may_still_be_answered() {
        let mut questions = AppProbes::default();
        let base = crate::any_instant();
        questions.ours(base, STALE);
        questions.apps(base + STALE, STALE);
        assert_eq!(ours(&mut questions, base + STALE), Some(true));
        assert_eq!(ours(&mut questions, base + STALE), Some(false));
    }

    #[test]
    fn a_late_answer_to_an_own_question_is_ours_all_the_same() {
        // The client is silent for three probes, one of them the app's, and then answers all of them.
        let mut questions = AppProbes::default();
        let base = crate::any_instant();
        questions.ours(base, STALE);
        questions.apps(base + STALE * 2, STALE);
        questions.ours(base + STALE * 4, STALE);
        let whose: Vec<_> = (0..4).map(|_| ours(&mut questions, base + STALE * 5)).collect();
        assert_eq!(
            whose,
            [Some(true), Some(true), None, None],
            "the app's own was given up: it gets what is left over"
        );
    }

    #[test]
    fn s46_what_looks_like_the_answer_to_a_question_skipped_long_ago_is_the_clients_own() {
        let base = crate::any_instant();
        for (later, expected) in [(STALE, Some(true)), (STALE + Duration::from_millis(1), None)] {
            let mut questions = AppProbes::default();
            questions.ours(base, STALE);
            questions.ours(base + STALE * 2, STALE);
            assert_eq!(ours(&mut questions, base + STALE * 3), Some(true), "the second one's, the first has lapsed");
            assert_eq!(ours(&mut questions, base + STALE * 3 + later), expected, "{later:?} later");
        }
        let mut unread = AppProbes::default();
        unread.ours(base, STALE);
        unread.ours(base + STALE * 2, STALE);
        let at = base + STALE * 3;
        assert!(unread.answered(at, Duration::MAX).is_some(), "an answer behind a frame that goes on");
        assert_eq!(ours(&mut unread, at + STALE * 100), Some(true));
    }

    #[test]
    fn the_questions_are_bounded() {
        let mut questions = AppProbes::default();
        let now = crate::any_instant();
        for _ in 0..1000 {
            questions.apps(now, STALE);
            questions.ours(now, STALE);
        }
        assert_eq!(questions.outstanding.len(), MAX_OUTSTANDING);
        let answers = (0..1000).map_while(|_| questions.answered(now, STALE)).count();
        assert_eq!(answers, 2 * MAX_OUTSTANDING);
    }
}
