//! The one timer of a session, armed lazily: a deadline that moves later is only noticed when the timer fires.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Fires at the armed instant or a little later.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
    /// Whom the sleep wakes: while that is the same task, it need not be polled.
    waker: Option<Waker>,
}

impl Timer {
    /// Whether the armed instant has passed; the timer is disarmed then, and must be armed anew.
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker = Some(cx.waker().clone());
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}
