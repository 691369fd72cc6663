//! Configuration: defaults < file < environment < flags.

mod settings;

pub use settings::*;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// What the command line says over file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `listen.address`.
    pub listen: Option<SocketAddr>,
    /// `upstream.url`.
    pub upstream: Option<String>,
    /// `log.level`.
    pub log_level: Option<String>,
}

/// Everything that is wrong.
#[derive(Debug)]
pub struct Report;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not yet")
    }
}

impl std::error::Error for Report {}

/// Loads and validates.
pub fn load(_path: &Path, _overrides: &Overrides) -> Result<Settings, Report> {
    Err(Report)
}
