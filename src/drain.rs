//! The orderly end: signals, the phases it passes through, and the farewell to all sessions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::relay::{Control, Order};

/// What sessions and requests get beyond `close_grace` before they are cut off: time to write a Close to a slow
/// client, and to answer a request that is under way.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(8);

/// How often sessions are looked for whose upgrade was under way when the drain began.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How far the end has come. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted.
    Serving,
    /// No new connections; sessions are being closed and requests finished.
    Draining,
    /// What is left is dropped.
    Aborting,
}

/// Who may move the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// SIGTERM and SIGINT as well as the program.
    Signals,
    /// The program alone.
    Program,
}

/// The handle of the end: whoever holds a clone may ask for it, and may wait for it.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<State>);

#[derive(Debug)]
struct State {
    trigger: Trigger,
    phase: Mutex<Phase>,
    draining: CancellationToken,
    aborting: CancellationToken,
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
        Self(Arc::new(State {
            trigger,
            phase: Mutex::new(Phase::Serving),
            draining: CancellationToken::new(),
            aborting: CancellationToken::new(),
        }))
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step towards the end, as a signal makes it: serving → draining → aborting. Returns the new phase.
    pub fn advance(&self) -> Phase {
        self.enter(|phase| if phase == Phase::Serving { Phase::Draining } else { Phase::Aborting })
    }

    /// Drops what is left.
    pub fn abort(&self) {
        self.enter(|_| Phase::Aborting);
    }

    /// Cancelled once no more connections are to be accepted.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Cancelled once what is left is to be dropped.
    pub fn aborting(&self) -> &CancellationToken {
        &self.0.aborting
    }

    /// Starts to listen to signals, if this is one that does; needs a runtime.
    pub(crate) fn signals(&self) -> io::Result<Signals> {
        let sources = match self.0.trigger {
            Trigger::Signals => Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)),
            Trigger::Program => None,
        };
        Ok(Signals { sources, shutdown: self.clone() })
    }

    /// Starts to listen to SIGHUP, if this is one that listens to signals; needs a runtime.
    pub(crate) fn hangups(&self) -> io::Result<Hangups> {
        let source = match self.0.trigger {
            Trigger::Signals => Some(signal(SignalKind::hangup())?),
            Trigger::Program => None,
        };
        Ok(Hangups(source))
    }

    fn enter(&self, next: impl FnOnce(Phase) -> Phase) -> Phase {
        let mut phase = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = next(*phase);
        if *phase >= Phase::Draining {
            self.0.draining.cancel();
        }
        if *phase >= Phase::Aborting {
            self.0.aborting.cancel();
        }
        *phase
    }
}

/// Completes at the next SIGINT or SIGTERM, for commands that have nothing to drain; needs a runtime.
///
/// Where signals cannot be listened to they keep their usual meaning, and this never completes.
pub async fn interrupted() {
    match Shutdown::on_signals().signals() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    };
}

/// SIGTERM and SIGINT, from their installation on.
#[derive(Debug)]
pub(crate) struct Signals {
    sources: Option<(Signal, Signal)>,
    shutdown: Shutdown,
}

impl Signals {
    /// Moves the phase at every signal.
    pub(crate) async fn drive(mut self) -> Infallible {
        loop {
            let name = self.next().await;
            let phase = self.shutdown.advance();
            tracing::info!(name, ?phase, "signal");
        }
    }

    async fn next(&mut self) -> &'static str {
        let Some((terminate, interrupt)) = &mut self.sources else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, from its installation on: not an end, but a wish for a new beginning with another configuration.
#[derive(Debug)]
pub(crate) struct Hangups(Option<Signal>);

impl Hangups {
    /// Completes at the next one; several that come at once are one.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(source) => drop(source.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// How the wait for the end came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// All work has ended by itself.
    Ended(T),
    /// Some was left when the time was up.
    OutOfTime,
    /// Somebody asked to drop what is left.
    Aborted,
}

/// Waits for the drain, tells every session to end, and waits for `work`, at most `bound`, which is asked for then.
///
/// `work` that ends before any drain is reported as it is.
pub(crate) async fn supervise<T>(
    shutdown: &Shutdown,
    registry: &Registry,
    bound: impl FnOnce() -> Duration,
    work: impl Future<Output = T>,
) -> Outcome<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        // Two requests in a row may have ended the work before this is polled: that was an abort.
        biased;
        () = shutdown.draining().cancelled() => {}
        result = &mut work => return Outcome::Ended(result),
    }
    let bound = bound();
    tracing::info!(sessions = registry.len(), bound_s = bound.as_secs_f64(), "draining");
    let mut farewell = Farewell::default();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut deadline = std::pin::pin!(tokio::time::sleep(bound));
    loop {
        tokio::select! {
            biased;
            () = shutdown.aborting().cancelled() => return Outcome::Aborted,
            result = &mut work => return Outcome::Ended(result),
            () = &mut deadline => return Outcome::OutOfTime,
            _ = sweep.tick() => farewell.tell_new_ones(registry),
        }
    }
}

