//! The time between the start of a server and its first client.

use std::io;
use std::sync::Arc;

/// What completes before clients are served.
pub(super) struct Prelude<F> {
    /// The address of the app that is being started, for the readiness endpoint; `None` without one.
    pub(super) app: Option<Arc<str>>,
    /// Completes with true once clients are to be served, and with false if the server is to end.
    pub(super) listens: F,
}

impl Prelude<()> {
    /// Returns a prelude that calls `announce`, and waits for nothing.
    pub(super) fn announcing(
        announce: impl FnOnce() -> io::Result<()>,
    ) -> Prelude<impl Future<Output = io::Result<bool>>> {
        Prelude { app: None, listens: async { announce().map(|()| true) } }
    }
}
