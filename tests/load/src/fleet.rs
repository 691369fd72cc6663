//! Many sessions, or clients of plain requests, that obey the same orders.
//!
//! Each has a task of its own. It dials when a permit is free, reports, and then runs the scenario's work. The session
//! is driven all the time: one that waits for an order still answers pings.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::dial::{DialError, Dialer, ProxiedSession};
use crate::fetch::Client;
use crate::session::{Manners, SessionError, Turn};

/// One session of a fleet, as its task holds it. `O` is the scenario's type of orders.
#[derive(Debug)]
pub struct Member<O, S = ProxiedSession> {
    /// The session's number.
    pub index: usize,
    /// The open session.
    pub session: S,
    orders: watch::Receiver<O>,
    reports: Arc<watch::Sender<usize>>,
}

impl<O> Member<O> {
    /// Drives the session until `wanted` returns a value for the current order.
    pub async fn hold<T>(&mut self, wanted: impl Fn(&O) -> Option<T>) -> Result<T, SessionError> {
        loop {
            if let Some(found) = wanted(&self.orders.borrow_and_update()) {
                return Ok(found);
            }
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() {
                    // No task is left to give orders: the scenario has failed elsewhere.
                    std::future::pending::<()>().await;
                },
                turn = self.session.turn() => if turn? == Turn::Ended {
                    return Err(self.session.ended());
                },
            }
        }
    }
}

impl<O> Member<O, Client> {
    /// Waits until `wanted` returns a value for the current order. A client receives nothing without a request, so that
    /// it need not be driven meanwhile.
    pub async fn wait<T>(&mut self, wanted: impl Fn(&O) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.orders.borrow_and_update()) {
                return found;
            }
            if self.orders.changed().await.is_err() {
                // No task is left to give orders: the scenario has failed elsewhere.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl<O, S> Member<O, S> {
    /// Reports to the fleet that another step is done. Opening was the first.
    pub fn report(&self) {
        self.reports.send_modify(|count| *count += 1);
    }
}

/// The settings for opening sessions.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Sessions that may be opening at once.
    pub at_once: usize,
    /// The reaction of the sessions to pings.
    pub manners: Manners,
}

/// The tasks of all members. Dropping it ends every session.
#[derive(Debug)]
pub struct Fleet<O, T> {
    size: usize,
    orders: watch::Sender<O>,
    reports: watch::Receiver<usize>,
    tasks: JoinSet<Result<T>>,
    results: Vec<T>,
}

impl<O, T> Fleet<O, T>
where
    O: Send + Sync + 'static,
    T: Send + 'static,
{
    /// Opens the sessions `numbers` and runs `work` on each. The order at the beginning is `first`.
    pub fn launch<F, W>(dialer: &Arc<Dialer>, numbers: Range<usize>, opening: Opening, first: O, work: F) -> Self
    where
        F: Fn(Member<O>) -> W + Clone + Send + 'static,
        W: Future<Output = Result<T>> + Send,
    {
        let dialer = Arc::clone(dialer);
        let open = move |index| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.dial(index, opening.manners).await }
        };
        Self::of(open, numbers, opening.at_once, first, work)
    }

    /// Opens clients of plain requests in the same way, `at_once` of them at a time.
    pub fn of_clients<F, W>(dialer: &Arc<Dialer>, count: usize, at_once: usize, first: O, work: F) -> Self
    where
        F: Fn(Member<O, Client>) -> W + Clone + Send + 'static,
        W: Future<Output = Result<T>> + Send,
    {
        let dialer = Arc::clone(dialer);
        let open = move |index| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.client(index).await }
        };
        Self::of(open, 0..count, at_once, first, work)
    }

    fn of<S, D, C, F, W>(open: D, numbers: Range<usize>, at_once: usize, first: O, work: F) -> Self
    where
        S: Send,
        D: Fn(usize) -> C + Clone + Send + 'static,
        C: Future<Output = Result<S, DialError>> + Send,
        F: Fn(Member<O, S>) -> W + Clone + Send + 'static,
        W: Future<Output = Result<T>> + Send,
    {
        let (orders, _) = watch::channel(first);
        let (reports_in, reports) = watch::channel(0);
        let reports_in = Arc::new(reports_in);
        let permits = Arc::new(Semaphore::new(at_once));
        let mut tasks = JoinSet::new();
        let size = numbers.len();
        for index in numbers {
            let open = open.clone();
            let permits = Arc::clone(&permits);
            let reports = Arc::clone(&reports_in);
            let orders = orders.subscribe();
            let work = work.clone();
            tasks.spawn(async move {
                let permit = permits.acquire().await?;
                let session = open(index).await.with_context(|| format!("session {index}"))?;
                drop(permit);
                let member = Member { index, session, orders, reports };
                member.report();
                work(member).await.with_context(|| format!("session {index}"))
            });
        }
        Self { size, orders, reports, tasks, results: Vec::new() }
    }

    /// Waits until `count` reports have arrived. Fails as soon as one session fails.
    pub async fn reported(&mut self, count: usize, patience: Duration) -> Result<()> {
        let wait = async {
            loop {
                if *self.reports.borrow_and_update() >= count {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    Some(result) = self.tasks.join_next() => self.results.push(flatten(result)?),
                    changed = self.reports.changed() => if changed.is_err() {
                        // No session is left to report; their results contain the cause.
                        while let Some(result) = self.tasks.join_next().await {
                            self.results.push(flatten(result)?);
                        }
                        bail!("all sessions ended too early");
                    },
                }
            }
        };
        match timeout(patience, wait).await {
            Ok(result) => result,
            Err(_) => bail!("after {patience:?}, {} of {count} sessions are ready", *self.reports.borrow()),
        }
    }

    /// Waits until all sessions are open. Each dial has a deadline of its own, so that this one can be generous.
    pub async fn opened(&mut self) -> Result<()> {
        let each = Duration::from_millis(100) * u32::try_from(self.size)?;
        self.reported(self.size, Duration::from_secs(60) + each).await.context("opening the sessions")
    }

    /// Gives every session the next order.
    pub fn order(&self, order: O) {
        self.orders.send_replace(order);
    }

    /// Waits for the end of all sessions' work and returns its results in no particular order.
    pub async fn finish(mut self, patience: Duration) -> Result<Vec<T>> {
        let wait = async {
            while let Some(result) = self.tasks.join_next().await {
                self.results.push(flatten(result)?);
            }
            Ok(())
        };
        match timeout(patience, wait).await {
            Ok(result) => result.map(|()| self.results),
            Err(_) => bail!("after {patience:?}, {} of {} sessions have not finished", self.tasks.len(), self.size),
        }
    }
}

fn flatten<T>(joined: Result<Result<T>, JoinError>) -> Result<T> {
    joined.context("a session's task failed")?
}
