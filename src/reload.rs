//! The configuration, loaded anew while the process runs: whole or not at all, at a signal, when asked to, and when its
//! files have changed.

mod certificates;
mod source;

use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use source::{LoadError, Opened, Source};

use self::source::Failure;
use crate::config::watch::{Cadence, Cause, Snapshot, Stirs, due};
use crate::config::{Settings, Shown};
use crate::drain::Hangups;
use crate::generation::{Current, Generation};
use crate::telemetry::Levels;
use crate::telemetry::metrics::Metrics;

/// How a reload came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// Everything is as it was.
    Unchanged,
    /// What was found is in force.
    Applied,
    /// It is, but for what only a restart can change.
    Partial,
    /// It cannot be used: what was in force still is.
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

    /// The word for metrics.
    fn counted_as(self) -> &'static str {
        if self == Self::Applied { "ok" } else { self.as_str() }
    }
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In a word.
    pub result: ReloadResult,
    /// The generation that is in force now.
    pub generation: u64,
    /// The keys that say something else than what is in force, and wait for a restart.
    pub requires_restart: Vec<Box<str>>,
    /// Why it failed, in one line.
    pub error: Option<String>,
}

/// What is in force, and how the last reload came out.
#[derive(Clone, Debug)]
pub struct Status {
    /// The number of the generation.
    pub generation: u64,
    /// When a load, that of the start among them, last succeeded.
    pub last_success_at: Option<SystemTime>,
    /// Why the last one failed, in one line; `None` if it did not.
    pub last_error: Option<String>,
    /// The settings in force: what waits for a restart is as it was.
    pub settings: Arc<Settings>,
    /// The configuration as it was last loaded, for people.
    pub shown: Arc<Shown>,
}

/// The handle of reloads: whoever holds a clone may ask for one.
#[derive(Clone, Debug)]
pub struct Reloader {
    asks: mpsc::UnboundedSender<oneshot::Sender<Outcome>>,
    status: Arc<Mutex<Status>>,
}

impl Reloader {
    /// Loads the configuration anew, and tells what has come of it.
    pub async fn reload(&self) -> Outcome {
        let (answer, answered) = oneshot::channel();
        // Nobody there to ask and nobody to answer are the same.
        let _ = self.asks.send(answer);
        answered.await.unwrap_or_else(|_| Outcome {
            result: ReloadResult::Failed,
            generation: self.status().generation,
            requires_restart: Vec::new(),
            error: Some("the proxy is about to end and reloads nothing more".to_owned()),
        })
    }

    /// What is in force, and how the last reload came out.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the configuration is loaded.
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

/// Does the reloads of a process, one after the other.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    source: Arc<Source>,
    /// Away in another thread while it is armed.
    stirs: S,
    cadence: Cadence,
    current: Arc<Current>,
    levels: Option<Levels>,
    metrics: Arc<Metrics>,
    asks: mpsc::UnboundedReceiver<oneshot::Sender<Outcome>>,
    status: Arc<Mutex<Status>>,
    /// What the files held at the last load that succeeded.
    loaded: Snapshot,
    /// What they held at the last load.
    tried: Snapshot,
    /// Looking at files may take its time, and on a file system that does not answer it never ends. This thread has
    /// signals to listen to.
    blocking: TaskTracker,
}

