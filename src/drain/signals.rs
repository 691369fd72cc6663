//! SIGTERM and SIGINT, which ask for the end, and SIGHUP, which asks for another configuration.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Shutdown, Trigger};

/// Completes at the next SIGINT or SIGTERM, for commands that have nothing to drain; needs a runtime.
///
/// Where signals cannot be listened to they keep their usual meaning, and this never completes.
pub async fn interrupted() {
    match Shutdown::on_signals().signals() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    };
}

/// SIGTERM and SIGINT, from their installation on.
#[derive(Debug)]
pub(crate) struct Signals {
    sources: Option<(Signal, Signal)>,
    shutdown: Shutdown,
}

impl Shutdown {
    /// Starts to listen to signals, if this is one that does; needs a runtime.
    pub(crate) fn signals(&self) -> io::Result<Signals> {
        let sources = match self.0.trigger {
            Trigger::Signals => Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)),
            Trigger::Program => None,
        };
        Ok(Signals { sources, shutdown: self.clone() })
    }

    /// Starts to listen to SIGHUP, if this is one that listens to signals; needs a runtime.
    pub(crate) fn hangups(&self) -> io::Result<Hangups> {
        let source = match self.0.trigger {
            Trigger::Signals => Some(signal(SignalKind::hangup())?),
            Trigger::Program => None,
        };
        Ok(Hangups(source))
    }
}

impl Signals {
    /// Moves the phase at every signal.
    pub(crate) async fn drive(mut self) -> Infallible {
        loop {
            let name = self.next().await;
            let phase = self.shutdown.advance().as_str();
            tracing::info!(name, phase, "signal");
        }
    }

    async fn next(&mut self) -> &'static str {
        let Some((terminate, interrupt)) = &mut self.sources else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, from its installation on: not an end, but a wish for a new beginning with another configuration.
#[derive(Debug)]
pub(crate) struct Hangups(Option<Signal>);

impl Hangups {
    /// Completes at the next one; several that come at once are one.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(source) => drop(source.recv().await),
            None => std::future::pending().await,
        }
    }
}
