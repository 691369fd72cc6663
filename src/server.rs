//! Wiring: settings become listeners, worker threads and the stages that a connection passes.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Accept, Door};
use crate::config::watch::{Folders, Snapshot};
use crate::config::{Settings, Shown};
use crate::drain::{self, Outcome, Phase, Shutdown};
use crate::gate::Gate;
use crate::generation::{Current, Generation};
use crate::http::{self, Peer};
use crate::redirect::{Ports, Redirect};
use crate::registry::Registry;
use crate::reload::{self, Driver, Opened, Source};
use crate::telemetry::Levels;
use crate::telemetry::metrics::Metrics;
use crate::tls::{ClientStream, Terminator, TerminatorError, Terms};
use crate::upstream::{AppError, Apps, pulse};

/// How long the workers get to let go of what an abort leaves.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// A proxy whose ports are open, but nobody accepts yet: clients wait in the kernel's queue.
pub struct Server {
    current: Arc<Current>,
    address: SocketAddr,
    redirect: Option<SocketAddr>,
    listeners: Vec<Listeners>,
    follows: Option<Follows>,
}

/// The configuration of a server that takes up what becomes of it.
struct Follows {
    source: Source,
    loaded: (Snapshot, Shown),
    levels: Levels,
}

/// What one worker accepts from.
struct Listeners {
    tls: StdListener,
    redirect: Option<StdListener>,
}

/// Why the proxy could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The listening port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS side.
    #[error(transparent)]
    Tls(#[from] TerminatorError),
    /// The app's side.
    #[error(transparent)]
    Upstream(#[from] AppError),
}

/// Why the proxy ended otherwise than asked.
#[derive(Debug, Error)]
pub enum RunError {
    /// A runtime or thread could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// A worker came to its end while it should serve; the log line before tells why.
    #[error("a worker thread ended unexpectedly")]
    WorkerLost,
    /// A second signal cut the drain short.
    #[error("aborted while draining")]
    Aborted,
}

/// What all workers share.
struct Shared {
    current: Arc<Current>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
    ports: Ports,
    shutdown: Shutdown,
}

impl Server {
    /// Opens the listening ports, once for each worker.
    pub fn bind(settings: Settings, terms: impl Into<Terms>) -> Result<Self, StartError> {
        let apps = Apps::open(&settings, Instant::now())?;
        Self::with_apps(settings, terms.into(), apps)
    }

    /// As [`bind`](Self::bind) with what was `opened` of `source`, and follows that from then on, the log by `levels`.
    pub fn follow(source: Source, opened: Opened, levels: Levels) -> Result<Self, StartError> {
        let Opened { settings, shown, terms, apps, snapshot } = opened;
        let server = Self::with_apps(settings, terms, apps)?;
        Ok(Self { follows: Some(Follows { source, loaded: (snapshot, shown), levels }), ..server })
    }

    fn with_apps(settings: Settings, terms: Terms, apps: Apps) -> Result<Self, StartError> {
        let terminator = Arc::new(Terminator::new(terms)?);
        let workers = settings.listen.workers;
        let (address, tls) = open(settings.listen.address, workers)?;
        let (redirect, plain) = match settings.listen.redirect {
            Some(at) => open(at, workers).map(|(address, listeners)| (Some(address), listeners))?,
            None => (None, Vec::new()),
        };
        let plain = plain.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let listeners = tls.into_iter().zip(plain).map(|(tls, redirect)| Listeners { tls, redirect }).collect();
        let current = Current::new(Generation::first(Arc::new(settings), terminator, apps));
        Ok(Self { current, address, redirect, listeners, follows: None })
    }

    /// Where clients connect: the configured address with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients that speak plain HTTP are sent to https: the configured address with the real port.
    pub fn redirect_address(&self) -> Option<SocketAddr> {
        self.redirect
    }

    /// Serves until `shutdown` has run its course, on threads of its own; the caller's waits.
    pub fn run(self, shutdown: Shutdown) -> Result<(), RunError> {
        self.run_stage(shutdown, |shared, tracker, draining| {
            let (registry, metrics) = (Arc::clone(&shared.registry), Arc::clone(&shared.metrics));
            let edge = http::Edge::new(&shared.current, registry, metrics, tracker, draining);
            move |stream, peer| http::serve(stream, peer, Arc::clone(&edge))
        })
    }

    /// As [`run`](Self::run), with `stage` making what each worker does after the handshake.
    fn run_stage<S, N, F>(self, shutdown: Shutdown, stage: S) -> Result<(), RunError>
    where
        S: Fn(&Shared, TaskTracker, CancellationToken) -> N + Clone + Send + 'static,
        N: Fn(ClientStream, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let began = Instant::now();
        let metrics: Arc<Metrics> = Arc::default();
        let shared = Arc::new(Shared {
            gate: Arc::new(Gate::new(Arc::clone(&self.current), Arc::clone(&metrics))),
            ports: Ports { plain: self.redirect.map_or(0, |address| address.port()), tls: self.address.port() },
            current: self.current,
            registry: Arc::new(Registry::new(fastrand::u32(..))),
            metrics,
            shutdown,
        });
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let signals = shared.shutdown.signals()?;
            let reloads = reloads(&shared, self.follows)?;
            tracing::info!(
                address = %self.address,
                redirect = self.redirect.map(tracing::field::display),
                workers = self.listeners.len(),
                upstream = %shared.current.load().settings.upstream,
                open_files = raise_file_limit(),
                "listening"
            );
            reload::tell_certificates(&shared.current, &shared.metrics);
            let workers = self.listeners.into_iter().enumerate();
            let ends: Vec<_> = workers
                .map(|(index, listeners)| start(index, listeners, &shared, stage.clone()))
                .collect::<Result<_, _>>()?;
            tokio::select! {
                result = supervise(&shared, ends) => result,
                never = signals.drive() => match never {},
                never = reloads => match never {},
                never = pulse::watch_all(&shared.current, &shared.registry, &shared.metrics) => match never {},
            }
        });
        // A file system that does not answer must not hold up the end.
        runtime.shutdown_background();
        log_totals(&shared, began.elapsed());
        result
    }
}

