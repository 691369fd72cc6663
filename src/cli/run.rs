//! `pulsegate run`: the proxy itself.

use std::process::ExitCode;

use anyhow::Context;

use super::{Source, app, certificates};
use crate::config::{self, Report};
use crate::drain::Shutdown;
use crate::reload::{self, LoadError};
use crate::server::Server;
use crate::telemetry::{self, Beats};

/// Runs the proxy until a signal ends it.
pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let Source { config, overrides } = source.clone();
    let file = config.clone();
    let source = reload::Source::new(file, move || config::load_shown(&config, &overrides, certificates, app));
    // Nobody knows yet how to log: plain text for whoever started the program, and everything that is wrong at once.
    let opened = match source.open() {
        Ok(opened) => opened,
        Err(error) => {
            match error {
                LoadError::Settings(report) => eprintln!("{report}"),
                error => eprintln!("pulsegate: {error}"),
            }
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
    };
    let (levels, _flush) = telemetry::init(&opened.settings.log, Beats::AsLevel).context("cannot log")?;
    let open = opened.settings.open_routes().count();
    if open > 0 {
        tracing::warn!(routes = open, setting = "origins.allow", "open to pages of every origin");
    }
    let server = Server::follow(source, opened, levels)?;
    server.run(Shutdown::on_signals())?;
    Ok(ExitCode::SUCCESS)
}
