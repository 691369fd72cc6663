//! `pulsegate healthcheck`: an exec probe for images without a shell or curl.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::remote::{Address, Remote, block_on};
use super::text;

/// The arguments of `pulsegate healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Alive: the process answers, during a drain too. Ready: it is a target for new connections: it is not draining, and its
app has been reached and answers.

As a Docker HEALTHCHECK: [\"CMD\", \"/pulsegate\", \"healthcheck\", \"--ready\"]

Exit codes: 0 yes, 1 no, or no answer, 2 wrong usage")]
pub struct HealthcheckArgs {
    /// Check that the proxy is ready, not only alive
    #[arg(long)]
    ready: bool,
    /// The health listener: host:port or a URL [default: `admin.health` of the configuration, on loopback]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Address>,
    /// The configuration file with the address [default: config/proxy.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Time limit of the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration::parse)]
    timeout: Duration,
}

/// Sends the probe, and prints the response in one line.
///
/// # Errors
///
/// The health listener cannot be reached, or printing fails.
pub fn run(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::health(args.address.clone(), args.config.clone())?;
    let (path, yes) = if args.ready { ("/readyz", "ready") } else { ("/livez", "alive") };
    let (status, reason) = block_on(async { Ok(remote.probe(path, args.timeout).await?) })?;
    if status.is_success() {
        text::print(&format!("{yes}\n")).context("cannot print")?;
        return Ok(ExitCode::SUCCESS);
    }
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    text::print(&format!("not {yes} ({status}){reason}\n")).context("cannot print")?;
    Ok(ExitCode::FAILURE)
}
