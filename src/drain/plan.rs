//! The settings of a drain, and the time limit of the whole end: the drain, and then the app's own end.

use std::time::Duration;

use crate::config::{Drain, Settings};
use crate::session::RESTART;

/// The time that sessions and requests get beyond `close_grace` before they are aborted, for writing a Close to a slow
/// client and finishing a request in progress.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// The time between SIGTERM and SIGKILL of an app that pulsegate has started, unless a [`StopBudget`] allows more or less.
pub const APP_GRACE: Duration = Duration::from_secs(5);

/// The share of the budget that remains for the exit itself, up to [`RESERVE_MAX`].
const RESERVE_SHARE: u32 = 10;

/// The greatest reserve for the exit itself.
const RESERVE_MAX: Duration = Duration::from_millis(500);

/// The share of the budget that the window of a drain keeps: without any, all clients would reconnect at once.
const WINDOW_SHARE: u32 = 5;

/// The settings of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The time for which connections are accepted after the announcement.
    pub delay: Duration,
    /// The time over which sessions are closed, once no more connections are accepted.
    pub window: Duration,
    /// The close code sent to clients (RFC 6455 §7.4).
    pub code: u16,
    /// The time for a peer to answer a Close: the longest `close_grace` of any route.
    pub grace: Duration,
    /// The time beyond `grace` for slow clients and for requests in progress.
    pub margin: Duration,
}

impl Plan {
    /// Returns the plan that `settings` describe.
    pub fn of(settings: &Settings) -> Self {
        let Drain { delay, window, code, .. } = settings.drain;
        Self { delay, window, code, grace: settings.close_grace(), margin: DRAIN_MARGIN }
    }

    /// Returns the maximum duration of the drain, from its announcement.
    pub fn bound(&self) -> Duration {
        self.delay + self.bound_of_draining()
    }

    /// As [`bound`](Self::bound), from the end of accepting.
    pub(super) fn bound_of_draining(&self) -> Duration {
        self.window + self.grace + self.margin
    }
}

impl Default for Plan {
    /// Returns a plan without delay, window or grace.
    fn default() -> Self {
        let none = Duration::ZERO;
        Self { delay: none, window: none, code: RESTART, grace: none, margin: DRAIN_MARGIN }
    }
}

/// The time from the request of the exit to the SIGKILL of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopBudget(Duration);

impl StopBudget {
    /// Returns the budget of a platform that kills the process after `limit`.
    pub fn of(limit: Duration) -> Self {
        Self(limit)
    }

    /// Returns `plan` shortened so that it ends within the budget with time left for the app: first its delay, then its
    /// window, down to a fifth of the budget, then the times that peers and the app have, in proportion.
    pub fn fit(self, plan: Plan) -> Plan {
        let usable = self.usable();
        let margins = plan.grace + plan.margin + APP_GRACE;
        let excess = (plan.delay + plan.window + margins).saturating_sub(usable);
        let delay = plan.delay.saturating_sub(excess);
        let excess = excess.saturating_sub(plan.delay);
        let least = plan.window.min(usable / WINDOW_SHARE);
        let window = plan.window.saturating_sub(excess).max(least);
        let share = usable.saturating_sub(delay + window).as_secs_f64() / margins.as_secs_f64();
        let share = share.min(1.0);
        Plan { delay, window, grace: plan.grace.mul_f64(share), margin: plan.margin.mul_f64(share), ..plan }
    }

    /// Returns the time that the app has to end, `elapsed` after the request of the exit.
    pub fn left_for_app(self, elapsed: Duration) -> Duration {
        self.usable().saturating_sub(elapsed)
    }

    fn usable(self) -> Duration {
        self.0 - (self.0 / RESERVE_SHARE).min(RESERVE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The defaults, with a `close_grace` of 2 s.
    fn usual() -> Plan {
        Plan { delay: 5 * SECOND, window: 15 * SECOND, grace: 2 * SECOND, ..Plan::default() }
    }

    #[test]
    fn a_budget_that_is_long_enough_changes_nothing() {
        let whole = usual().bound() + APP_GRACE;
        assert_eq!(StopBudget::of(whole + RESERVE_MAX).fit(usual()), usual());
        assert_eq!(StopBudget::of(90 * SECOND).left_for_app(30 * SECOND), 60 * SECOND - RESERVE_MAX);
    }

    #[test]
    fn the_delay_is_cut_first_then_the_window_then_the_margins() {
        let fit = |limit: f64| StopBudget::of(Duration::from_secs_f64(limit)).fit(usual());
        let by_delay = fit(30.0);
        assert_eq!(by_delay, Plan { delay: Duration::from_millis(2500), ..usual() });
        let by_window = fit(20.5);
        assert_eq!(by_window, Plan { delay: Duration::ZERO, window: 8 * SECOND, ..usual() });
        let by_margins = fit(10.0);
        assert_eq!((by_margins.delay, by_margins.window), (Duration::ZERO, Duration::from_millis(1900)));
        assert!(by_margins.grace < 2 * SECOND && by_margins.margin < 5 * SECOND, "{by_margins:?}");
    }

    #[test]
    fn drain_and_app_fit_what_platforms_allow() {
        for limit in [1.6, 5.0, 10.0, 30.0, 90.0].map(Duration::from_secs_f64) {
            let plan = StopBudget::of(limit).fit(usual());
            let app = StopBudget::of(limit).left_for_app(plan.bound());
            assert!(plan.bound() + app < limit, "{limit:?}: {plan:?}, then {app:?}");
            assert!(app >= limit / 4 || app >= APP_GRACE, "{limit:?}: {app:?} for the app");
            assert!(plan.window >= limit / 6, "{limit:?}: a window of {:?}", plan.window);
        }
    }

    #[test]
    fn a_plan_without_a_window_gets_none() {
        let plan = Plan { window: Duration::ZERO, ..usual() };
        assert_eq!(StopBudget::of(SECOND).fit(plan).window, Duration::ZERO);
    }
}
