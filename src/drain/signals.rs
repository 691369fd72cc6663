//! Signal handling: SIGTERM and SIGINT request the exit, SIGHUP requests a reload.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{OnHangup, Shutdown, StopBudget, Trigger};

/// Returns the signals that request the exit, with their names.
fn exit_signals() -> [(&'static str, SignalKind); 2] {
    [("SIGTERM", SignalKind::terminate()), ("SIGINT", SignalKind::interrupt())]
}

/// Completes at the next SIGINT or SIGTERM, for commands without a drain; requires a tokio runtime.
///
/// If signal handlers cannot be installed, signals keep their default meaning, and this never completes.
pub async fn interrupted() {
    match Shutdown::on_signals().signals() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    };
}

/// The signals received since the handlers were installed that request the exit.
#[derive(Debug)]
pub(crate) struct Signals {
    sources: Vec<(&'static str, Signal)>,
    shutdown: Shutdown,
}

impl Shutdown {
    /// Creates a handle that SIGTERM, SIGINT and SIGQUIT drain from now on, on a thread that lives as long as the process:
    /// no signal is lost before a server runs, nor after it, when an app has still to end. The whole end, the app's
    /// included, fits into `budget`.
    ///
    /// # Errors
    ///
    /// The signal handlers or the thread cannot be set up.
    pub fn on_signals_from_now(hangup: OnHangup, budget: Option<StopBudget>) -> io::Result<Self> {
        let shutdown = Self::new(Trigger::Thread(hangup), budget);
        let (installed, outcome) = mpsc::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let driven = shutdown.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let drive = async {
                let more = [("SIGQUIT", SignalKind::quit()), ("SIGHUP", SignalKind::hangup())];
                match install(exit_signals().into_iter().chain(more)) {
                    Ok(mut sources) => {
                        // Unused, it still keeps a SIGHUP before the first reload is possible from killing the process.
                        let _held = (hangup == OnHangup::Reload).then(|| sources.pop());
                        // The creator waits for it.
                        let _ = installed.send(Ok(()));
                        let never = Signals { sources, shutdown: driven }.drive().await;
                        match never {}
                    }
                    Err(error) => drop(installed.send(Err(error))),
                }
            };
            runtime.block_on(drive);
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for signals has ended")))?;
        Ok(shutdown)
    }

    /// Installs the signal handlers if this handle reacts to signals; requires a tokio runtime.
    pub(crate) fn signals(&self) -> io::Result<Signals> {
        let sources = match self.0.trigger {
            Trigger::Signals => install(exit_signals())?,
            Trigger::Thread(_) | Trigger::Program => Vec::new(),
        };
        Ok(Signals { sources, shutdown: self.clone() })
    }

    /// Installs the SIGHUP handler if this handle reacts to signals; requires a tokio runtime.
    pub(crate) fn hangups(&self) -> io::Result<Hangups> {
        let source = match self.0.trigger {
            Trigger::Signals | Trigger::Thread(OnHangup::Reload) => Some(signal(SignalKind::hangup())?),
            Trigger::Thread(OnHangup::Exit) | Trigger::Program => None,
        };
        Ok(Hangups(source))
    }
}

fn install(kinds: impl IntoIterator<Item = (&'static str, SignalKind)>) -> io::Result<Vec<(&'static str, Signal)>> {
    kinds.into_iter().map(|(name, kind)| Ok((name, signal(kind)?))).collect()
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
        poll_fn(|context| {
            for (name, source) in &mut self.sources {
                if source.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
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
