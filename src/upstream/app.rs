//! The apps behind the proxy, shared by all workers.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, SetOnce};

use super::dial::{DialError, Dialer};
use super::unusable::Unusable;
use crate::config::{self, FileCache, Settings, TlsFault};
use crate::heartbeat::{ConnectOutcome, UpstreamLiveness};
use crate::telemetry::Chain;
use crate::tls::client::{TlsClient, Trust, TrustError};
use crate::tls::{Identity, IdentityError};

/// An app behind the proxy.
#[derive(Clone, Debug)]
pub struct App {
    settings: Arc<config::UpstreamSettings>,
    /// The TLS client for its connections; `None` for plain HTTP.
    pub(super) tls: Option<TlsClient>,
    liveness: Arc<UpstreamLiveness>,
    pub(super) reports: Arc<Reports>,
}

/// Reports of the workers to an app's liveness monitor, besides the liveness itself.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Notified when the monitor should evaluate the app's liveness at once.
    pub(super) news: Notify,
    refusal: Mutex<Option<Box<str>>>,
    /// The failure of the first connect for a request.
    first_failure: SetOnce<Unusable>,
}

impl Reports {
    /// Records the outcome of a connect in `liveness`, the app's liveness, and keeps the error of a refused one.
    pub(super) fn record_connect(
        &self,
        liveness: &UpstreamLiveness,
        outcome: ConnectOutcome,
        error: Option<&dyn Error>,
    ) {
        if outcome == ConnectOutcome::Refused
            && let Some(error) = error
        {
            let refusal = Some(Chain(error).to_string().into());
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        }
        if liveness.record_connect(outcome) {
            self.news.notify_one();
        }
    }

    /// Returns the error of the last refused connect.
    pub(super) fn refusal(&self) -> Option<Box<str>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An error of an app's TLS files, which prevents connections to the app.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The trusted authorities cannot be loaded.
    #[error("upstream {app}: tls.ca cannot be used")]
    Trust {
        /// The app's URL.
        app: String,
        /// The fault of the file.
        source: TrustError,
    },
    /// The proxy's client certificate for the app, or its key, cannot be used.
    #[error("upstream {app}: tls.certificate and its key cannot be used")]
    Identity {
        /// The app's URL.
        app: String,
        /// The fault of the files.
        source: IdentityError,
    },
}

impl App {
    /// The app of these `settings`. It is not ready until it has been reached, unless it is not watched at all; silence
    /// counts from `now`. Reads the TLS files, through `cache`; does not connect.
    pub fn load(settings: &Arc<config::UpstreamSettings>, cache: &FileCache, now: Instant) -> Result<Self, AppError> {
        let tls = settings.tls.as_ref().map(|tls| client(settings, tls, cache)).transpose()?;
        let is_watched = settings.heartbeat.interval.is_some();
        let liveness = if is_watched { UpstreamLiveness::unreached(now) } else { UpstreamLiveness::new(now) };
        Ok(Self { settings: Arc::clone(settings), tls, liveness: Arc::new(liveness), reports: Arc::default() })
    }

    /// As [`load`](Self::load), with files that are read for this app alone.
    pub fn open(settings: &Arc<config::UpstreamSettings>, now: Instant) -> Result<Self, AppError> {
        Self::load(settings, &FileCache::default(), now)
    }

    /// Returns the faults of the TLS files that `settings` name.
    pub fn faults(settings: &config::UpstreamSettings, cache: &FileCache) -> Vec<TlsFault> {
        let Some(tls) = &settings.tls else { return Vec::new() };
        let identity = tls.identity.as_ref().map(|(certificate, key)| Identity::faults(certificate, key, cache));
        match identity.transpose() {
            Err(errors) => errors.iter().map(TlsFault::from).collect(),
            Ok(identity) => {
                let client = TlsClient::load(&trust(tls), identity.as_ref(), cache);
                client.err().as_ref().map(TlsFault::from).into_iter().collect()
            }
        }
    }

    /// Returns this app with the state of `before`, the same app: its liveness, and the settings that the routes of its
    /// sessions share.
    fn with_state_of(self, before: &Self) -> Self {
        let (liveness, reports) = (Arc::clone(&before.liveness), Arc::clone(&before.reports));
        Self { settings: Arc::clone(&before.settings), tls: self.tls, liveness, reports }
    }

    /// Returns the app's settings.
    pub fn settings(&self) -> &Arc<config::UpstreamSettings> {
        &self.settings
    }

    /// Returns the app's liveness, which its sessions record.
    pub fn liveness(&self) -> &Arc<UpstreamLiveness> {
        &self.liveness
    }

    /// Returns a dialer with the app's settings and TLS client.
    pub(super) fn dialer(&self) -> Dialer {
        Dialer::new(&self.settings, self.tls.as_ref())
    }

