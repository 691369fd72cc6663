//! Why the proxy does not start, and why it ends otherwise than asked.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::accept;
use crate::admin;
use crate::tls::TerminatorError;
use crate::upstream::AppError;

/// Why the proxy could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The listening port.
    #[error("cannot listen on {address} ({key}): {source}{}", accept::port_remedy(source))]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The key that says so.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The ports of those who run the program.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The TLS side.
    #[error(transparent)]
    Tls(#[from] TerminatorError),
    /// The app's side.
    #[error(transparent)]
    Upstream(#[from] AppError),
}

impl StartError {
    /// Whether the admin port belongs to somebody else, so that another one may do.
    pub fn is_admin_port_taken(&self) -> bool {
        let Self::Admin(admin::BindError::Port { source, .. }) = self else { return false };
        source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Why the proxy ended otherwise than asked.
#[derive(Debug, Error)]
pub enum RunError {
    /// A runtime or thread could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// The announcement of the start could not be written.
    #[error("cannot announce the start: {0}")]
    Announce(#[source] io::Error),
    /// A worker came to its end while it should serve; the log line before tells why.
    #[error("a worker thread ended unexpectedly")]
    WorkerLost,
    /// A second signal cut the drain short.
    #[error("aborted while draining")]
    Aborted,
}
