//! The orderly end: who asks for it, the phases it passes through, and the farewell to all sessions.
//!
//! ```text
//! Serving ⇄ Announced → Draining → Drained
//!               ↘           ↘
//!                Aborting    Aborting
//! ```
//!
//! [`Shutdown`] is the state. It moves forward, but for one step: an announcement that a command has made, and no signal,
//! can be cancelled. `supervise` lets the time pass.

mod farewell;
mod signals;
mod supervise;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Drain, Settings};
use crate::session::RESTART;
pub(crate) use signals::Hangups;
pub use signals::interrupted;
pub use supervise::{Outcome, supervise};

/// What sessions and requests get beyond `close_grace` before they are cut off: time to write a Close to a slow
/// client, and to answer a request that is under way.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// The phases of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted.
    Serving,
    /// They still are, but whoever asks is told that they will not be for long.
    Announced,
    /// No new connections; sessions are being closed and requests finished.
    Draining,
    /// Nothing is left.
    Drained,
    /// What is left is dropped.
    Aborting,
}

impl Phase {
    /// The word for logs and answers.
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

/// How a drain goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How long connections are accepted after the announcement.
    pub delay: Duration,
    /// The time over which sessions are told, once no more are accepted.
    pub window: Duration,
    /// What their clients are told (RFC 6455 §7.4).
    pub code: u16,
    /// How long a session's Close may go unanswered, on the route that waits the longest.
    pub grace: Duration,
}

impl Plan {
    /// What `settings` ask for.
    pub fn of(settings: &Settings) -> Self {
        let Drain { delay, window, code, .. } = settings.drain;
        Self { delay, window, code, grace: settings.close_grace() }
    }

    /// How long the whole takes at most, from the announcement on.
    pub fn bound(&self) -> Duration {
        self.delay + self.bound_of_draining()
    }

    /// As [`bound`](Self::bound), from the end of accepting on.
    fn bound_of_draining(&self) -> Duration {
        self.window + self.grace + DRAIN_MARGIN
    }
}

impl Default for Plan {
    /// All at once.
    fn default() -> Self {
        Self { delay: Duration::ZERO, window: Duration::ZERO, code: RESTART, grace: Duration::ZERO }
    }
}

/// Who may move the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// SIGTERM and SIGINT as well as the program.
    Signals,
    /// The program alone.
    Program,
}

/// What follows when nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    /// The process stays, drained, until somebody asks it to end.
    Stay,
    /// The process ends.
    Exit,
}

impl Afterwards {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Exit => "exit",
        }
    }
}

/// The reasons for which a drain cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CancelError {
    /// Connections are refused and sessions are being closed, or it is over.
    #[error("the drain cannot be cancelled any more: it is past `drain.delay`, and the ports are closed")]
    PortsClosed,
    /// A signal has asked for the end of the process.
    #[error("the drain cannot be cancelled: SIGTERM or SIGINT asked for the end of the process")]
    Exiting,
}

/// The handle of the end: whoever holds a clone may ask for it, and may wait for it.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<State>);

#[derive(Debug)]
struct State {
    trigger: Trigger,
    course: watch::Sender<Course>,
    draining: CancellationToken,
    aborting: CancellationToken,
    exiting: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Course {
    phase: Phase,
    since: SystemTime,
    afterwards: Afterwards,
    /// The plan of the next announcement.
    prepared: Plan,
    plan: Plan,
    /// Counts announcements and cancellations, so that an earlier announcement is told from a later one.
    turn: u64,
    /// The time of the last cancellation.
    cancelled_at: Option<SystemTime>,
}

impl Course {
    /// Moves forward to `phase`.
    fn enter(&mut self, phase: Phase) {
        if phase > self.phase {
            if self.phase == Phase::Serving {
                self.turn += 1;
                self.plan = self.prepared;
            }
            (self.phase, self.since) = (phase, SystemTime::now());
        }
    }

    fn cancel(&mut self) -> Result<(), CancelError> {
        match (self.phase, self.afterwards) {
            (Phase::Serving, _) => Ok(()),
            (Phase::Announced, Afterwards::Stay) => {
                let now = SystemTime::now();
                (self.phase, self.since, self.cancelled_at) = (Phase::Serving, now, Some(now));
                self.turn += 1;
                Ok(())
            }
            (Phase::Announced, Afterwards::Exit) => Err(CancelError::Exiting),
            (Phase::Draining | Phase::Drained | Phase::Aborting, _) => Err(CancelError::PortsClosed),
        }
    }
}

impl Shutdown {
    /// Ends on SIGTERM or SIGINT; a second signal aborts.
    pub fn on_signals() -> Self {
        Self::new(Trigger::Signals)
    }

