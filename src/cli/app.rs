//! The app that `run` and `dev` start: its flags, and its life around that of the proxy.

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::Builder;

use super::source::ConfigArgs;
use crate::child::{
    AppCommand, AppExit, AppProcess, Readiness, SpawnError, Wait, free_port, occupant, report_early_exit, report_exit,
    report_left_behind, until_listening,
};
use crate::config::{self, Input, Overrides, Report, UpstreamTarget};
use crate::drain::{APP_GRACE, DrainPhase, OnHangup, Shutdown, StopBudget};
use crate::server::{RunError, StartError};

/// The flags of a command that starts the app.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AppArgs {
    /// Time from SIGTERM to the SIGKILL of the platform, such as 10s; the drain and the app's own end are shortened to fit
    #[arg(long, value_name = "DURATION", value_parser = super::duration::parse, requires = "command")]
    stop_within: Option<Duration>,
    /// Command that starts the app, with PORT and HOST in its environment; pulsegate ends together with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl AppArgs {
    /// Returns the command, if there is one.
    pub(super) fn command(&self) -> Option<AppCommand> {
        AppCommand::of(&self.command)
    }

    /// Returns whether `arguments`, from which these flags were parsed, announce a command by `--` and name none, as an unset
    /// variable of a shell does.
    pub(super) fn lacks_command(&self, mut arguments: impl Iterator<Item = OsString>) -> bool {
        match self.command.first() {
            Some(program) => program.is_empty(),
            None => arguments.any(|argument| argument == "--"),
        }
    }

    /// Returns the text of the configuration. A command stands for the address of the app, so that no file is needed.
    ///
    /// # Errors
    ///
    /// As [`ConfigArgs::input`].
    pub(super) fn input(&self, source: &ConfigArgs) -> Result<Input, Report> {
        if self.command.is_empty() {
            return source.input();
        }
        let overrides = Overrides { upstream: Some(String::new()), ..source.overrides.clone() };
        ConfigArgs { overrides, ..source.clone() }.input()
    }

    /// Returns the values of the flags; with a command, those of the addresses that nothing configures are among them.
    ///
    /// # Errors
    ///
    /// As [`config::with_app_addresses`].
    pub(super) fn overrides(&self, source: &ConfigArgs, input: &Input) -> Result<Overrides, Report> {
        if self.command.is_empty() {
            return Ok(source.overrides.clone());
        }
        config::with_app_addresses(input, &source.overrides, free_port)
    }

    /// Returns the time limit of the end.
    pub(super) fn stop_within(&self) -> Option<StopBudget> {
        self.stop_within.map(StopBudget::of)
    }
}

/// Returns the exit code of a command that failed: the shell's for an app that cannot be started, and that of a wrong
/// configuration for a folder that only the attempt to write shows to be unusable.
pub(super) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(StartError::Acme(_)) = error.downcast_ref() {
        return ExitCode::from(Report::EXIT_CODE);
    }
    error.downcast_ref::<SpawnError>().map_or(ExitCode::FAILURE, |error| ExitCode::from(error.exit_code()))
}

/// Completes with true once the app listens, and with false if it will not.
pub(super) type Listening<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

/// An app to be started.
#[derive(Debug)]
pub(super) struct AppLaunch<'a> {
    /// The command that starts it.
    pub(super) command: AppCommand,
    /// The address at which it should listen.
    pub(super) address: &'a UpstreamTarget,
    /// The flag that names another address.
    pub(super) flag: &'static str,
    /// The effect of a SIGHUP.
    pub(super) hangup: OnHangup,
    /// The time limit of the end.
    pub(super) stop_within: Option<StopBudget>,
}

impl AppLaunch<'_> {
    /// Starts the app, calls `serve` with a future that completes with true once it listens, and with false if it will not,
    /// ends it after that, and returns its exit code.
    ///
    /// # Errors
    ///
    /// The app cannot be started, or `serve` fails; no process of the app is left in either case.
    pub(super) fn serve(
        self,
        serve: impl FnOnce(Shutdown, Listening<'_>) -> Result<(), RunError>,
    ) -> anyhow::Result<ExitCode> {
        let shutdown = Shutdown::on_signals_from_now(self.hangup, self.stop_within).context("cannot handle signals")?;
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot wait for the app")?;
        if let Some(occupant) = occupant(self.address) {
            bail!(
                "cannot start the app: {occupant} already listens on {}, and would be taken for it; end that program, or choose another address with {}",
                self.address,
                self.flag
            );
        }
        let ends_unasked = Arc::new(AtomicBool::new(false));
        let on_exit = {
            let (ends_unasked, shutdown) = (Arc::clone(&ends_unasked), shutdown.clone());
            move |exit| {
                report_exit(exit);
                ends_unasked.store(shutdown.phase() == DrainPhase::Serving, Ordering::Relaxed);
            }
        };
        let ended = shutdown.clone();
        let process = self.command.start(self.address, on_exit, move || ended.app_ended())?;
        let wait = Wait { app: &process, address: self.address, flag: self.flag };
        let listening = async {
            match until_listening(wait, shutdown.announced()).await {
                Readiness::Listening => true,
                Readiness::Exited(exit) => {
                    // The thread that waits for it may report it later.
                    shutdown.app_ended();
                    self.report_early(exit);
                    false
                }
                Readiness::Cancelled => false,
            }
        };
        let served = serve(shutdown.clone(), Box::pin(listening));
        if ends_unasked.load(Ordering::Relaxed) {
            runtime.block_on(report_others(&process));
        }
        let exit = runtime.block_on(self.stop(&process, &shutdown));
        match served {
            // An abort of the drain has been logged. The app has ended in either case.
            Ok(()) | Err(RunError::Aborted) => Ok(ExitCode::from(exit.code())),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the app within its grace; a further signal cuts that short.
    async fn stop(&self, process: &AppProcess, shutdown: &Shutdown) -> AppExit {
        let elapsed = shutdown.exit_requested_at().map_or(Duration::ZERO, |at| at.elapsed());
        let grace = self.stop_within.map_or(APP_GRACE, |budget| budget.left_for_app(elapsed));
        process.stop(grace, shutdown.insisted()).await
    }

    /// Logs that the app has ended before it listened.
    fn report_early(&self, exit: AppExit) {
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let mend = self.command.missing_file(&folder).unwrap_or_else(|| match exit.code() {
            0 => "let it run in the foreground, since pulsegate ends together with it".to_owned(),
            _ => "read its output above".to_owned(),
        });
        report_early_exit(exit, self.address, &mend);
    }
}

/// Logs the processes that the app's first one has left behind by a successful end, as a program does that goes into the
/// background.
async fn report_others(process: &AppProcess) {
    let exit = process.exited().await;
    if exit == AppExit::Code(0) {
        let left = process.left_behind().await;
        if !left.is_empty() {
            report_left_behind(exit, &left);
        }
    }
}
