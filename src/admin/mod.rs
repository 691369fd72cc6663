//! The health listener (probes, metrics) and the admin listener (sessions, commands, the inspect page).
//!
//! ```text
//! listener → serve ─┬→ health
//!                   └→ auth → api ─┬→ connections (filter, order → view, sentence)
//!                                  ├→ diagnosis (story)
//!                                  ├→ events (stats)
//!                                  └→ page
//! ```
//!
//! Both run on one thread of their own, so that no scrape and no list of ten thousand sessions delays a worker.
//! Sessions are read from the registry. Only the server imports this module.

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

/// The time limit for responses that are in flight when the listeners close.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The parts of the program that the listeners report on and pass commands to.
pub struct Context {
    /// The live and recently closed sessions.
    pub registry: Arc<Registry>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The drain of the process.
    pub shutdown: Shutdown,
    /// The handle of configuration reloads; `None` without a configuration file.
    pub reloader: Option<Reloader>,
    /// The generation in force.
    pub current: Arc<Current>,
    /// The start of the workers.
    pub startup: Arc<Startup>,
    /// The address that clients connect to.
    pub listen: SocketAddr,
    /// The time at which the program started.
    pub started_at: SystemTime,
    /// Set in `pulsegate dev`, which allows a dead client to be simulated.
    pub dev: bool,
}

/// The number of workers that do not accept yet.
#[derive(Debug)]
pub struct Startup {
    left: AtomicUsize,
    over: Notify,
}

impl Startup {
    /// Returns the state in which none of `workers` accepts.
    pub fn of(workers: usize) -> Self {
        Self { left: AtomicUsize::new(workers), over: Notify::new() }
    }

    /// Records that one more worker accepts.
    pub fn one_accepts(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.notify_one();
        }
    }

    /// Returns whether every worker accepts.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Completes once every worker accepts; supports one waiting task.
    pub async fn over(&self) {
        self.over.notified().await;
    }
}

/// The listeners with their ports open; connections wait in the kernel's accept queue.
#[derive(Debug)]
pub struct Bound {
    handshake: Duration,
    health: Option<Health>,
    administration: Option<Administration>,
}

/// Opens the sockets of `settings`; `handshake` is the time limit of a TLS handshake on the admin port. Fails when a
/// required socket cannot be opened.
pub fn bind(settings: &config::Admin, handshake: Duration) -> Result<Bound, BindError> {
    let health = settings.health.map(Health::open).transpose()?;
    let administration = match &settings.socket {
        Some(socket) => Administration::open(socket, settings.tls)?,
        None => None,
    };
    Ok(Bound { handshake, health, administration })
}

impl Bound {
    /// Returns the address of the health listener: as configured, with the real port.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|health| health.address)
    }

    /// Returns the address of the admin listener: as configured, with the real port.
    pub fn admin_address(&self) -> Option<&AdminSocket> {
        self.administration.as_ref().map(|administration| &administration.socket)
    }

    /// Serves on a thread of its own until [`Serving::end`]. Fails when the runtime or the thread cannot be created.
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
                // Returns without waiting for connections that are still open.
                runtime.shutdown_background();
                drop(ended);
            })?;
        }
        Ok(Serving { stop, end })
    }
}

/// The running listeners. They continue to serve when this is dropped.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    /// Disconnected when the thread ends; carries no values.
    end: mpsc::Receiver<()>,
}

impl Serving {
    /// Closes the listeners, lets responses in flight finish, and removes the unix socket. Blocks for one second at
    /// most.
    pub fn end(self) {
        self.stop.cancel();
        // The thread ends within SHUTDOWN_TIMEOUT; a blocked one ends with the process.
        let _ = self.end.recv_timeout(2 * SHUTDOWN_TIMEOUT);
    }
}
