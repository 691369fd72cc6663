//! The one timer of a session, armed lazily: a deadline that moves later is only noticed when the timer fires.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::task::coop::unconstrained;
use tokio::time::{Sleep, sleep_until};

/// Returns the time of the runtime's clock, which tests pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Fires at the armed instant or a little later.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
    /// The waker that the sleep is registered with: while the task keeps it, the sleep need not be polled again.
    waker: Option<Waker>,
}

impl Timer {
    /// Returns whether the armed instant has passed; the timer is disarmed then, and must be armed anew.
    #[inline]
    pub(super) fn fired(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(at) = self.armed else { return false };
        let is_registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let fired = at <= now || !is_registered && self.poll(cx).is_ready();
        if fired {
            self.armed = None;
        }
        fired
    }

    /// Makes the timer fire at `deadline` at the latest.
    pub(super) fn arm(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|at| at <= deadline) {
            return;
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline.into()),
            None => self.sleep = Some(Box::pin(sleep_until(deadline.into()))),
        }
        self.armed = Some(deadline);
        if self.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Polls the sleep outside the task's cooperative budget. Inside it, a poll after the budget is spent returns Pending
    /// without a registration, and a timer that is then believed to be registered never fires.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        self.waker = Some(cx.waker().clone());
        pin!(unconstrained(poll_fn(|cx| sleep.as_mut().poll(cx)))).poll(cx)
    }
}

#[cfg(test)]
pub(in crate::relay) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use tokio::task::coop::poll_proceed;
    use tokio::time::{Instant, advance};

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Uses up what the task may do before it must yield.
    pub(in crate::relay) fn spend_budget() {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(restore) = poll_proceed(&mut cx) {
            restore.made_progress();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s52_a_timer_armed_with_the_budget_spent_fires() {
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut timer = Timer::default();
        // In a task, for only there is a budget.
        let deadline = Instant::now() + Duration::from_secs(1);
        spend_budget();
        timer.arm(Some(deadline.into_std()), &mut cx);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "not due yet");
        tokio::task::yield_now().await;
        advance(Duration::from_millis(1001)).await;
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the wake-up of the deadline");
        assert!(timer.fired(&mut cx, Instant::now().into_std()));
    }
}
