//! The wiring of the proxy: builds listeners, worker threads and connection stages from the settings.

mod error;
mod prelude;
mod shared;
mod worker;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept;
use crate::acme;
use crate::admin;
use crate::config::watch::{FileWatch, Snapshot};
use crate::config::{AdminSocket, EffectiveConfig, Settings};
use crate::connection_limits::ConnectionLimiter;
use crate::descriptors;
use crate::drain::{self, DrainPhase, Plan, Shutdown, WorkOutcome};
use crate::generation::{CurrentGeneration, Generation};
use crate::http::{self, Peer};
use crate::redirect::Ports;
use crate::registry::Registry;
use crate::reload::{self, ConfigSource, Driver, LoadedConfig, Reloader};
use crate::suspension::with_pause_record;
use crate::telemetry::LevelHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otel::Spans;
use crate::tls::{ClientLeg, ServerConfigs, Terminator};
use crate::upstream::{AppSet, Unusable, liveness_monitor};

use self::prelude::Prelude;
use self::shared::{ABORT_GRACE, Listeners, Shared, runtime};
pub use error::{RunError, StartError};

/// A proxy with open ports that does not accept yet: clients wait in the kernel's queue.
pub struct Server {
    current: Arc<CurrentGeneration>,
    registry: Arc<Registry>,
    address: SocketAddr,
    redirect: Option<SocketAddr>,
    listeners: Vec<Listeners>,
    admin: admin::BoundListeners,
    dev: Option<OnUnreachable>,
    follows: Option<Follows>,
}

/// The hint for a developer whose app cannot be reached.
type OnUnreachable = Box<dyn FnOnce(&Unusable) + Send>;

/// The configuration source that a server follows through reloads.
struct Follows {
    source: ConfigSource,
    loaded: (Snapshot, EffectiveConfig),
    levels: LevelHandle,
}

impl Server {
    /// Opens the listening ports, one listener per worker.
    ///
    /// # Errors
    ///
    /// A [`StartError`] for a port that cannot be opened, an app that cannot be set up, or unusable TLS settings.
    pub fn bind(settings: Settings, terms: impl Into<ServerConfigs>) -> Result<Self, StartError> {
        let apps = AppSet::open(&settings, Instant::now())?;
        Self::with_apps(settings, Some(terms.into()), apps)
    }