impl<S: Stirs + Default + Send + 'static> Driver<S> {
    /// Follows `source`, of which `loaded` and `shown` are what `current` was made of.
    pub(crate) fn new(
        source: Source,
        (loaded, shown): (Snapshot, Shown),
        stirs: S,
        current: &Arc<Current>,
        levels: Option<Levels>,
        metrics: &Arc<Metrics>,
    ) -> (Self, Reloader) {
        let (ask, asks) = mpsc::unbounded_channel();
        let generation = current.load_full();
        let status = Arc::new(Mutex::new(Status {
            generation: generation.number,
            last_success_at: Some(SystemTime::now()),
            last_error: None,
            settings: Arc::clone(&generation.settings),
            shown: Arc::new(shown),
        }));
        let reloader = Reloader { asks: ask, status: Arc::clone(&status) };
        let driver = Self {
            source: Arc::new(source),
            stirs,
            cadence: Cadence::default(),
            current: Arc::clone(current),
            levels,
            metrics: Arc::clone(metrics),
            asks,
            status,
            tried: loaded.clone(),
            loaded,
            blocking: TaskTracker::new(),
        };
        (driver, reloader)
    }

    /// Reloads whenever there is a reason to, for as long as the future is polled.
    pub(crate) async fn drive(mut self, mut hangups: Hangups) -> Infallible {
        loop {
            // What has changed before the watch was armed makes no stir.
            let is_stirred = self.arm().await;
            let looked = Instant::now();
            tokio::select! {
                Some(answer) = self.asks.recv() => {
                    let outcome = self.reload(Trigger::Admin).await;
                    // Who asked may have gone.
                    let _ = answer.send(outcome);
                }
                () = hangups.next() => drop(self.reload(Trigger::Signal).await),
                cause = due(&mut self.stirs, self.cadence, looked, is_stirred) => self.look(cause).await,
            }
        }
    }

    /// Watches where the files lie now; then says whether they hold something else than when they were last loaded.
    async fn arm(&mut self) -> bool {
        let (mut stirs, tried) = (mem::take(&mut self.stirs), self.tried.clone());
        let arm = move || {
            stirs.arm(tried.files());
            let has_changed = tried.again() != tried;
            (stirs, has_changed)
        };
        // The panic has been logged; what is looked at now and then needs no watch.
        let (stirs, has_changed) = self.blocking.spawn_blocking(arm).await.unwrap_or_default();
        self.stirs = stirs;
        has_changed
    }

    /// Reloads if the files hold something else than when they were last loaded, or if that failed a while ago.
    async fn look(&mut self, cause: Cause) {
        let tried = self.tried.clone();
        let look = move || tried.again() != tried;
        let has_changed = self.blocking.spawn_blocking(look).await.unwrap_or_default();
        let has_failed = lock(&self.status).last_error.is_some();
        match cause {
            _ if has_changed => drop(self.reload(Trigger::File).await),
            Cause::Poll if has_failed => drop(self.reload(Trigger::Poll).await),
            Cause::Poll | Cause::Stir => {}
        }
    }

    async fn reload(&mut self, trigger: Trigger) -> Outcome {
        let (source, known) = (Arc::clone(&self.source), self.tried.clone());
        let opened = self.blocking.spawn_blocking(move || source.reopen(&known)).await;
        let opened = opened.unwrap_or_else(|_| Err(Failure::new(LoadError::Panicked, self.tried.clone())));
        let outcome = match opened.and_then(|opened| self.apply(opened)) {
            Ok(outcome) => outcome,
            Err(Failure { error, found }) => {
                self.tried = found;
                Outcome {
                    result: ReloadResult::Failed,
                    generation: self.current.load().number,
                    requires_restart: Vec::new(),
                    error: Some(error.one_line()),
                }
            }
        };
        self.tell(trigger, &outcome);
        outcome
    }

    /// Puts in force what was read, as far as a process can change while it runs.
    fn apply(&mut self, opened: Opened) -> Result<Outcome, Failure> {
        let Opened { mut settings, shown, terms, apps, snapshot } = opened;
        let before = self.current.load_full();
        let requires_restart = settings.follow(&before.settings);
        let has_changed = |file: &std::path::Path| snapshot.has_changed(file, &self.loaded);
        let is_equal = settings == *before.settings && !settings.files().iter().any(|file| has_changed(file));
        let generation = if is_equal {
            (*before).clone()
        } else {
            let terminator = match (&before.terminator, terms) {
                (Some(terminator), Some(terms)) => {
                    Some(Arc::new(terminator.renewed(terms).map_err(|error| Failure::new(error, snapshot.clone()))?))
                }
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
        Ok(Outcome { result, generation: generation.number, requires_restart, error: None })
    }

    fn publish(&self, before: &Generation, generation: Generation) {
        let published = generation.clone();
        self.current.publish(generation);
        if let Some(levels) = self.levels.as_ref().filter(|_| published.settings.log.level != before.settings.log.level)
        {
            levels.set(&published.settings.log.level);
        }
        if published.certificates() != before.certificates() {
            certificates::tell(published.certificates(), &self.metrics);
        }
    }

    fn tell(&self, trigger: Trigger, outcome: &Outcome) {
        let Outcome { result, generation, requires_restart, error } = outcome;
        let has_succeeded = *result != ReloadResult::Failed;
        self.metrics.reloaded(result.counted_as(), has_succeeded);
        let told_before = {
            let mut status = lock(&self.status);
            if has_succeeded {
                status.last_success_at = Some(SystemTime::now());
            }
            mem::replace(&mut status.last_error, error.clone())
        };
        let is_repeated = trigger == Trigger::Poll && told_before == *error;
        let (trigger, result) = (trigger.as_str(), result.as_str());
        match error {
            // It was tried again, and nobody has mended it.
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

/// Tells of the certificates that are shown from the start.
pub(crate) fn tell_certificates(current: &Current, metrics: &Metrics) {
    certificates::tell(current.load().certificates(), metrics);
}

#[cfg(test)]
#[path = "reload/tests.rs"]
mod tests;