    /// Ends when the program says so; signals keep the meaning they had.
    pub fn on_request() -> Self {
        Self::new(Trigger::Program)
    }

    fn new(trigger: Trigger) -> Self {
        let course = Course {
            phase: Phase::Serving,
            since: SystemTime::now(),
            afterwards: Afterwards::Stay,
            prepared: Plan::default(),
            plan: Plan::default(),
            turn: 0,
            cancelled_at: None,
        };
        Self(Arc::new(State {
            trigger,
            course: watch::Sender::new(course),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
            exiting: CancellationToken::new(),
        }))
    }

    /// Makes `plan` what the next drain does; one that has been announced keeps its own.
    pub fn prepare(&self, plan: Plan) {
        self.change(|course| course.prepared = plan);
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.course().phase
    }

    /// Since when it has stood there.
    pub fn since(&self) -> SystemTime {
        self.course().since
    }

    /// The time of the last cancellation in this process.
    pub fn cancelled_at(&self) -> Option<SystemTime> {
        self.course().cancelled_at
    }

    /// One step towards the end, as a signal makes it. The first one asks for a drain and for the exit behind it, also
    /// where a drain is under way that nobody asked to exit after; the second one aborts. Returns the phase that
    /// holds then.
    pub fn advance(&self) -> Phase {
        self.change(|course| match (course.phase, course.afterwards) {
            (Phase::Serving, _) => {
                course.afterwards = Afterwards::Exit;
                course.enter(Phase::Announced);
            }
            (Phase::Announced | Phase::Draining, Afterwards::Exit) => course.enter(Phase::Aborting),
            (Phase::Announced | Phase::Draining | Phase::Drained, _) => course.afterwards = Afterwards::Exit,
            (Phase::Aborting, _) => {}
        });
        self.phase()
    }

    /// Asks for a drain, and for no exit behind it: the process stays until a signal ends it. Asking again changes
    /// nothing. Returns the phase that holds then.
    pub fn drain(&self) -> Phase {
        self.change(|course| course.enter(course.phase.max(Phase::Announced)));
        self.phase()
    }

    /// Cancels a drain that is only announced, and that no signal asked for: the proxy serves as before. Does nothing
    /// where no drain is announced.
    pub fn cancel(&self) -> Result<(), CancelError> {
        self.change(Course::cancel)
    }

    /// Drops what is left, and ends.
    pub fn abort(&self) {
        self.change(|course| course.enter(Phase::Aborting));
    }

    /// Completes once the end has been announced.
    pub async fn announced(&self) {
        self.until(|course| course.phase >= Phase::Announced).await;
    }

    /// Completes once no end is announced.
    pub async fn serving(&self) {
        self.until(|course| course.phase == Phase::Serving).await;
    }

    /// Cancelled once no more connections are to be accepted.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Cancelled once what is left is to be dropped: in an abort, and when a drain is out of time.
    pub fn aborting(&self) -> &CancellationToken {
        &self.0.aborting
    }

    /// Completes once the announcement of this `turn` has been cancelled.
    async fn cancelled(&self, turn: u64) {
        self.until(|course| course.turn != turn).await;
    }

    /// Ends the delay of the announcement of this `turn`; returns whether it is still the one in force.
    fn close_ports(&self, turn: u64) -> bool {
        self.change(|course| {
            let is_in_force = course.turn == turn;
            if is_in_force {
                course.enter(Phase::Draining);
            }
            is_in_force
        })
    }

    /// A drain is out of time: what is left is to be dropped.
    pub(crate) fn cut(&self) {
        self.0.aborting.cancel();
    }

    /// Nothing is left; completes once the process is to end.
    pub(crate) async fn settle(&self) {
        self.change(|course| course.enter(Phase::Drained));
        let phase = self.phase();
        tracing::info!(phase = phase.as_str(), afterwards = self.course().afterwards.as_str(), "drain");
        self.0.exiting.cancelled().await;
    }

    async fn until(&self, is_so: impl FnMut(&Course) -> bool) {
        // The sender lives as long as `self`: there is no error.
        let _ = self.0.course.subscribe().wait_for(is_so).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Course) -> T) -> T {
        let mut outcome = None;
        self.0.course.send_modify(|course| {
            outcome = Some(change(course));
            let Course { phase, afterwards, .. } = *course;
            for (token, is_due) in [
                (&self.0.draining, phase >= Phase::Draining),
                (&self.0.aborting, phase == Phase::Aborting),
                (&self.0.exiting, afterwards == Afterwards::Exit || phase == Phase::Aborting),
            ] {
                if is_due {
                    token.cancel();
                }
            }
        });
        outcome.expect("send_modify calls its closure once")
    }

