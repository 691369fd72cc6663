//! Signal handling: SIGTERM and SIGINT request the exit, SIGHUP requests a reload.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Shutdown, Trigger};

/// Completes at the next SIGINT or SIGTERM, for commands without a drain; requires a tokio runtime.
///
/// If signal handlers cannot be installed, signals keep their default meaning, and this never completes.
pub async fn interrupted() {
    match Shutdown::on_signals().signals() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    };
}

/// The SIGTERM and SIGINT received since the handlers were installed.
#[derive(Debug)]
pub(crate) struct Signals {
    sources: Option<(Signal, Signal)>,
    shutdown: Shutdown,
}

impl Shutdown {
    /// Installs the signal handlers if this handle reacts to signals; requires a tokio runtime.
    pub(crate) fn signals(&self) -> io::Result<Signals> {
        let sources = match self.0.trigger {
            Trigger::Signals => Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)),
            Trigger::Program => None,
        };
        Ok(Signals { sources, shutdown: self.clone() })
    }

    /// Installs the SIGHUP handler if this handle reacts to signals; requires a tokio runtime.
    pub(crate) fn hangups(&self) -> io::Result<Hangups> {
        let source = match self.0.trigger {
            Trigger::Signals => Some(signal(SignalKind::hangup())?),
            Trigger::Program => None,
        };
        Ok(Hangups(source))
    }
}

impl Signals {
    /// Advances the phase at every signal.
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

/// The SIGHUP received since the handler was installed; each requests a reload, not an exit.
#[derive(Debug)]
pub(crate) struct Hangups(Option<Signal>);

impl Hangups {
    /// Completes at the next SIGHUP; several in a row may count as one.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(source) => drop(source.recv().await),
            None => std::future::pending().await,
        }
    }
}
