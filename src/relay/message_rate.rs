//! The rate at which a client may send messages: a bucket of one second.

use std::time::{Duration, Instant};

use crate::suspension::Credit;

/// The capacity of the bucket, in time.
const BUCKET: Duration = Duration::from_secs(1);

/// Messages that a client may still send. A second's worth may come at once; after that, as many as the rate gives.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The time that one message takes out of the bucket.
    each: Duration,
    /// The time at which the bucket is full again.
    full: Instant,
    /// Since when the client's messages were held up here: they came earlier than they are read.
    held_up: Option<Instant>,
    /// For what piled up while the process was stopped.
    credit: Credit,
}

impl Allowance {
    /// `rate` messages a second.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self { each: BUCKET / rate.max(1), full: now, held_up: None, credit: Credit::since(now.into()) }
    }

    /// Takes one message; `false` where it is one too many.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full = self.full.max(self.held_up.unwrap_or(now)) + self.each;
        let fits = full <= now + BUCKET;
        if fits {
            self.full = full;
        }
        fits || self.credit.take(self.each)
    }

    /// Nothing is read because the app takes nothing: what the client sends meanwhile will come all at once, and that
    /// is no fault of its own.
    pub(super) fn hold_up(&mut self, now: Instant) {
        self.held_up.get_or_insert(now);
    }

    /// All that has come is read.
    pub(super) fn catch_up(&mut self) {
        self.held_up = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any_instant;

    const SECOND: Duration = Duration::from_secs(1);

    fn burst(allowance: &mut Allowance, now: Instant) -> usize {
        (0..10_000).take_while(|_| allowance.take(now)).count()
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_the_rate_holds() {
        let start = any_instant();
        for rate in [1, 3, 7, 1000] {
            let mut allowance = Allowance::new(rate, start);
            assert_eq!(burst(&mut allowance, start), rate as usize);
            assert_eq!(burst(&mut allowance, start + SECOND / 2), rate as usize / 2, "half of it is back");
            assert_eq!(burst(&mut allowance, start + 60 * SECOND), rate as usize, "never more than a second's worth");
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        let start = any_instant();
        let mut allowance = Allowance::new(50, start);
        for message in 0..5000 {
            assert!(allowance.take(start + message * SECOND / 50), "message {message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s78_what_piled_up_in_a_stop_is_allowed_once() {
        let now = || tokio::time::Instant::now().into_std();
        let test = async {
            let mut allowance = Allowance::new(10, now());
            assert_eq!(burst(&mut allowance, now()), 10);
            tokio::time::advance(20 * SECOND).await;
            let messages = burst(&mut allowance, now());
            assert!((210..=216).contains(&messages), "twenty seconds' worth, and the bucket: {messages}");
            tokio::time::sleep(SECOND / 2).await;
            assert_eq!(burst(&mut allowance, now()), 5, "from then on the rate holds");
        };
        crate::suspension::with_pause_record(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn s78_a_stop_in_the_middle_of_a_poll_is_credited_once() {
        let now = || tokio::time::Instant::now().into_std();
        let test = async {
            let begun = now();
            let mut allowance = Allowance::new(10, begun);
            assert_eq!(burst(&mut allowance, begun), 10);
            tokio::time::advance(20 * SECOND).await;
            // The poll began before the stop, and its instant holds for all that it reads.
            let messages = burst(&mut allowance, begun);
            assert!((200..=206).contains(&messages), "twenty seconds' worth: {messages}");
        };
        crate::suspension::with_pause_record(test).await;
    }

    #[test]
    fn what_was_held_up_here_counts_when_it_was_sent() {
        let start = any_instant();
        let mut allowance = Allowance::new(10, start);
        allowance.hold_up(start);
        allowance.hold_up(start + 3 * SECOND);
        // The app takes bytes again after four seconds, in which the client has kept to the rate.
        let now = start + 4 * SECOND;
        assert_eq!(burst(&mut allowance, now), 50, "four seconds' worth, and the bucket");
        allowance.catch_up();
        assert!(!allowance.take(now));
        assert_eq!(burst(&mut allowance, now + 10 * SECOND), 10, "what was not used then is lost");
    }
}