/// Reloads until the server ends, if it follows a configuration.
fn reloads(shared: &Shared, follows: Option<Follows>) -> io::Result<impl Future<Output = Infallible> + use<>> {
    let reloads = match follows {
        Some(Follows { source, loaded, levels }) => {
            let hangups = shared.shutdown.hangups()?;
            let stirs = Folders::default();
            let (driver, _) = Driver::new(source, loaded, stirs, &shared.current, Some(levels), &shared.metrics);
            Some(driver.drive(hangups))
        }
        None => None,
    };
    Ok(async {
        match reloads {
            Some(reloads) => reloads.await,
            None => std::future::pending().await,
        }
    })
}

/// Waits for the workers as the phases demand, and cuts off what does not end.
async fn supervise(
    shared: &Shared,
    ends: Vec<oneshot::Receiver<Result<(), io::Error>>>,
) -> Result<(), RunError> {
    let ends =
        ends.into_iter().map(|end| async { end.await.map_err(|_| RunError::WorkerLost)?.map_err(RunError::from) });
    let mut work = std::pin::pin!(try_join_all(ends));
    let outcome = drain::supervise(&shared.shutdown, &shared.registry, || drain_bound(&shared.current.load()), &mut work).await;
    let left = shared.registry.len();
    // A future that has ended must not be asked again.
    let lost = matches!(outcome, Outcome::Ended(Err(_)));
    let result = match outcome {
        Outcome::Ended(Ok(_)) => return Ok(()),
        Outcome::Ended(Err(error)) => Err(error),
        Outcome::OutOfTime => {
            tracing::warn!(sessions = left, "drain out of time");
            Ok(())
        }
        Outcome::Aborted => {
            tracing::warn!(sessions = left, "drain aborted");
            Err(RunError::Aborted)
        }
    };
    shared.shutdown.abort();
    if !lost {
        // A worker that is stuck beyond this goes down with the process.
        let _ = tokio::time::timeout(ABORT_GRACE, work).await;
    }
    result
}

