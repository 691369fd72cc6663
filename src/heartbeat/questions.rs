//! Whose question does a client's message answer? The heartbeat messages that went to it, in the order of the wire.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::MAX_OUTSTANDING;

/// The questions that a client has yet to answer. Their answers all look alike, so they are attributed first in,
/// first out.
#[derive(Debug, Default)]
pub(super) struct Questions {
    outstanding: VecDeque<Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    ours: bool,
    asked: Instant,
    /// `None` until it has left for the wire.
    sent: Option<Instant>,
}

/// The question that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// Whether it was the proxy's own.
    pub(super) ours: bool,
    /// Its round trip, where it had left before.
    pub(super) rtt: Option<Duration>,
}

impl Questions {
    /// One of the proxy's own goes out.
    pub(super) fn ours(&mut self, now: Instant) {
        self.enter(Question { ours: true, asked: now, sent: None });
    }

    /// One of the app's goes out. What the proxy asked more than `stale` ago and nobody answered no longer counts: it
    /// would take the app's answer.
    pub(super) fn apps(&mut self, now: Instant, stale: Duration) {
        let is_stale = |question: &Question| question.ours && now.saturating_duration_since(question.asked) > stale;
        while self.outstanding.front().is_some_and(is_stale) {
            self.outstanding.pop_front();
        }
        self.enter(Question { ours: false, asked: now, sent: None });
    }

    /// Everything that was asked so far has left for the wire.
    pub(super) fn left(&mut self, now: Instant) {
        for question in self.outstanding.iter_mut().rev() {
            if question.sent.replace(question.sent.unwrap_or(now)).is_some() {
                break;
            }
        }
    }

    /// The client has answered the oldest one; `None` if it was asked nothing.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Answered> {
        let Question { ours, sent, .. } = self.outstanding.pop_front()?;
        Some(Answered { ours, rtt: sent.map(|sent| now.saturating_duration_since(sent)) })
    }

    fn enter(&mut self, question: Question) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(20);

    fn ours(questions: &mut Questions, now: Instant) -> Option<bool> {
        questions.answered(now).map(|answered| answered.ours)
    }

    #[test]
    fn s45_answers_are_attributed_in_wire_order() {
        let mut questions = Questions::default();
        let now = crate::any_instant();
        questions.ours(now);
        questions.apps(now, STALE);
        questions.apps(now, STALE);
        questions.ours(now);
        let whose: Vec<_> = (0..5).map(|_| ours(&mut questions, now)).collect();
        assert_eq!(whose, [Some(true), Some(false), Some(false), Some(true), None]);
    }

    #[test]
    fn a_round_trip_is_measured_from_its_own_question() {
        let mut questions = Questions::default();
        let base = crate::any_instant();
        let at = |ms| base + Duration::from_millis(ms);
        questions.ours(at(0));
        questions.left(at(5));
        questions.ours(at(1000));
        questions.left(at(1010));
        questions.ours(at(2000));
        let rtt = |questions: &mut Questions, ms| questions.answered(at(ms)).and_then(|answered| answered.rtt);
        assert_eq!(rtt(&mut questions, 1105), Some(Duration::from_millis(1100)));
        assert_eq!(rtt(&mut questions, 1110), Some(Duration::from_millis(100)));
        assert_eq!(rtt(&mut questions, 2001), None, "it has not left");
    }

    #[test]
    fn what_was_never_answered_does_not_take_the_apps_answer() {
        let mut questions = Questions::default();
        let base = crate::any_instant();
        questions.ours(base);
        questions.apps(base + STALE + Duration::from_millis(1), STALE);
        assert_eq!(ours(&mut questions, base + STALE * 2), Some(false));
        questions.ours(base);
        questions.apps(base + STALE, STALE);
        assert_eq!(ours(&mut questions, base + STALE), Some(true), "it may still be answered");
    }

    #[test]
    fn the_questions_are_bounded() {
        let mut questions = Questions::default();
        for _ in 0..1000 {
            questions.apps(crate::any_instant(), STALE);
        }
        assert_eq!(questions.outstanding.len(), MAX_OUTSTANDING);
    }
}
