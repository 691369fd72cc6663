//! The drain: its phases, the handle that starts it, and the close of all sessions.
//!
//! ```text
//! Serving ⇄ Announced → Draining → Drained
//!               ↘           ↘
//!                Aborting    Aborting
//! ```
//!
//! [`Shutdown`] holds the state. Phases only move forward, with one exception: an announcement made by a command,
//! without a signal, can be cancelled. `supervise` carries out the phases over time.

mod close_schedule;
mod plan;
mod signals;
mod supervise;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use plan::{APP_GRACE, DRAIN_MARGIN, Plan, StopBudget};
pub(crate) use signals::Hangups;
pub use signals::interrupted;
pub use supervise::{WorkOutcome, supervise};

/// The phases of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Connections are accepted.
    Serving,
    /// Connections are still accepted, but readiness reports that they soon will not be.
    Announced,
    /// No connections are accepted; sessions are being closed and requests finished.
    Draining,
    /// No session and no request is left.
    Drained,
    /// Everything left is dropped.
    Aborting,
}

impl DrainPhase {
    /// Returns the label for logs and API responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Announced => "announced",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Aborting => "aborting",
        }
    }
}

/// The effect of a SIGHUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnHangup {
    /// It requests a reload.
    Reload,
    /// It requests the exit, as SIGTERM does: the terminal is gone.
    Exit,
}

/// The sources that may move the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// SIGTERM and SIGINT as well as the program.
    Signals,
    /// A thread of [`Shutdown::on_signals_from_now`], and the program.
    Thread(OnHangup),
    /// The program alone.
    Program,
}

/// The action after a completed drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterDrain {
    /// The process stays, drained, until it is asked to exit.
    Stay,
    /// The process exits.
    Exit,
}

impl AfterDrain {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Exit => "exit",
        }
    }
}

/// A reason for which a drain cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CancelError {
    /// Connections are refused and sessions are being closed, or the drain has ended.
    #[error("the drain cannot be cancelled any more: it is past `drain.delay`, and the ports are closed")]
    PortsClosed,
    /// A signal has requested the exit of the process.
    #[error("the drain cannot be cancelled: SIGTERM or SIGINT asked for the end of the process")]
    Exiting,
}

/// The handle of a shutdown: every clone can start the drain and wait for its phases.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<State>);

#[derive(Debug)]
struct State {
    trigger: Trigger,
    /// The time limit of the whole end, the app's included; `None` is unlimited.
    budget: Option<StopBudget>,
    course: watch::Sender<DrainState>,
    draining: CancellationToken,
    aborting: CancellationToken,
    exiting: CancellationToken,
    /// Cancelled once `drain.delay` is of no use, since the app has ended.
    app_ended: CancellationToken,
    /// Cancelled by a signal for which nothing of the drain is left to abort.
    insisted: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct DrainState {
    phase: DrainPhase,
    since: SystemTime,
    afterwards: AfterDrain,
    /// The plan of the next announcement.
    prepared: Plan,
    plan: Plan,
    /// The number of announcements and cancellations so far, which identifies one announcement.
    turn: u64,
    /// The time of the last cancellation.
    cancelled_at: Option<SystemTime>,
    /// The time of the first request of the exit.
    exit_requested_at: Option<Instant>,
}

impl DrainState {
    /// Requests the exit after the drain.
    fn request_exit(&mut self) {
        self.afterwards = AfterDrain::Exit;
        self.exit_requested_at.get_or_insert_with(Instant::now);
    }

    /// Moves forward to `phase`; an earlier phase has no effect.
    fn enter(&mut self, phase: DrainPhase) {
        if phase > self.phase {
            if self.phase == DrainPhase::Serving {
                self.turn += 1;
                self.plan = self.prepared;
            }
            (self.phase, self.since) = (phase, SystemTime::now());
        }
    }

    fn cancel(&mut self) -> Result<(), CancelError> {
        match (self.phase, self.afterwards) {
            (DrainPhase::Serving, _) => Ok(()),
            (DrainPhase::Announced, AfterDrain::Stay) => {
                let now = SystemTime::now();
                (self.phase, self.since, self.cancelled_at) = (DrainPhase::Serving, now, Some(now));
                self.turn += 1;
                Ok(())
            }
            (DrainPhase::Announced, AfterDrain::Exit) => Err(CancelError::Exiting),
            (DrainPhase::Draining | DrainPhase::Drained | DrainPhase::Aborting, _) => Err(CancelError::PortsClosed),
        }
    }
}

impl Shutdown {
    /// Creates a handle that SIGTERM and SIGINT drain; a second signal aborts.
    pub fn on_signals() -> Self {
        Self::new(Trigger::Signals, None)
    }