    /// As [`bind`](Self::bind) with `opened`, the result of loading `source`, which later reloads read again; log
    /// levels are applied through `levels`.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn with_reloads(source: ConfigSource, opened: LoadedConfig, levels: LevelHandle) -> Result<Self, StartError> {
        let LoadedConfig { settings, shown, terms, apps, snapshot } = opened;
        let server = Self::with_apps(settings, terms, apps)?;
        Ok(Self { follows: Some(Follows { source, loaded: (snapshot, shown), levels }), ..server })
    }

    fn with_apps(settings: Settings, terms: Option<ServerConfigs>, apps: AppSet) -> Result<Self, StartError> {
        if let Some(acme) = settings.tls.terminate().and_then(|tls| tls.acme.as_ref()) {
            acme::open_storage(acme)?;
        }
        let terminator = terms.map(Terminator::new).transpose()?.map(Arc::new);
        let workers = settings.listen.workers;
        let (address, tls) = open(settings.listen.address, "listen.address", workers)?;
        let (redirect, plain) = match settings.listen.redirect {
            Some(at) => open(at, "listen.redirect", workers).map(|(address, listeners)| (Some(address), listeners))?,
            None => (None, Vec::new()),
        };
        let plain = plain.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let listeners = tls.into_iter().zip(plain).map(|(tls, redirect)| Listeners { tls, redirect }).collect();
        let admin = admin::bind(&settings.admin, settings.limits.handshake)?;
        let registry = Arc::new(Registry::new(fastrand::u32(..)).keeping(settings.admin.closed_sessions));
        let current = CurrentGeneration::new(Generation::first(Arc::new(settings), terminator, apps));
        Ok(Self { current, registry, address, redirect, listeners, admin, dev: None, follows: None })
    }

    /// Enables development mode, in which a client can be made to appear dead. `unreachable` is called at the first
    /// request for which no connection to the app can be opened.
    #[must_use]
    pub fn for_development(self, unreachable: impl FnOnce(&Unusable) + Send + 'static) -> Self {
        Self { dev: Some(Box::new(unreachable)), ..self }
    }

    /// Returns the address for clients: as configured, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the redirect to https: as configured, with the real port.
    pub fn redirect_address(&self) -> Option<SocketAddr> {
        self.redirect
    }

    /// Returns the address of health and metrics: as configured, with the real port.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.admin.health_address()
    }

    /// Returns the address of the admin API: as configured, with the real port.
    pub fn admin_address(&self) -> Option<&AdminSocket> {
        self.admin.admin_address()
    }

    /// Returns the sessions.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Serves on threads of its own until `shutdown` has completed; blocks the calling thread.
    ///
    /// # Errors
    ///
    /// A [`RunError`] for a worker that cannot be started or ends early, or a drain that is aborted.
    pub fn run(self, shutdown: Shutdown) -> Result<(), RunError> {
        self.run_announced(shutdown, || Ok(()))
    }

    /// As [`run`](Self::run); calls `announce` once signal handlers are installed.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`RunError::Announce`] if `announce` fails.
    pub fn run_announced(self, shutdown: Shutdown, announce: impl FnOnce() -> io::Result<()>) -> Result<(), RunError> {
        self.run_http(shutdown, Prelude::announcing(announce))
    }

    /// As [`run`](Self::run) behind an app that is being started. Until `listens` completes, only health and the admin API
    /// are served, and clients wait in the kernel's queue; if it completes with false, the server ends without serving them.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`RunError::Announce`] for the error of `listens`.
    pub fn run_behind(
        self,
        shutdown: Shutdown,
        listens: impl Future<Output = io::Result<bool>>,
    ) -> Result<(), RunError> {
        let app = self.current.load().settings.upstream.to_string();
        self.run_http(shutdown, Prelude { app: Some(app.into()), listens })
    }

    fn run_http(
        self,
        shutdown: Shutdown,
        prelude: Prelude<impl Future<Output = io::Result<bool>>>,
    ) -> Result<(), RunError> {
        self.run_stage(shutdown, prelude, |shared, tracker, draining| {
            let (registry, metrics) = (Arc::clone(&shared.registry), Arc::clone(&shared.metrics));
            let edge = http::Edge::new(&shared.current, registry, metrics, shared.spans.clone(), tracker, draining);
            move |stream, peer| http::serve(stream, peer, Arc::clone(&edge))
        })
    }

    /// As [`run`](Self::run), with `stage` creating each worker's stage after the handshake.
    fn run_stage<S, N, F>(
        self,
        shutdown: Shutdown,
        prelude: Prelude<impl Future<Output = io::Result<bool>>>,
        stage: S,
    ) -> Result<(), RunError>
    where
        S: Fn(&Shared, TaskTracker, CancellationToken) -> N + Clone + Send + 'static,
        N: Fn(ClientLeg, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let began = Instant::now();
        shutdown.prepare(plan(&self.current.load()));
        let metrics: Arc<Metrics> = Arc::default();
        let counted = Arc::clone(&self.registry);
        metrics.observe_traffic(move || counted.traffic());
        let open_files = descriptors::raise_limit();
        let gate = ConnectionLimiter::new(self.current.limits(), Arc::clone(&metrics));
        let shared = Arc::new(Shared {
            gate: Arc::new(gate.with_automatic(descriptors::divide(&self.current.load().settings, open_files))),
            ports: Ports { plain: self.redirect.map_or(0, |address| address.port()), tls: self.address.port() },
            startup: Arc::new(admin::Startup::of(self.listeners.len())),
            spans: Spans::to(self.current.load().settings.otel.as_ref()),
            current: self.current,
            registry: self.registry,
            metrics,
            shutdown,
        });
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let signals = shared.shutdown.signals()?;
            let mut signals = std::pin::pin!(signals.drive());
            shared.startup.await_app(prelude.app);
            let (reloads, reloader) = reloads(&shared, self.follows)?;
            // Set before the metrics can be requested.
            reload::report_certificates(&shared.current, &shared.metrics);
            let (health, socket) = (self.admin.health_address(), self.admin.admin_address().cloned());
            let workers = self.listeners.len();
            // A supervisor may act on this line at once and request the readiness endpoint.
            let listening = async {
                shared.startup.completed().await;
                tracing::info!(
                    address = %self.address,
                    redirect = self.redirect.map(tracing::field::display),
                    health = health.map(tracing::field::display),
                    admin = socket.map(tracing::field::display),
                    workers,
                    upstream = %shared.current.load().settings.upstream,
                    open_files,
                    "listening"
                );
                std::future::pending().await
            };
            let admin = self.admin.serve(administration(&shared, self.address, self.dev.is_some(), reloader))?;
            let listens = tokio::select! {
                listens = prelude.listens => listens.map_err(RunError::Announce)?,
                never = &mut signals => match never {},
            };
            if !listens {
                shared.shutdown.finish().await;
                admin.end();
                return Ok(());
            }
            let listeners = self.listeners.into_iter().enumerate();
            let ends: Vec<_> = listeners
                .map(|(index, listeners)| worker::start(index, listeners, &shared, stage.clone()))
                .collect::<Result<_, _>>()?;
            shared.startup.await_app(None);
            let result = tokio::select! {
                result = supervise(&shared, ends) => result,
                never = signals => match never {},
                never = listening => match never {},
                never = reloads => match never {},
                never = acme::maintain(&shared.current, &shared.metrics) => match never {},
                never = update_plan(&shared) => match never {},
                never = liveness_monitor::watch_all(&shared.current, &shared.registry, &shared.metrics) => match never {},
                never = keep_drain_metric(&shared) => match never {},
                never = record_pauses(&shared) => match never {},
                never = report_unreachable(&shared, self.dev) => match never {},
            };
            // Last of all: until here the admin API reports the progress of the drain.
            admin.end();
            result
        });
        // A file system that does not respond must not block the shutdown.
        runtime.shutdown_background();
        shared.spans.flush();
        log_totals(&shared, began.elapsed());
        result
    }
}