/// Tells each session once. An upgrade may be under way when the drain begins, so one look at the registry is not
/// enough; a session must not be told twice, since it may be waiting for its peer's Close already.
#[derive(Default)]
struct Farewell {
    /// By address, which stays unique because the handle is kept.
    told: HashMap<usize, Arc<Control>>,
}

impl Farewell {
    fn tell_new_ones(&mut self, registry: &Registry) {
        for control in registry.all() {
            self.told.entry(Arc::as_ptr(&control).addr()).or_insert_with(|| {
                control.give(Order::Drain);
                control
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::UpstreamPulse;

    #[test]
    fn phases_only_move_forward() {
        let shutdown = Shutdown::on_request();
        assert_eq!(shutdown.phase(), Phase::Serving);
        assert_eq!(shutdown.advance(), Phase::Draining);
        assert!(shutdown.draining().is_cancelled() && !shutdown.aborting().is_cancelled());
        assert_eq!(shutdown.advance(), Phase::Aborting);
        assert!(shutdown.aborting().is_cancelled());
        assert_eq!(shutdown.advance(), Phase::Aborting);

        let at_once = Shutdown::on_request();
        at_once.abort();
        assert!(at_once.draining().is_cancelled(), "an abort is the end of accepting too");
    }

    #[tokio::test(start_paused = true)]
    async fn every_session_is_told_even_one_that_enters_late() {
        let shutdown = Shutdown::on_request();
        let registry = Arc::new(Registry::new(1));
        let pulse = Arc::new(UpstreamPulse::new(std::time::Instant::now()));
        let early = Arc::new(Control::default());
        let late = Arc::new(Control::default());
        let _early = registry.enter(registry.next_id(), Arc::clone(&early), &pulse);
        let work = async {
            assert_eq!(early.take(), None, "nobody is told while serving");
            shutdown.advance();
            tokio::time::sleep(SWEEP_INTERVAL / 2).await;
            assert_eq!(early.take(), Some(Order::Drain), "told at once");
            let _late = registry.enter(registry.next_id(), Arc::clone(&late), &pulse);
            tokio::time::sleep(SWEEP_INTERVAL).await;
            assert_eq!(late.take(), Some(Order::Drain), "told at the next sweep");
            tokio::time::sleep(SWEEP_INTERVAL * 3).await;
            assert_eq!((early.take(), late.take()), (None, None), "nobody is told twice");
        };
        let outcome = supervise(&shutdown, &registry, Duration::from_mins(1), work).await;
        assert_eq!(outcome, Outcome::Ended(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_bounded() {
        let shutdown = Shutdown::on_request();
        shutdown.advance();
        let began = tokio::time::Instant::now();
        let bound = Duration::from_secs(3);
        let outcome = supervise(&shutdown, &Registry::new(1), bound, std::future::pending::<()>()).await;
        assert_eq!(outcome, Outcome::OutOfTime);
        assert_eq!(began.elapsed(), bound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_aborts_at_once() {
        let shutdown = Shutdown::on_request();
        shutdown.advance();
        shutdown.advance();
        let work = std::future::pending::<()>();
        let outcome = supervise(&shutdown, &Registry::new(1), Duration::from_secs(3), work).await;
        assert_eq!(outcome, Outcome::Aborted);
    }

    #[tokio::test]
    async fn work_that_ends_by_itself_is_reported() {
        let outcome = supervise(&Shutdown::on_request(), &Registry::new(1), Duration::ZERO, async { 7 }).await;
        assert_eq!(outcome, Outcome::Ended(7));
    }
}
