//! `pulsegate run`: the proxy itself.

use std::process::ExitCode;

use anyhow::Context;

use super::{Source, app, certificates};
use crate::config::{self, Report};
use crate::drain::Shutdown;
use crate::server::Server;
use crate::telemetry::{self, Beats};
use crate::tls::Terms;

/// Runs the proxy until a signal ends it.
pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    // Nobody knows yet how to log: plain text for whoever started the program, and everything that is wrong at once.
    let settings = match config::load_with(&source.config, &source.overrides, certificates, app) {
        Ok(settings) => settings,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
    };
    let terms = match Terms::from_pem_files(&settings.tls) {
        Ok(terms) => terms,
        Err(error) => {
            eprintln!("pulsegate: {error}");
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
    };
    telemetry::init(&settings.log, Beats::AsLevel).context("cannot log")?;
    let open = settings.open_routes().count();
    if open > 0 {
        tracing::warn!(routes = open, setting = "origins.allow", "open to pages of every origin");
    }
    let server = Server::bind(settings, terms)?;
    server.run(Shutdown::on_signals())?;
    Ok(ExitCode::SUCCESS)
}
