//! Errors of the start and of the run of the proxy.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::accept;
use crate::acme;
use crate::admin;
use crate::tls::TerminatorError;
use crate::upstream::AppError;

/// A failure to start the proxy.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listening port could not be opened.
    #[error("cannot listen on {address} ({key}): {source}{}", accept::port_remedy(source))]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The key of that address.
        key: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A port of the admin API could not be opened.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The TLS settings could not be used.
    #[error(transparent)]
    Tls(#[from] TerminatorError),
    /// The folder for certificates of an authority could not be used, and there is no certificate in it.
    #[error(transparent)]
    Acme(#[from] acme::StorageError),
    /// The settings of an app could not be used.
    #[error(transparent)]
    Upstream(#[from] AppError),
}

impl StartError {
    /// Returns whether the admin port is in use by another process, so that a different port may work.
    pub fn is_admin_port_taken(&self) -> bool {
        let Self::Admin(admin::BindError::Port { source, .. }) = self else { return false };
        source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A run of the proxy that did not end with a completed drain.
#[derive(Debug, Error)]
pub enum RunError {
    /// A runtime or thread could not be created.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// The start could not be announced.
    #[error("cannot announce the start: {0}")]
    Announce(#[source] io::Error),
    /// A worker ended while it should serve; the log line before gives the reason.
    #[error("a worker thread ended unexpectedly")]
    WorkerLost,
    /// A second signal cut the drain short.
    #[error("aborted while draining")]
    Aborted,
}