/// Builds the context of the admin API.
fn administration(shared: &Shared, listen: SocketAddr, dev: bool, reloader: Option<Reloader>) -> admin::Context {
    admin::Context {
        registry: Arc::clone(&shared.registry),
        metrics: Arc::clone(&shared.metrics),
        shutdown: shared.shutdown.clone(),
        reloader,
        current: Arc::clone(&shared.current),
        startup: Arc::clone(&shared.startup),
        listen,
        started_at: SystemTime::now(),
        dev,
    }
}

/// Returns the future that performs reloads until the server ends, and the handle to request one; `None` if the server
/// follows no configuration source.
fn reloads(
    shared: &Shared,
    follows: Option<Follows>,
) -> io::Result<(impl Future<Output = Infallible> + use<>, Option<Reloader>)> {
    let (reloads, reloader) = match follows {
        Some(Follows { source, loaded, levels }) => {
            let hangups = shared.shutdown.hangups()?;
            let stirs = FileWatch::default();
            let (driver, reloader) = Driver::new(source, loaded, stirs, &shared.current, Some(levels), &shared.metrics);
            (Some(driver.drive(hangups)), Some(reloader))
        }
        None => (None, None),
    };
    let reloads = async {
        match reloads {
            Some(reloads) => reloads.await,
            None => std::future::pending().await,
        }
    };
    Ok((reloads, reloader))
}

/// Returns the drain plan under `generation`.
fn plan(generation: &Generation) -> Plan {
    Plan { grace: generation.longest_grace, ..Plan::of(&generation.settings) }
}

/// Updates the drain plan after each reload.
async fn update_plan(shared: &Shared) -> Infallible {
    let mut changes = shared.current.changes();
    while changes.changed().await.is_ok() {
        shared.shutdown.prepare(plan(&shared.current.load()));
    }
    std::future::pending().await
}

/// Keeps the metric of an announced drain up to date.
async fn keep_drain_metric(shared: &Shared) -> Infallible {
    loop {
        shared.shutdown.announced().await;
        shared.metrics.draining(true);
        shared.shutdown.serving().await;
        shared.metrics.draining(false);
    }
}

/// Calls `unreachable` at the first request for which no connection to the default app can be opened.
async fn report_unreachable(shared: &Shared, unreachable: Option<OnUnreachable>) -> Infallible {
    let app = shared.current.load().apps.iter().next().cloned();
    if let (Some(unreachable), Some(app)) = (unreachable, app) {
        unreachable(app.first_failure().await);
    }
    std::future::pending().await
}

/// Records pauses of this thread once a drain has begun, as its only deadlines are those of the drain.
async fn record_pauses(shared: &Shared) -> Infallible {
    shared.shutdown.announced().await;
    with_pause_record(std::future::pending()).await
}

/// Waits for the workers through the phases of the drain, and aborts what does not end in time.
async fn supervise(shared: &Shared, ends: Vec<oneshot::Receiver<Result<(), io::Error>>>) -> Result<(), RunError> {
    let ends =
        ends.into_iter().map(|end| async { end.await.map_err(|_| RunError::WorkerLost)?.map_err(RunError::from) });
    let mut work = std::pin::pin!(try_join_all(ends));
    let outcome = drain::supervise(&shared.shutdown, &shared.registry, &mut work).await;
    let left = shared.registry.len();
    match outcome {
        WorkOutcome::Ended(Ok(_)) => {}
        WorkOutcome::Ended(Err(error)) => {
            shared.shutdown.abort();
            return Err(error);
        }
        WorkOutcome::OutOfTime => {
            tracing::warn!(phase = "draining", sessions = left, "drain out of time");
            shared.shutdown.abort_remaining();
            release(work).await;
        }
        WorkOutcome::Aborted => {
            tracing::warn!(phase = "aborting", sessions = left, "drain aborted");
            release(work).await;
            return Err(RunError::Aborted);
        }
    }
    shared.shutdown.finish().await;
    Ok(())
}

/// Waits up to [`ABORT_GRACE`] for the workers to drop what remains; a worker that is stuck longer ends with the
/// process.
async fn release(work: impl Future) {
    let _ = tokio::time::timeout(ABORT_GRACE, work).await;
}

/// Opens one listener per worker on a port, and returns its address with them.
fn open(
    at: SocketAddr,
    key: &'static str,
    workers: NonZeroUsize,
) -> Result<(SocketAddr, Vec<StdListener>), StartError> {
    accept::listeners(at, workers)
        .and_then(|listeners| Ok((listeners[0].local_addr()?, listeners)))
        .map_err(|source| StartError::Listen { address: at, key, source })
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
        clean = shared.shutdown.phase() == DrainPhase::Drained,
        "stopped"
    );
}

#[cfg(test)]
mod tests;