    /// Reports the outcome of a connect to the monitor, and its error if it failed.
    pub(super) fn connected(&self, outcome: ConnectOutcome, error: Option<&DialError>) {
        if let Some(error) = error
            && !self.reports.first_failure.initialized()
        {
            // Another worker may have set it first.
            let _ = self.reports.first_failure.set(Unusable::of(error, None));
        }
        let is_watched = self.settings.heartbeat.interval.is_some();
        let outcome = match outcome {
            // No health check follows that could distinguish a frozen app from one that is down.
            ConnectOutcome::Failed if !is_watched => ConnectOutcome::Refused,
            outcome => outcome,
        };
        self.reports.record_connect(&self.liveness, outcome, error.map(|error| error as &dyn Error));
    }

    /// Waits until a connect for a request has failed, and returns the cause of the first such failure.
    pub async fn first_failure(&self) -> &Unusable {
        self.reports.first_failure.wait().await
    }

    /// Reports a response of any status to the monitor.
    pub(super) fn record_response(&self, now: Instant) {
        if self.liveness.record_response(now) {
            self.reports.news.notify_one();
        }
    }
}

fn client(app: &config::UpstreamSettings, tls: &config::UpstreamTls, cache: &FileCache) -> Result<TlsClient, AppError> {
    let identity = match &tls.identity {
        Some((certificate, private_key)) => {
            let identity = Identity::from_pem_files(certificate, private_key, cache);
            Some(identity.map_err(|source| AppError::Identity { app: app.to_string(), source })?)
        }
        None => None,
    };
    TlsClient::load(&trust(tls), identity.as_ref(), cache)
        .map_err(|source| AppError::Trust { app: app.to_string(), source })
}

/// Returns the certificates that are trusted for an app: pinned keys take precedence over `tls.ca`, and that over the
/// system's store.
fn trust(tls: &config::UpstreamTls) -> Trust {
    match &tls.ca {
        _ if !tls.pins.is_empty() => Trust::Keys(tls.pins.clone()),
        Some(ca) => Trust::File(ca.clone()),
        None => Trust::System,
    }
}

/// All apps of one configuration, each once.
#[derive(Clone, Debug)]
pub struct AppSet(Arc<[Arc<App>]>);

impl AppSet {
    /// Opens the apps that `settings` name.
    ///
    /// # Errors
    ///
    /// As those of [`App::open`].
    pub fn open(settings: &Settings, now: Instant) -> Result<Self, AppError> {
        Self::load(settings, &FileCache::default(), now)
    }

    /// The apps that `settings` name, as [`App::load`].
    pub fn load(settings: &Settings, cache: &FileCache, now: Instant) -> Result<Self, AppError> {
        let apps = settings.upstreams().into_iter().map(|settings| App::load(settings, cache, now).map(Arc::new));
        apps.collect::<Result<_, _>>().map(Self)
    }

    /// Returns these apps as successors of `before`: an app with equal settings keeps its state and its connections. If
    /// its TLS files have changed, as `has_changed` reports, new connections use their new contents.
    #[must_use]
    pub fn after(&self, before: &Self, has_changed: impl Fn(&Path) -> bool) -> Self {
        let apps = self.iter().map(|app| {
            let Some(known) = before.iter().find(|known| known.settings == app.settings) else {
                // The settings differ, but the same target was responsive before, so the app counts as ready.
                let same_place = |known: &&Arc<App>| known.settings.target == app.settings.target;
                if before.iter().filter(same_place).any(|known| known.liveness.is_responsive()) {
                    app.liveness.assume_ready();
                }
                return Arc::clone(app);
            };
            if app.settings.tls_files().any(&has_changed) {
                Arc::new(App::clone(app).with_state_of(known))
            } else {
                Arc::clone(known)
            }
        });
        Self(apps.collect())
    }

    /// Returns an iterator over all apps, the default one first.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<App>> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a AppSet {
    type Item = &'a Arc<App>;
    type IntoIter = std::slice::Iter<'a, Arc<App>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::testing::settings;

    const OTHER_APP: &str = "[[route]]\npath = \"/other/\"\nupstream = \"http://127.0.0.1:2\"\n";

    fn apps(sections: &str) -> AppSet {
        AppSet::open(&settings(sections), crate::any_instant()).expect("there is nothing to read")
    }

    fn ready(apps: &AppSet) -> Vec<bool> {
        apps.iter().map(|app| app.liveness().is_responsive()).collect()
    }

    #[test]
    fn s58_an_app_is_not_ready_before_it_was_reached_unless_it_is_not_watched() {
        assert_eq!(ready(&apps(OTHER_APP)), [false, false]);
        assert_eq!(ready(&apps(&format!("interval = \"off\"\n{OTHER_APP}"))), [true, true]);
    }

    #[test]
    fn s58_a_reload_with_other_times_leaves_a_ready_app_ready() {
        let before = apps("");
        let other = || apps(&format!("response_timeout = \"7s\"\n{OTHER_APP}"));
        assert_eq!(ready(&other().after(&before, |_| false)), [false, false], "it was not reached before either");
        for app in &before {
            app.liveness().assume_ready();
        }
        let after = other().after(&before, |_| false);
        assert_eq!(ready(&after), [true, false], "the other one is new");
        assert!(!Arc::ptr_eq(after.0[0].liveness(), before.0[0].liveness()));
    }
}
