//! The proxy's process, which can be stopped and continued as by SIGSTOP and SIGCONT. Its kernel continues meanwhile:
//! it receives and acknowledges what arrives.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::transport::now;

/// The proxy's process.
#[derive(Debug, Default)]
pub struct Process {
    /// The stops so far: their beginnings and ends, in order.
    stops: RefCell<Vec<(Duration, Duration)>>,
    /// Set while a task runs for the first time after a stop. Timers fire first then: no stream is known to be
    /// readable.
    is_unaware: Rc<Cell<bool>>,
}

impl Process {
    /// Stops the process from `at` on for the time `lasts`.
    pub fn stop(&self, at: Duration, lasts: Duration) {
        self.stops.borrow_mut().push((at, at + lasts));
    }

    /// Returns the flag that is set while no stream may be read.
    pub fn unaware(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.is_unaware)
    }

    /// Returns the end of the stop that lasts at `at`, or `at` itself.
    pub fn awake(&self, at: Duration) -> Duration {
        self.stops.borrow().iter().fold(at, |at, (from, until)| if (*from..*until).contains(&at) { *until } else { at })
    }

    /// Returns the total length of the stops between two instants.
    pub fn stopped_between(&self, from: Duration, to: Duration) -> Duration {
        let stops = self.stops.borrow();
        let covered = |(begin, end): &(Duration, Duration)| (*end).min(to).saturating_sub((*begin).max(from));
        stops.iter().map(covered).sum()
    }

    /// Runs a task of the process.
    pub fn task<F: Future>(self: &Rc<Self>, work: F) -> Task<F> {
        Task { process: Rc::clone(self), work: Box::pin(work), ran: Duration::ZERO, alarm: None }
    }
}

/// A task of the process.
pub struct Task<F> {
    process: Rc<Process>,
    work: Pin<Box<F>>,
    /// The time of its last run.
    ran: Duration,
    /// The end of the stop.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let now = now();
        let awake = this.process.awake(now);
        if awake > now {
            let mut alarm = Box::pin(sleep(awake - now));
            if alarm.as_mut().poll(cx).is_pending() {
                this.alarm = Some(alarm);
                return Poll::Pending;
            }
        }
        this.alarm = None;
        let was_stopped = this.process.stopped_between(this.ran, now) > Duration::ZERO;
        this.ran = now;
        this.process.is_unaware.set(was_stopped);
        let outcome = this.work.as_mut().poll(cx);
        this.process.is_unaware.set(false);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_stops_is_known() {
        let second = Duration::from_secs(1);
        let process = Process::default();
        process.stop(10 * second, 5 * second);
        process.stop(20 * second, second);
        assert_eq!(process.awake(9 * second), 9 * second);
        assert_eq!(process.awake(10 * second), 15 * second);
        assert_eq!(process.awake(15 * second), 15 * second);
        assert_eq!(process.stopped_between(Duration::ZERO, 30 * second), 6 * second);
        assert_eq!(process.stopped_between(12 * second, 13 * second), second);
        assert_eq!(process.stopped_between(15 * second, 20 * second), Duration::ZERO);
    }
}