/// Starts one worker thread; what is returned tells how it ended.
fn start<S, N, F>(
    index: usize,
    listeners: Listeners,
    shared: &Arc<Shared>,
    stage: S,
) -> Result<oneshot::Receiver<Result<(), io::Error>>, io::Error>
where
    S: Fn(&Shared, TaskTracker, CancellationToken) -> N + Send + 'static,
    N: Fn(ClientStream, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (ended, end) = oneshot::channel();
    let shared = Arc::clone(shared);
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A panic drops `ended` unsent, which is an answer too.
        let _ = ended.send(work(listeners, &shared, stage));
    })?;
    Ok(end)
}

/// The life of one worker: accept, drain, let go.
fn work<S, N, F>(listeners: Listeners, shared: &Shared, stage: S) -> Result<(), io::Error>
where
    S: FnOnce(&Shared, TaskTracker, CancellationToken) -> N,
    N: Fn(ClientStream, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let listener = TcpListener::from_std(listeners.tls)?;
        let plain = listeners.redirect.map(TcpListener::from_std).transpose()?;
        let tracker = TaskTracker::new();
        let draining = shared.shutdown.draining().clone();
        let next = stage(shared, tracker.clone(), draining.clone());
        let accept = accept_stage(shared, &tracker);
        let redirect = async {
            if let Some(plain) = plain {
                redirect_stage(shared, &tracker).run(plain, draining.clone()).await;
            }
        };
        tokio::join!(accept.run(listener, draining.clone(), next), redirect);
        tracker.close();
        tokio::select! {
            () = tracker.wait() => {}
            () = shared.shutdown.aborting().cancelled() => {}
        }
        Ok(())
    });
    // Name resolution may still run on a thread of its own; nobody needs its answer now.
    runtime.shutdown_background();
    result
}

fn accept_stage(shared: &Shared, tracker: &TaskTracker) -> Accept {
    Accept {
        door: door(shared, true),
        current: Arc::clone(&shared.current),
        metrics: Arc::clone(&shared.metrics),
        tracker: tracker.clone(),
    }
}

fn redirect_stage(shared: &Shared, tracker: &TaskTracker) -> Redirect {
    Redirect {
        door: door(shared, false),
        current: Arc::clone(&shared.current),
        ports: shared.ports,
        metrics: Arc::clone(&shared.metrics),
        tracker: tracker.clone(),
    }
}

fn door(shared: &Shared, handshakes: bool) -> Door {
    Door { gate: Arc::clone(&shared.gate), current: Arc::clone(&shared.current), handshakes }
}

/// A port, once for each worker, and its address.
fn open(at: SocketAddr, workers: NonZeroUsize) -> Result<(SocketAddr, Vec<StdListener>), StartError> {
    accept::listeners(at, workers)
        .and_then(|listeners| Ok((listeners[0].local_addr()?, listeners)))
        .map_err(|source| StartError::Listen { address: at, source })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The longest grace of any session, and the margin.
fn drain_bound(generation: &Generation) -> Duration {
    generation.longest_grace + drain::DRAIN_MARGIN
}

/// Each session takes two descriptors, and the usual soft limit of 1024 is there for programs that use `select(2)`.
/// Returns the limit that holds then; `None` is unlimited.
fn raise_file_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_ok() { limit.current } else { before }
}

fn log_totals(shared: &Shared, uptime: Duration) {
    let totals = shared.metrics.totals();
    tracing::info!(
        uptime_s = uptime.as_secs_f64(),
        connections = totals.connections,
        connections_refused = totals.connections_refused,
        handshakes_failed = totals.handshakes_failed,
        requests = totals.requests,
        websockets = totals.websockets,
        rejections = totals.rejections,
        upstream_errors = totals.upstream_errors,
        upstream_missed = totals.upstream_missed,
        clean = shared.shutdown.phase() == Phase::Draining,
        "stopped"
    );
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
