//! Reloads of the configuration while the process runs: atomic, on a signal, on request, and when its files have
//! changed.

mod certificates;
mod source;

use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use source::{ConfigSource, LoadError, LoadedConfig};

use self::source::LoadFailure;
use crate::config::watch::{Cadence, ChangeSource, Snapshot, WatchEvent, due};
use crate::config::{EffectiveConfig, Settings};
use crate::drain::Hangups;
use crate::generation::{CurrentGeneration, Generation};
use crate::telemetry::LevelHandle;
use crate::telemetry::metrics::Metrics;

/// The result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The configuration is the same as before.
    Unchanged,
    /// The new configuration is in force.
    Applied,
    /// The new configuration is in force, except for keys that need a restart.
    Partial,
    /// The new configuration could not be loaded; the former one stays in force.
    Failed,
}

impl ReloadResult {
    /// Returns the label for logs and API responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }

    /// Returns the label value in metrics.
    fn counted_as(self) -> &'static str {
        if self == Self::Applied { "ok" } else { self.as_str() }
    }
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// The result in one word.
    pub result: ReloadResult,
    /// The number of the generation in force.
    pub generation: u64,
    /// The keys whose new values need a restart.
    pub requires_restart: Vec<Box<str>>,
    /// The error of a failed reload, in one line.
    pub error: Option<String>,
}

/// The state of the configuration: the generation in force and the last reload.
#[derive(Clone, Debug)]
pub struct ConfigStatus {
    /// The number of the generation in force.
    pub generation: u64,
    /// The time of the last successful load, including that of the start.
    pub last_success_at: Option<SystemTime>,
    /// The error of the last load, in one line; `None` if it succeeded.
    pub last_error: Option<String>,
    /// The settings in force; keys that need a restart have their former values.
    pub settings: Arc<Settings>,
    /// The last loaded configuration, in the form of `config show`.
    pub shown: Arc<EffectiveConfig>,
}

/// A handle to request reloads.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::UnboundedSender<oneshot::Sender<ReloadOutcome>>,
    status: Arc<Mutex<ConfigStatus>>,
}

impl Reloader {
    /// Reloads the configuration and returns the outcome. The result is `Failed` too when the process is about to exit.
    pub async fn reload(&self) -> ReloadOutcome {
        let (answer, answered) = oneshot::channel();
        // A closed channel drops `answer`, which `answered` reports below.
        let _ = self.requests.send(answer);
        answered.await.unwrap_or_else(|_| ReloadOutcome {
            result: ReloadResult::Failed,
            generation: self.status().generation,
            requires_restart: Vec::new(),
            error: Some("the proxy is shutting down and reloads nothing more".to_owned()),
        })
    }

    /// Returns the generation in force and the outcome of the last reload.
    pub fn status(&self) -> ConfigStatus {
        lock(&self.status).clone()
    }
}

fn lock(status: &Mutex<ConfigStatus>) -> MutexGuard<'_, ConfigStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trigger of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    File,
    Poll,
    Signal,
    Admin,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Poll => "poll",
            Self::Signal => "signal",
            Self::Admin => "admin",
        }
    }
}

/// The task that reloads the configuration, one reload at a time.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    source: Arc<ConfigSource>,
    /// The file watch; a default value while another thread arms it.
    stirs: S,
    cadence: Cadence,
    current: Arc<CurrentGeneration>,
    levels: Option<LevelHandle>,
    metrics: Arc<Metrics>,
    requests: mpsc::UnboundedReceiver<oneshot::Sender<ReloadOutcome>>,
    status: Arc<Mutex<ConfigStatus>>,
    /// The content of the files at the last successful load.
    loaded: Snapshot,
    /// The content of the files at the last load.
    tried: Snapshot,
    /// The tasks that access files. They block, forever on a file system that does not respond, and this thread must
    /// keep handling signals.
    blocking: TaskTracker,
}

