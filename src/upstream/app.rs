//! The apps as all workers know them together.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Settings};
use crate::heartbeat::UpstreamPulse;
use crate::tls::client::{Client, Trust, TrustError};
use crate::tls::{Identity, IdentityError};

/// An app behind the proxy.
#[derive(Clone, Debug)]
pub struct App {
    settings: Arc<config::Upstream>,
    /// How TLS is spoken with it; `None` is plain HTTP.
    pub(super) tls: Option<Client>,
    pulse: Arc<UpstreamPulse>,
}

/// Why an app could not be reached even if it were up: its TLS files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Whose certificates are believed cannot be told.
    #[error("upstream {app}: tls.ca cannot be used")]
    Trust {
        /// Its URL.
        app: String,
        /// What is wrong.
        source: TrustError,
    },
    /// What the proxy would show of itself.
    #[error("upstream {app}: tls.certificate and its key cannot be used")]
    Identity {
        /// Its URL.
        app: String,
        /// What is wrong.
        source: IdentityError,
    },
}

impl App {
    /// The app that `settings` tell of; it counts as heard at `now`. Reads the TLS files, but does not connect.
    pub fn open(settings: &Arc<config::Upstream>, now: Instant) -> Result<Self, AppError> {
        let tls = settings.tls.as_ref().map(|tls| client(settings, tls)).transpose()?;
        Ok(Self { settings: Arc::clone(settings), tls, pulse: Arc::new(UpstreamPulse::new(now)) })
    }

    /// This one with what is known of `before`, the same app: whether it lives, and the settings that its sessions' routes
    /// share.
    fn in_place_of(self, before: &Self) -> Self {
        Self { settings: Arc::clone(&before.settings), tls: self.tls, pulse: Arc::clone(&before.pulse) }
    }

    /// What was configured.
    pub fn settings(&self) -> &Arc<config::Upstream> {
        &self.settings
    }

    /// Its own liveness, as its sessions hear it.
    pub fn pulse(&self) -> &Arc<UpstreamPulse> {
        &self.pulse
    }
}

fn client(app: &config::Upstream, tls: &config::UpstreamTls) -> Result<Client, AppError> {
    let identity = match &tls.identity {
        Some((certificate, private_key)) => {
            let identity = Identity::from_pem_files(certificate, private_key);
            Some(identity.map_err(|source| AppError::Identity { app: app.to_string(), source })?)
        }
        None => None,
    };
    let trust = tls.ca.clone().map_or(Trust::System, Trust::File);
    Client::new(&trust, identity.as_ref()).map_err(|source| AppError::Trust { app: app.to_string(), source })
}

/// Every app behind the proxy, each once.
#[derive(Clone, Debug)]
pub struct Apps(Arc<[Arc<App>]>);

impl Apps {
    /// Those that `settings` name, as [`App::open`].
    pub fn open(settings: &Settings, now: Instant) -> Result<Self, AppError> {
        let apps = settings.upstreams().into_iter().map(|settings| App::open(settings, now).map(Arc::new));
        apps.collect::<Result<_, _>>().map(Self)
    }

    /// These after `before`: what was there with equal settings stays, its connections with it. If its TLS files hold
    /// something else than then, which `has_changed` says, new connections are made with that.
    #[must_use]
    pub fn after(&self, before: &Self, has_changed: impl Fn(&Path) -> bool) -> Self {
        let apps = self.iter().map(|app| {
            let Some(known) = before.iter().find(|known| known.settings == app.settings) else {
                return Arc::clone(app);
            };
            if app.settings.tls_files().any(&has_changed) {
                Arc::new(App::clone(app).in_place_of(known))
            } else {
                Arc::clone(known)
            }
        });
        Self(apps.collect())
    }

    /// All of them, the default one first.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<App>> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Apps {
    type Item = &'a Arc<App>;
    type IntoIter = std::slice::Iter<'a, Arc<App>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
