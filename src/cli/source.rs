//! The flags that name a configuration.

use std::path::PathBuf;

use crate::config::{Input, Overrides, Report};

/// The source of the configuration; flags take precedence over the environment, and the environment over the file.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file; - reads standard input [default: config/proxy.toml; without that file, flags and
    /// environment set all keys]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overrides: Overrides,
}

impl ConfigArgs {
    /// Returns the text of the configuration; standard input is read here.
    pub(super) fn input(&self) -> Result<Input, Report> {
        Input::of(self.config.as_deref(), &self.overrides)
    }
}
