//! `pulsegate check`.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Overrides};

/// How the outcome is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object.
    Json,
}

/// Validates everything.
pub fn check(
    path: &Path,
    overrides: &Overrides,
    _format: Format,
    read_tls: impl Fn(&config::Tls) -> Result<(), String>,
) -> ExitCode {
    match config::load(path, overrides).map(|settings| read_tls(&settings.tls)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::from(78),
    }
}
