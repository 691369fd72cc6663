//! The parts of the program that the listeners report on and pass orders to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::drain::Shutdown;
use crate::generation::CurrentGeneration;
use crate::registry::Registry;
use crate::reload::Reloader;
use crate::telemetry::metrics::Metrics;

/// The parts of the program that the listeners report on and pass orders to.
pub struct Context {
    /// The live and recently closed sessions.
    pub registry: Arc<Registry>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The shutdown of the program.
    pub shutdown: Shutdown,
    /// The loader of the next configuration; `None` without a file to load.
    pub reloader: Option<Reloader>,
    /// The handle to the generation in force.
    pub current: Arc<CurrentGeneration>,
    /// The workers' start.
    pub startup: Arc<Startup>,
    /// The address to which clients connect.
    pub listen: SocketAddr,
    /// The time at which the program started.
    pub started_at: SystemTime,
    /// True if this is `pulsegate dev`, where the loss of a client can be simulated.
    pub dev: bool,
}

/// The start of the workers: their count before each has begun to accept, and the app that they begin after.
#[derive(Debug)]
pub struct Startup {
    left: AtomicUsize,
    over: Notify,
    awaited: Mutex<Option<Arc<str>>>,
}

impl Startup {
    /// Creates the count for `workers`, none of which has begun.
    pub fn of(workers: usize) -> Self {
        Self { left: AtomicUsize::new(workers), over: Notify::new(), awaited: Mutex::default() }
    }

    /// Sets the address of the app that does not listen yet, and before which no worker begins; `None` once it does.
    pub fn await_app(&self, address: Option<Arc<str>>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Returns the address of the app that does not listen yet.
    pub fn awaited_app(&self) -> Option<Arc<str>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one more worker that accepts.
    pub fn worker_ready(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.notify_one();
        }
    }

    /// Returns whether every worker accepts.
    pub fn is_complete(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Completes when every worker accepts, for one waiter.
    pub async fn completed(&self) {
        self.over.notified().await;
    }
}
