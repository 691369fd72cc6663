//! hyper's timers, with the lateness of this process allowed for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use crate::suspension::{Deadline, Expiry};

/// The timer of hyper's servers: hyper reads what has arrived before it polls a sleep, and a sleep takes a pause of the
/// process into account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PauseTimer;

#[derive(Debug)]
struct PauseSleep(Expiry);

/// The span from now to `at`.
fn until(at: Instant) -> Deadline {
    let now = tokio::time::Instant::now();
    Deadline::since(now, at.saturating_duration_since(now.into_std()))
}

impl Timer for PauseTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(PauseSleep(Expiry::after(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(PauseSleep(Expiry::new(until(deadline))))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<PauseSleep>() {
            Some(mut sleep) => sleep.0.reset(until(new_deadline)),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

impl Future for PauseSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Sleep for PauseSleep {}
