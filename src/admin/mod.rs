//! The listeners for those who run the program: health and metrics for machines, sessions and orders for people.
//!
//! ```text
//! listener → serve ─┬→ health
//!                   └→ auth → api ─┬→ connections (filter, order → view, sentence)
//!                                  ├→ diagnosis (story)
//!                                  ├→ events (stats)
//!                                  └→ page
//! ```
//!
//! All of it runs on one thread of its own, so that no scrape and no list of ten thousand sessions holds up a worker.
//! What it knows of the sessions it asks the registry for; nothing else in the program knows of it but the server.

mod answer;
mod api;
mod auth;
mod connections;
mod diagnosis;
mod events;
mod fields;
mod filter;
mod health;
mod listener;
mod order;
mod page;
mod places;
mod query;
mod sentence;
mod serve;
mod stall;
mod stats;
mod story;
mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{self, AdminSocket};
use crate::drain::Shutdown;
use crate::generation::Current;
use crate::registry::Registry;
use crate::reload::Reloader;
use crate::suspension::watched;
use crate::telemetry::Chain;
use crate::telemetry::metrics::Metrics;

pub use listener::BindError;
use listener::{Administration, Health};

/// How long the end waits for answers that are on their way.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the listeners tell of, and whom they pass orders to.
pub struct Context {
    /// The sessions.
    pub registry: Arc<Registry>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The end of the program.
    pub shutdown: Shutdown,
    /// Who loads the configuration anew; `None` where there is no file to load.
    pub reloader: Option<Reloader>,
    /// What is in force.
    pub current: Arc<Current>,
    /// Whether the workers have begun.
    pub startup: Arc<Startup>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// When the program started.
    pub started_at: SystemTime,
    /// Whether this is `pulsegate dev`, where a client may be made to look dead.
    pub dev: bool,
}

/// Counts the workers that are still to begin.
#[derive(Debug)]
pub struct Startup {
    left: AtomicUsize,
    over: Notify,
}

impl Startup {
    /// None of `workers` has begun.
    pub fn of(workers: usize) -> Self {
        Self { left: AtomicUsize::new(workers), over: Notify::new() }
    }

    /// One more worker accepts.
    pub fn one_accepts(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.notify_one();
        }
    }

    /// Whether every worker has begun to accept.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Completes then, for one that waits.
    pub async fn over(&self) {
        self.over.notified().await;
    }
}

/// The listeners with their ports open; who connects waits in the kernel's queue.
#[derive(Debug)]
pub struct Bound {
    handshake: Duration,
    health: Option<Health>,
    administration: Option<Administration>,
}

/// Opens the ports that `settings` name. A TLS handshake, where there is one, may take `handshake`.
///
/// # Errors
///
/// Returns the port or the path that could not be opened; an admin socket that is only a default is left out instead.
pub fn bind(settings: &config::Admin, handshake: Duration) -> Result<Bound, BindError> {
    let health = settings.health.map(Health::open).transpose()?;
    let administration = match &settings.socket {
        Some(socket) => Administration::open(socket, settings.tls)?,
        None => None,
    };
    Ok(Bound { handshake, health, administration })
}

impl Bound {
    /// Returns the address of health and metrics: the configured one with the real port.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|health| health.address)
    }

    /// Returns the address of the admin API: the configured one with the real port.
    pub fn admin_address(&self) -> Option<&AdminSocket> {
        self.administration.as_ref().map(|administration| &administration.socket)
    }

    /// Serves on a thread of its own until [`Serving::end`].
    ///
    /// # Errors
    ///
    /// Returns the system's error where there is no thread or descriptor left.
    pub fn serve(self, context: Context) -> io::Result<Serving> {
        let stop = CancellationToken::new();
        let (ended, end) = mpsc::channel();
        if self.health.is_some() || self.administration.is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let stop = stop.clone();
            thread::Builder::new().name("admin".to_owned()).spawn(move || {
                let serve = serve::serve(self, Arc::new(context), stop);
                if let Err(error) = runtime.block_on(watched(serve)) {
                    tracing::error!(error = %Chain(&error), "admin.lost");
                }
                // Nobody waits for what an abandoned client still has open.
                runtime.shutdown_background();
                drop(ended);
            })?;
        }
        Ok(Serving { stop, end })
    }
}

/// The listeners at work. They serve on if this is dropped.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    /// Closed when the thread has come to its end; nothing is ever sent.
    end: mpsc::Receiver<()>,
}

impl Serving {
    /// Closes the listeners, lets answers that are on their way go out, and removes the unix socket; takes a moment.
    pub fn end(self) {
        self.stop.cancel();
        // The thread ends within FAREWELL; one that is stuck goes down with the process.
        let _ = self.end.recv_timeout(2 * FAREWELL);
    }
}
