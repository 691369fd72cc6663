//! The health listener (probes, metrics) and the admin listener (sessions, commands, the inspect page).
//!
//! ```text
//! listener → serve ─┬→ health
//!                   └→ auth → api ─┬→ connections (filter, order → view)
//!                                  ├→ diagnosis (story)
//!                                  ├→ events (stats)
//!                                  └→ page
//! ```
//!
//! Both run on one thread of their own, so that no scrape and no list of ten thousand sessions delays a worker.
//! Sessions are read from the registry. Only the server imports this module.

mod api;
mod auth;
mod connections;
mod context;
mod diagnosis;
mod events;
mod fields;
mod filter;
mod health;
mod idle_eviction;
mod listener;
mod page;
mod query;
mod response;
mod serve;
mod session_view;
mod sorting;
mod stats;
mod story;
mod write_timeout;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::{self, AdminSocket};
use crate::suspension::with_pause_record;
use crate::telemetry::Chain;

pub use context::{Context, Startup};
use listener::{Administration, HealthListener};
pub use listener::{BindError, BoundListeners};
use serve::SHUTDOWN_TIMEOUT;

/// Opens the ports that `settings` name. A TLS handshake, where there is one, may take `handshake`.
///
/// # Errors
///
/// Returns the port or the path that could not be opened; an admin socket that is only a default is left out instead.
pub fn bind(settings: &config::Admin, handshake: Duration) -> Result<BoundListeners, BindError> {
    let health = settings.health.map(HealthListener::open).transpose()?;
    let administration = match &settings.socket {
        Some(socket) => Administration::open(socket, settings.tls)?,
        None => None,
    };
    Ok(BoundListeners { handshake, health, administration })
}

impl BoundListeners {
    /// Returns the address of health and metrics: as configured, with the real port.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|health| health.address)
    }

    /// Returns the address of the admin API: as configured, with the real port.
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
                if let Err(error) = runtime.block_on(with_pause_record(serve)) {
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
        // The thread ends within SHUTDOWN_TIMEOUT; one that is stuck goes down with the process.
        let _ = self.end.recv_timeout(2 * SHUTDOWN_TIMEOUT);
    }
}
