//! The close schedule of a drain: all sessions, spread over the window.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Plan;
use crate::registry::Registry;
use crate::relay::{Control, SessionOrder};

/// Returns the times at which `count` sessions are closed, from the beginning of `window`, in ascending order.
///
/// Each session has an equal share of the window, and its time lies at random in the middle half of that share. The
/// times are evenly spread, no two proxies are in step, and no second has more than twice the mean (rounded up),
/// because k times span more than k - 3/2 shares. `random` returns numbers from 0 up to, but not including, 1.
pub(super) fn close_times(
    count: usize,
    window: Duration,
    mut random: impl FnMut() -> f64,
) -> impl Iterator<Item = Duration> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    (0..count)
        .map(move |index| window.mul_f64((f64::from(index) + 0.25 + 0.5 * random()) / f64::from(count)).min(window))
}

/// The schedule that closes each session exactly once. An upgrade may be in progress when the drain begins, so the
/// registry is read repeatedly; a second order would disturb a session that already waits for its peer's Close.
#[derive(Debug)]
pub(super) struct CloseSchedule {
    order: SessionOrder,
    /// The end of the window.
    end: Instant,
    /// All sessions found so far, by address, which stays unique because the handle is kept.
    known: HashMap<usize, Arc<Control>>,
    /// The sessions still to be closed, with their times.
    due: BTreeSet<(Instant, usize)>,
}

impl CloseSchedule {
    /// Schedules every session of `registry`.
    pub(super) fn begin(registry: &Registry, plan: &Plan, now: Instant) -> Self {
        let mut sessions = registry.all();
        // Neighbours in the registry often share a page, a host or a connection.
        fastrand::shuffle(&mut sessions);
        let mut farewell = Self {
            order: SessionOrder::Drain { code: plan.code },
            end: now + plan.window,
            known: HashMap::with_capacity(sessions.len()),
            due: BTreeSet::new(),
        };
        for (session, time) in sessions.iter().zip(close_times(sessions.len(), plan.window, fastrand::f64)) {
            farewell.add(session, now + time);
        }
        farewell
    }

    /// Schedules sessions opened since the last call within the rest of the window.
    pub(super) fn add_new(&mut self, registry: &Registry, now: Instant) {
        let left = self.end.saturating_duration_since(now);
        for session in registry.all() {
            if !self.known.contains_key(&address(&session)) {
                self.add(&session, now + left.mul_f64(fastrand::f64()));
            }
        }
    }

    /// Closes the sessions that are due.
    pub(super) fn close_due(&mut self, now: Instant) {
        while let Some((_, address)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.known[address].give(self.order.clone());
            self.due.pop_first();
        }
    }

    /// Returns the time of the next close.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns the number of sessions that have been sent the order to close.
    pub(super) fn closed(&self) -> usize {
        self.known.len() - self.due.len()
    }

    fn add(&mut self, session: &Arc<Control>, at: Instant) {
        let address = address(session);
        self.known.insert(address, Arc::clone(session));
        self.due.insert((at, address));
    }
}

fn address(session: &Arc<Control>) -> usize {
    Arc::as_ptr(session).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of `times` in each second of `window`.
    fn per_second(times: &[Duration], window: Duration) -> Vec<usize> {
        let seconds = usize::try_from(window.as_secs()).expect("a short window") + 1;
        let mut buckets = vec![0; seconds];
        for time in times {
            buckets[usize::try_from(time.as_secs()).expect("within the window")] += 1;
        }
        buckets
    }

    /// Returns twice the mean of a second, rounded up, as sessions are whole.
    fn most(count: usize, window: Duration) -> usize {
        (2000 * count).div_ceil(usize::try_from(window.as_millis()).expect("a short window")).max(1)
    }

    #[test]
    fn no_second_holds_more_than_twice_the_mean_whatever_the_dice_say() {
        let counts = (0..=200).chain([999, 1000, 1001, 5000, 20_011]);
        for count in counts {
            for window in [1000, 1500, 7300, 10_000, 15_000, 60_000].map(Duration::from_millis) {
                let mut turn = 0;
                let mut dice = fastrand::Rng::with_seed(count as u64);
                let mut alternating = || {
                    turn += 1;
                    if turn % 2 == 0 { 0.0 } else { 0.999_999 }
                };
                let all: [Vec<Duration>; 4] = [
                    close_times(count, window, || 0.0).collect(),
                    close_times(count, window, || 0.999_999).collect(),
                    close_times(count, window, &mut alternating).collect(),
                    close_times(count, window, || dice.f64()).collect(),
                ];
                for times in all {
                    assert_eq!(times.len(), count);
                    assert!(times.is_sorted() && times.iter().all(|time| *time <= window));
                    let buckets = per_second(&times, window);
                    let fullest = buckets.iter().max().copied().unwrap_or_default();
                    assert!(fullest <= most(count, window), "{count} in {window:?}: {buckets:?}");
                }
            }
        }
    }

    #[test]
    fn no_two_drains_are_in_step_and_the_whole_window_is_used() {
        let window = Duration::from_secs(15);
        let draw = |seed| -> Vec<Duration> {
            let mut dice = fastrand::Rng::with_seed(seed);
            close_times(100, window, move || dice.f64()).collect()
        };
        let (one, other) = (draw(1), draw(2));
        let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
        assert!(same < 5, "{same} of 100 at the same time");
        let buckets = per_second(&one, window);
        assert!(buckets[..15].iter().all(|count| *count >= 3), "{buckets:?}");
    }

    #[test]
    fn without_a_window_all_are_told_at_once() {
        assert!(close_times(5000, Duration::ZERO, || 0.7).all(|time| time.is_zero()));
    }
}
