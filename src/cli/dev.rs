//! `pulsegate dev`.

use std::process::ExitCode;

/// First run with nothing installed.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}