impl<S: ChangeSource + Default + Send + 'static> Driver<S> {
    /// Returns the driver of `source` and its handle; `current` was built from `loaded` and `shown`.
    pub(crate) fn new(
        source: ConfigSource,
        (loaded, shown): (Snapshot, EffectiveConfig),
        stirs: S,
        current: &Arc<CurrentGeneration>,
        levels: Option<LevelHandle>,
        metrics: &Arc<Metrics>,
    ) -> (Self, Reloader) {
        let (request, requests) = mpsc::unbounded_channel();
        let generation = current.load_full();
        let status = Arc::new(Mutex::new(ConfigStatus {
            generation: generation.number,
            last_success_at: Some(SystemTime::now()),
            last_error: None,
            settings: Arc::clone(&generation.settings),
            shown: Arc::new(shown),
        }));
        let reloader = Reloader { requests: request, status: Arc::clone(&status) };
        let driver = Self {
            source: Arc::new(source),
            stirs,
            cadence: Cadence::default(),
            current: Arc::clone(current),
            levels,
            metrics: Arc::clone(metrics),
            requests,
            status,
            tried: loaded.clone(),
            loaded,
            blocking: TaskTracker::new(),
        };
        (driver, reloader)
    }

    /// Reloads at every trigger, for as long as the future is polled.
    pub(crate) async fn drive(mut self, mut hangups: Hangups) -> Infallible {
        loop {
            // The watch reports no change made before it was armed.
            let has_changed = self.arm().await;
            let looked = Instant::now();
            tokio::select! {
                Some(answer) = self.requests.recv() => {
                    let outcome = self.reload(Trigger::Admin).await;
                    // The requester may have gone.
                    let _ = answer.send(outcome);
                }
                () = hangups.next() => drop(self.reload(Trigger::Signal).await),
                cause = due(&mut self.stirs, self.cadence, looked, has_changed) => self.look(cause).await,
            }
        }
    }

    /// Arms the watch on the present locations of the files. Returns whether they have changed since the last load.
    async fn arm(&mut self) -> bool {
        let (mut stirs, tried) = (mem::take(&mut self.stirs), self.tried.clone());
        let arm = move || {
            stirs.arm(tried.files());
            let has_changed = tried.again() != tried;
            (stirs, has_changed)
        };
        // After a panic, which has been logged, there is no watch, but the files are still polled.
        let (stirs, has_changed) = self.blocking.spawn_blocking(arm).await.unwrap_or_default();
        self.stirs = stirs;
        has_changed
    }

    /// Reloads if the files have changed since the last load, or, on a poll, if that load failed.
    async fn look(&mut self, cause: WatchEvent) {
        let tried = self.tried.clone();
        let look = move || tried.again() != tried;
        let has_changed = self.blocking.spawn_blocking(look).await.unwrap_or_default();
        let has_failed = lock(&self.status).last_error.is_some();
        match cause {
            _ if has_changed => drop(self.reload(Trigger::File).await),
            WatchEvent::Poll if has_failed => drop(self.reload(Trigger::Poll).await),
            WatchEvent::Poll | WatchEvent::Stir => {}
        }
    }

    async fn reload(&mut self, trigger: Trigger) -> ReloadOutcome {
        let (source, known) = (Arc::clone(&self.source), self.tried.clone());
        let opened = self.blocking.spawn_blocking(move || source.reopen(&known)).await;
        let opened = opened.unwrap_or_else(|_| Err(LoadFailure::new(LoadError::Panicked, self.tried.clone())));
        let outcome = match opened.and_then(|opened| self.apply(opened)) {
            Ok(outcome) => outcome,
            Err(LoadFailure { error, found }) => {
                self.tried = found;
                ReloadOutcome {
                    result: ReloadResult::Failed,
                    generation: self.current.load().number,
                    requires_restart: Vec::new(),
                    error: Some(error.one_line()),
                }
            }
        };
        self.report(trigger, &outcome);
        outcome
    }

    /// Puts the settings in force that can change without a restart. Fails when the TLS configuration cannot be
    /// renewed.
    fn apply(&mut self, opened: LoadedConfig) -> Result<ReloadOutcome, LoadFailure> {
        let LoadedConfig { mut settings, shown, terms, apps, snapshot } = opened;
        let before = self.current.load_full();
        let requires_restart = settings.follow(&before.settings);
        let has_changed = |file: &std::path::Path| snapshot.has_changed(file, &self.loaded);
        let is_equal = settings == *before.settings && !settings.files().iter().any(|file| has_changed(file));
        let generation = if is_equal {
            (*before).clone()
        } else {
            let terminator = match (&before.terminator, terms) {
                (Some(terminator), Some(terms)) => Some(Arc::new(
                    terminator.renewed(terms).map_err(|error| LoadFailure::new(error, snapshot.clone()))?,
                )),
                // A change of the mode waits for a restart.
                (terminator, _) => terminator.clone(),
            };
            let apps = apps.after(&before.apps, has_changed);
            before.next(Arc::new(settings), terminator, apps)
        };
        let result = match (requires_restart.is_empty(), is_equal) {
            (false, _) => ReloadResult::Partial,
            (true, true) => ReloadResult::Unchanged,
            (true, false) => ReloadResult::Applied,
        };
        if !is_equal {
            self.publish(&before, generation.clone());
        }
        let mut status = lock(&self.status);
        status.generation = generation.number;
        status.settings = generation.settings;
        status.shown = Arc::new(shown);
        drop(status);
        self.loaded = snapshot.clone();
        self.tried = snapshot;
        Ok(ReloadOutcome { result, generation: generation.number, requires_restart, error: None })
    }

    fn publish(&self, before: &Generation, generation: Generation) {
        let published = generation.clone();
        self.current.publish(generation);
        if let Some(levels) = self.levels.as_ref().filter(|_| published.settings.log.level != before.settings.log.level)
        {
            levels.set(&published.settings.log.level);
        }
        if published.certificates() != before.certificates() {
            certificates::report(published.certificates(), &self.metrics);
        }
    }

    fn report(&self, trigger: Trigger, outcome: &ReloadOutcome) {
        let ReloadOutcome { result, generation, requires_restart, error } = outcome;
        let has_succeeded = *result != ReloadResult::Failed;
        self.metrics.reloaded(result.counted_as(), has_succeeded);
        let reported_before = {
            let mut status = lock(&self.status);
            if has_succeeded {
                status.last_success_at = Some(SystemTime::now());
            }
            mem::replace(&mut status.last_error, error.clone())
        };
        let is_repeated = trigger == Trigger::Poll && reported_before == *error;
        let (trigger, result) = (trigger.as_str(), result.as_str());
        match error {
            // The same error as at the last attempt.
            Some(error) if is_repeated => {
                tracing::debug!(trigger, generation, error, "config.reload_failed");
            }
            Some(error) => tracing::error!(trigger, generation, error, "config.reload_failed"),
            None if !requires_restart.is_empty() => {
                let requires_restart = requires_restart.join(", ");
                tracing::warn!(trigger, result, generation, requires_restart, "config.reloaded");
            }
            None => tracing::info!(trigger, result, generation, "config.reloaded"),
        }
    }
}

/// Reports the certificates in force at the start, in the log and in metrics.
pub(crate) fn report_certificates(current: &CurrentGeneration, metrics: &Metrics) {
    certificates::report(current.load().certificates(), metrics);
}

#[cfg(test)]
mod tests;