    /// Creates a handle that only the program drains; signals keep their present meaning.
    pub fn on_request() -> Self {
        Self::new(Trigger::Program, None)
    }

    fn new(trigger: Trigger, budget: Option<StopBudget>) -> Self {
        let course = DrainState {
            phase: DrainPhase::Serving,
            since: SystemTime::now(),
            afterwards: AfterDrain::Stay,
            prepared: Plan::default(),
            plan: Plan::default(),
            turn: 0,
            cancelled_at: None,
            exit_requested_at: None,
        };
        Self(Arc::new(State {
            trigger,
            budget,
            course: watch::Sender::new(course),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
            exiting: CancellationToken::new(),
            app_ended: CancellationToken::new(),
            insisted: CancellationToken::new(),
        }))
    }

    /// Sets the plan of the next drain, shortened to the time limit of the end if there is one; a drain that has been
    /// announced keeps its own.
    pub fn prepare(&self, plan: Plan) {
        let plan = self.0.budget.map_or(plan, |budget| budget.fit(plan));
        self.change(|course| course.prepared = plan);
    }

    /// Returns the current phase.
    pub fn phase(&self) -> DrainPhase {
        self.course().phase
    }

    /// Returns the time at which the current phase began.
    pub fn since(&self) -> SystemTime {
        self.course().since
    }

    /// Returns the time of the last cancellation in this process.
    pub fn cancelled_at(&self) -> Option<SystemTime> {
        self.course().cancelled_at
    }

    /// Moves one step towards the exit, as a signal does. The first step requests a drain and the exit after it, also
    /// for a drain in progress that has no exit requested; the second step aborts. Returns the resulting phase.
    ///
    /// A step with nothing left to abort is the one that [`insisted`](Self::insisted) waits for.
    pub fn advance(&self) -> DrainPhase {
        let mut insists = false;
        self.change(|course| match (course.phase, course.afterwards) {
            (DrainPhase::Serving, _) => {
                course.request_exit();
                course.enter(DrainPhase::Announced);
            }
            (DrainPhase::Announced | DrainPhase::Draining, AfterDrain::Exit) => course.enter(DrainPhase::Aborting),
            (DrainPhase::Announced | DrainPhase::Draining | DrainPhase::Drained, AfterDrain::Stay) => {
                course.request_exit();
            }
            (DrainPhase::Drained, AfterDrain::Exit) | (DrainPhase::Aborting, _) => insists = true,
        });
        if insists {
            self.0.insisted.cancel();
        }
        self.phase()
    }

    /// Requests the exit because the app has ended: a drain whose delay is cut, as every request would fail now.
    pub fn app_ended(&self) {
        self.change(|course| {
            course.request_exit();
            course.enter(course.phase.max(DrainPhase::Announced));
        });
        self.0.app_ended.cancel();
    }

    /// Completes at a signal for which nothing of the drain is left to abort.
    pub async fn insisted(&self) {
        self.0.insisted.cancelled().await;
    }

    /// Returns the time of the first request of the exit.
    pub fn exit_requested_at(&self) -> Option<Instant> {
        self.course().exit_requested_at
    }

    /// Requests a drain without an exit: the process then stays until a signal ends it. Repeated requests have no
    /// effect. Returns the resulting phase.
    pub fn drain(&self) -> DrainPhase {
        self.change(|course| course.enter(course.phase.max(DrainPhase::Announced)));
        self.phase()
    }

    /// Cancels a drain that is only announced and that no signal requested: the proxy serves as before. Has no effect
    /// if no drain is announced.
    ///
    /// # Errors
    ///
    /// [`CancelError`] once the ports are closed or a signal has requested the exit.
    pub fn cancel(&self) -> Result<(), CancelError> {
        self.change(DrainState::cancel)
    }

    /// Aborts: drops everything left, and exits.
    pub fn abort(&self) {
        self.change(|course| course.enter(DrainPhase::Aborting));
    }