    fn course(&self) -> Course {
        *self.0.course.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns whether the end is announced, and which of draining, aborting and exiting are cancelled.
    fn cancelled(shutdown: &Shutdown) -> [bool; 4] {
        let State { draining, aborting, exiting, .. } = &*shutdown.0;
        let [draining, aborting, exiting] = [draining, aborting, exiting].map(CancellationToken::is_cancelled);
        [shutdown.phase() >= Phase::Announced, draining, aborting, exiting]
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
        assert_eq!((shutdown.cancel(), shutdown.phase()), (Ok(()), Phase::Serving));
        assert_eq!(shutdown.cancelled_at(), Some(shutdown.since()));
        assert_eq!(cancelled(&shutdown), [false; 4]);
        shutdown.cancelled(turn).await;
        shutdown.serving().await;
        assert!(!shutdown.close_ports(turn), "the delay of a cancelled announcement closes no port");
        shutdown.drain();
        assert_eq!(shutdown.course().plan, plan(2), "the plan of the second announcement");
        assert!(!shutdown.close_ports(turn), "nor does it cut the next one short");
        shutdown.cancelled(turn).await;
        assert_eq!(shutdown.advance(), Phase::Announced, "a signal asks for the exit");
        assert_eq!((shutdown.cancel(), shutdown.phase()), (Err(CancelError::Exiting), Phase::Announced));
        close_ports(&shutdown);
        assert_eq!(shutdown.cancel(), Err(CancelError::PortsClosed));
        let drained = Shutdown::on_request();
        drained.drain();
        close_ports(&drained);
        drained.change(|course| course.enter(Phase::Drained));
        assert_eq!((drained.cancel(), drained.phase()), (Err(CancelError::PortsClosed), Phase::Drained));
    }

    #[test]
    fn the_first_signal_drains_and_the_second_aborts() {
        for ports_closed in [false, true] {
            let shutdown = Shutdown::on_request();
            assert_eq!((shutdown.phase(), cancelled(&shutdown)), (Phase::Serving, [false; 4]));
            assert_eq!(shutdown.advance(), Phase::Announced);
            assert_eq!(cancelled(&shutdown), [true, false, false, true]);
            if ports_closed {
                close_ports(&shutdown);
                assert_eq!((shutdown.phase(), cancelled(&shutdown)), (Phase::Draining, [true, true, false, true]));
            }
            assert_eq!(shutdown.advance(), Phase::Aborting);
            assert_eq!(cancelled(&shutdown), [true; 4], "an abort is the end of accepting too");
            assert_eq!(shutdown.advance(), Phase::Aborting);
        }
    }

    #[test]
    fn a_drain_may_be_asked_for_twice_and_never_leads_back() {
        let shutdown = Shutdown::on_request();
        assert_eq!(shutdown.drain(), Phase::Announced);
        let since = shutdown.since();
        assert_eq!(shutdown.drain(), Phase::Announced, "not an abort");
        assert_eq!((shutdown.since(), cancelled(&shutdown)), (since, [true, false, false, false]));
        close_ports(&shutdown);
        assert_eq!(shutdown.drain(), Phase::Draining);
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
            assert_eq!(shutdown.advance(), Phase::Aborting);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_drained_waits_for_a_signal_unless_one_has_come() {
        let asked = Shutdown::on_request();
        asked.advance();
        asked.settle().await;
        assert_eq!(asked.phase(), Phase::Drained);

        let stays = Shutdown::on_request();
        stays.drain();
        let settled = tokio::time::timeout(1000 * SECOND, stays.settle()).await;
        assert!(settled.is_err(), "nobody has asked for the exit");
        assert_eq!(stays.phase(), Phase::Drained);
        assert_eq!(stays.advance(), Phase::Drained, "there is nothing to abort");
        stays.settle().await;
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
        let plan = Plan { delay: 5 * SECOND, window: 15 * SECOND, code: 1012, grace: 2 * SECOND };
        assert_eq!(plan.bound(), 22 * SECOND + DRAIN_MARGIN);
        assert!(plan.bound() < 30 * SECOND, "Kubernetes and systemd's unit wait no longer by default");
    }
}
