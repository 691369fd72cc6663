//! `pulsegate run`: the proxy itself.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;

use super::{EXIT_CONFIGURATION, Source};
use crate::config::{self, Overrides};
use crate::drain::Shutdown;
use crate::server::Server;
use crate::telemetry::{self, Beats};
use crate::tls::Identity;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) source: Source,
    /// Where to accept connections, instead of `listen.address`
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The app behind the proxy, instead of `upstream.url`: `http://host:port` or `unix:/path`
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Least severe level that is logged, instead of `log.level`
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
}

impl Args {
    pub(super) fn overrides(&self) -> Overrides {
        Overrides { listen: self.listen, upstream: self.upstream.clone(), log_level: self.log_level.clone() }
    }
}

/// Runs the proxy until a signal ends it.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = match config::load(&args.source.config, &args.overrides()) {
        Ok(settings) => settings,
        Err(report) => return Ok(refuse(&report)),
    };
    let identity = match Identity::from_pem_files(&settings.tls) {
        Ok(identity) => identity,
        Err(error) => return Ok(refuse(&format_args!("pulsegate: {error}"))),
    };
    telemetry::init(settings.log, Beats::AsLevel).context("cannot log")?;
    let server = Server::bind(settings, identity)?;
    server.run(Shutdown::on_signals())?;
    Ok(ExitCode::SUCCESS)
}

/// Before the configuration is known nobody knows either how to log: plain text for whoever started the program.
fn refuse(reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::from(EXIT_CONFIGURATION)
}