    /// Completes once a drain is announced.
    pub async fn announced(&self) {
        self.until(|course| course.phase >= DrainPhase::Announced).await;
    }

    /// Completes once no drain is announced.
    pub async fn serving(&self) {
        self.until(|course| course.phase == DrainPhase::Serving).await;
    }

    /// Returns the token cancelled once connections are no longer accepted.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Returns the token cancelled once everything left must be dropped: by an abort, or a drain out of time.
    pub fn aborting(&self) -> &CancellationToken {
        &self.0.aborting
    }

    /// Completes once the announcement of this `turn` has been cancelled.
    async fn cancelled(&self, turn: u64) {
        self.until(|course| course.turn != turn).await;
    }

    /// Ends the delay of the announcement of this `turn`; returns whether it is still in force.
    fn close_ports(&self, turn: u64) -> bool {
        self.change(|course| {
            let is_in_force = course.turn == turn;
            if is_in_force {
                course.enter(DrainPhase::Draining);
            }
            is_in_force
        })
    }

    /// Ends a drain that is out of time: everything left must be dropped.
    pub(crate) fn abort_remaining(&self) {
        self.0.aborting.cancel();
    }

    /// Enters `Drained`; completes once the process must exit.
    pub(crate) async fn finish(&self) {
        self.change(|course| course.enter(DrainPhase::Drained));
        let phase = self.phase();
        tracing::info!(phase = phase.as_str(), afterwards = self.course().afterwards.as_str(), "drain");
        self.0.exiting.cancelled().await;
    }

    async fn until(&self, is_so: impl FnMut(&DrainState) -> bool) {
        // The sender lives as long as `self`, so there is no error.
        let _ = self.0.course.subscribe().wait_for(is_so).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut DrainState) -> T) -> T {
        let mut outcome = None;
        self.0.course.send_modify(|course| {
            outcome = Some(change(course));
            let DrainState { phase, afterwards, .. } = *course;
            for (token, is_due) in [
                (&self.0.draining, phase >= DrainPhase::Draining),
                (&self.0.aborting, phase == DrainPhase::Aborting),
                (&self.0.exiting, afterwards == AfterDrain::Exit || phase == DrainPhase::Aborting),
            ] {
                if is_due {
                    token.cancel();
                }
            }
        });
        outcome.expect("send_modify calls its closure once")
    }

