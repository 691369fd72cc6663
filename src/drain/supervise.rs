//! The course of a drain: announce, wait, close the ports, close every session, wait for the rest.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use super::close_schedule::CloseSchedule;
use super::{DrainPhase, DrainState, Shutdown};
use crate::registry::Registry;
use crate::suspension::{Deadline, Expiry};

/// The interval of looking for sessions whose upgrade was in progress when the drain began.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The interval of the progress lines of a drain.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The outcome of a supervised drain.
#[derive(Debug, PartialEq, Eq)]
pub enum WorkOutcome<T> {
    /// All work ended by itself.
    Ended(T),
    /// Some work was left at the deadline.
    OutOfTime,
    /// An abort was requested.
    Aborted,
}

/// Waits for a drain, carries it out, and waits for `work`, for at most the plan's bound.
///
/// `work` that ends before any drain is reported as [`WorkOutcome::Ended`].
pub async fn supervise<T>(shutdown: &Shutdown, registry: &Registry, work: impl Future<Output = T>) -> WorkOutcome<T> {
    let mut work = std::pin::pin!(work);
    let plan = loop {
        tokio::select! {
            // Two requests in a row may have ended the work before this is polled, which was an abort.
            biased;
            () = shutdown.announced() => {}
            result = &mut work => return WorkOutcome::Ended(result),
        }
        let DrainState { plan, turn, .. } = announce(shutdown, registry);
        // The time is that of load balancers, which go on while this process is paused.
        let over = Deadline::fixed(Instant::now() + plan.delay);
        tokio::select! {
            biased;
            () = shutdown.aborting().cancelled() => return WorkOutcome::Aborted,
            result = &mut work => return WorkOutcome::Ended(result),
            () = shutdown.cancelled(turn) => {}
            () = shutdown.0.app_ended.cancelled() => {}
            () = Expiry::new(over) => {}
        }
        if shutdown.close_ports(turn) {
            break plan;
        }
        tracing::info!(phase = DrainPhase::Serving.as_str(), sessions = registry.len(), "drain");
    };
    let began = Instant::now();
    tracing::info!(
        phase = shutdown.phase().as_str(),
        sessions = registry.len(),
        window_s = plan.window.as_secs_f64(),
        bound_s = plan.bound_of_draining().as_secs_f64(),
        "drain"
    );
    let mut farewell = CloseSchedule::begin(registry, &plan, began);
    let mut sweep = interval(SWEEP_INTERVAL);
    let mut report = interval_at(began + REPORT_INTERVAL, REPORT_INTERVAL);
    for ticks in [&mut sweep, &mut report] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    }
    // Sessions scheduled within a pause of the process are sent their Close after it; from then on they have as much
    // time as any other.
    let deadline = Deadline::since(began, plan.bound_of_draining()).with_min_after_pause(plan.grace + plan.margin);
    let mut out_of_time = Expiry::new(deadline);
    loop {
        let now = Instant::now();
        farewell.close_due(now);
        let next = farewell.next();
        let next_close = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.aborting().cancelled() => return WorkOutcome::Aborted,
            result = &mut work => return WorkOutcome::Ended(result),
            () = &mut out_of_time => return WorkOutcome::OutOfTime,
            now = sweep.tick() => farewell.add_new(registry, now),
            () = next_close => {}
            now = report.tick() => tracing::info!(
                phase = shutdown.phase().as_str(),
                sessions = registry.len(),
                told = farewell.closed(),
                left_s = deadline.at().saturating_duration_since(now).as_secs_f64(),
                "drain"
            ),
        }
    }
}

/// Logs the announcement and returns its state; the plan in it is carried out even if a reload changes the settings.
fn announce(shutdown: &Shutdown, registry: &Registry) -> DrainState {
    let course = shutdown.course();
    let plan = course.plan;
    tracing::info!(
        phase = course.phase.as_str(),
        sessions = registry.len(),
        delay_s = plan.delay.as_secs_f64(),
        window_s = plan.window.as_secs_f64(),
        close.code = plan.code,
        bound_s = plan.bound().as_secs_f64(),
        afterwards = course.afterwards.as_str(),
        "drain"
    );
    course
}

#[cfg(test)]
mod tests;
