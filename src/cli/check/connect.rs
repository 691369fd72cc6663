//! `pulsegate check --connect`: tries every app once.

use std::io;
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::config::{FileCache, Settings};
use crate::suspension::with_pause_record;
use crate::upstream::{App, Unusable};

/// The outcome of an attempt to use one app.
#[derive(Clone, Debug)]
pub struct AppTrial {
    /// The app's URL.
    pub app: String,
    /// The request that was answered, or the error.
    pub outcome: Result<String, Unusable>,
}

/// Tries every app of `settings`, all at the same time.
///
/// # Errors
///
/// The errors of the runtime.
pub fn try_apps(settings: &Settings, cache: &FileCache) -> io::Result<Vec<AppTrial>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let trials = settings.upstreams().into_iter().map(async |upstream| {
        let outcome = match App::load(upstream, cache, Instant::now()) {
            Ok(app) => app.try_once().await,
            // The files were read before, and are read again here.
            Err(error) => Err(Unusable { error: error.to_string(), help: "run the check again".into(), pin: None }),
        };
        AppTrial { app: upstream.to_string(), outcome }
    });
    let trials = runtime.block_on(with_pause_record(join_all(trials)));
    // A name resolution still in progress is not awaited.
    runtime.shutdown_background();
    Ok(trials)
}

impl AppTrial {
    /// Returns the line of an app that can be used, as text.
    pub(super) fn line(&self) -> Option<String> {
        let answered = self.outcome.as_ref().ok()?;
        Some(match answered.as_str() {
            "connect" => format!("{}: accepted a connection", self.app),
            request => format!("{}: answered {request}", self.app),
        })
    }

    /// Returns the error of an app that cannot be used, as text.
    pub(super) fn error(&self) -> Option<String> {
        let Unusable { error, help, .. } = self.outcome.as_ref().err()?;
        Some(format!("{}: {error}\n       {help}", self.app))
    }

    /// Returns the error as JSON, in the format of the configuration's errors.
    pub(super) fn finding(&self) -> Option<Value> {
        let Unusable { error, help, pin } = self.outcome.as_ref().err()?;
        let pin = pin.map(|pin| pin.to_string());
        Some(json!({ "upstream": self.app, "message": format!("{}: {error}", self.app), "help": help, "pin": pin }))
    }

    /// Returns the outcome as JSON.
    pub(super) fn fact(&self) -> Value {
        json!({ "upstream": self.app, "answered": self.outcome.as_ref().ok() })
    }
}