    fn course(&self) -> DrainState {
        *self.0.course.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

    /// Returns whether a drain is announced, and which of draining, aborting and exiting are cancelled.
    fn cancelled(shutdown: &Shutdown) -> [bool; 4] {
        let State { draining, aborting, exiting, .. } = &*shutdown.0;
        let [draining, aborting, exiting] = [draining, aborting, exiting].map(CancellationToken::is_cancelled);
        [shutdown.phase() >= DrainPhase::Announced, draining, aborting, exiting]
    }

    /// Ends the delay of the announcement in force.
    fn close_ports(shutdown: &Shutdown) {
        assert!(shutdown.close_ports(shutdown.course().turn), "it is in force");
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_of_a_command_can_be_cancelled_and_one_of_a_signal_cannot() {
        let shutdown = Shutdown::on_request();
        assert_eq!((shutdown.cancel(), shutdown.cancelled_at()), (Ok(()), None), "there is nothing to cancel");
        let plan = |seconds| Plan { window: seconds * SECOND, ..Plan::default() };
        shutdown.prepare(plan(1));
        shutdown.drain();
        let turn = shutdown.course().turn;
        shutdown.prepare(plan(2));
        assert_eq!((shutdown.cancel(), shutdown.phase()), (Ok(()), DrainPhase::Serving));
        assert_eq!(shutdown.cancelled_at(), Some(shutdown.since()));
        assert_eq!(cancelled(&shutdown), [false; 4]);
        shutdown.cancelled(turn).await;
        shutdown.serving().await;
        assert!(!shutdown.close_ports(turn), "the delay of a cancelled announcement closes no port");
        shutdown.drain();
        assert_eq!(shutdown.course().plan, plan(2), "the plan of the second announcement");
        assert!(!shutdown.close_ports(turn), "nor does it cut the next one short");
        shutdown.cancelled(turn).await;
        assert_eq!(shutdown.advance(), DrainPhase::Announced, "a signal asks for the exit");
        assert_eq!((shutdown.cancel(), shutdown.phase()), (Err(CancelError::Exiting), DrainPhase::Announced));
        close_ports(&shutdown);
        assert_eq!(shutdown.cancel(), Err(CancelError::PortsClosed));
        let drained = Shutdown::on_request();
        drained.drain();
        close_ports(&drained);
        drained.change(|course| course.enter(DrainPhase::Drained));
        assert_eq!((drained.cancel(), drained.phase()), (Err(CancelError::PortsClosed), DrainPhase::Drained));
    }

    #[test]
    fn the_first_signal_drains_and_the_second_aborts() {
        for ports_closed in [false, true] {
            let shutdown = Shutdown::on_request();
            assert_eq!((shutdown.phase(), cancelled(&shutdown)), (DrainPhase::Serving, [false; 4]));
            assert_eq!(shutdown.advance(), DrainPhase::Announced);
            assert_eq!(cancelled(&shutdown), [true, false, false, true]);
            if ports_closed {
                close_ports(&shutdown);
                assert_eq!((shutdown.phase(), cancelled(&shutdown)), (DrainPhase::Draining, [true, true, false, true]));
            }
            assert_eq!(shutdown.advance(), DrainPhase::Aborting);
            assert_eq!(cancelled(&shutdown), [true; 4], "an abort is the end of accepting too");
            assert_eq!(shutdown.advance(), DrainPhase::Aborting);
        }
    }

    #[test]
    fn a_drain_may_be_asked_for_twice_and_never_leads_back() {
        let shutdown = Shutdown::on_request();
        assert_eq!(shutdown.drain(), DrainPhase::Announced);
        let since = shutdown.since();
        assert_eq!(shutdown.drain(), DrainPhase::Announced, "not an abort");
        assert_eq!((shutdown.since(), cancelled(&shutdown)), (since, [true, false, false, false]));
        close_ports(&shutdown);
        assert_eq!(shutdown.drain(), DrainPhase::Draining);
        assert_eq!(cancelled(&shutdown), [true, true, false, false]);
    }

    #[test]
    fn a_signal_in_a_drain_that_stays_asks_for_the_exit_and_only_the_next_one_aborts() {
        for ports_closed in [false, true] {
            let shutdown = Shutdown::on_request();
            shutdown.drain();
            if ports_closed {
                close_ports(&shutdown);
            }
            let phase = shutdown.phase();
            assert_eq!(shutdown.advance(), phase);
            assert_eq!(cancelled(&shutdown), [true, ports_closed, false, true]);
            assert_eq!(shutdown.drain(), phase, "who asked for the exit shall have it");
            assert_eq!(cancelled(&shutdown), [true, ports_closed, false, true]);
            assert_eq!(shutdown.advance(), DrainPhase::Aborting);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_drained_waits_for_a_signal_unless_one_has_come() {
        let asked = Shutdown::on_request();
        asked.advance();
        asked.finish().await;
        assert_eq!(asked.phase(), DrainPhase::Drained);

        let stays = Shutdown::on_request();
        stays.drain();
        let settled = tokio::time::timeout(1000 * SECOND, stays.finish()).await;
        assert!(settled.is_err(), "nobody has asked for the exit");
        assert_eq!(stays.phase(), DrainPhase::Drained);
        assert_eq!(stays.advance(), DrainPhase::Drained, "there is nothing to abort");
        stays.finish().await;
    }

    #[test]
    fn the_plan_in_force_when_the_end_is_announced_is_carried_out() {
        let shutdown = Shutdown::on_request();
        let plan = |seconds| Plan { window: seconds * SECOND, ..Plan::default() };
        shutdown.prepare(plan(1));
        shutdown.prepare(plan(2));
        shutdown.drain();
        shutdown.prepare(plan(3));
        assert_eq!(shutdown.course().plan, plan(2));
    }

    #[test]
    fn the_whole_has_a_bound() {
        let plan = Plan { delay: 5 * SECOND, window: 15 * SECOND, grace: 2 * SECOND, ..Plan::default() };
        assert_eq!(plan.bound(), 22 * SECOND + DRAIN_MARGIN);
        assert!(plan.bound() < 30 * SECOND, "Kubernetes and systemd's unit wait no longer by default");
    }
}
