//! `pulsegate config`: prints the effective configuration.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::source::ConfigArgs;
use crate::config::{self, Report};

/// The subcommands of `pulsegate config`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print every key with the value that is in force, as a configuration file
    #[command(after_help = "\
Paths are absolute, and the output is itself a valid configuration. The token of the admin socket is not shown. \
Certificates are not read: `pulsegate check` validates them.

Exit codes: 0 printed, 2 wrong usage, 78 wrong configuration")]
    Show(Box<Show>),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(after_help = "\
Draft 2020-12. Save it beside the configuration, and name it in the first line of the configuration: \
#:schema ./proxy.schema.json

Exit codes: 0 printed, 2 wrong usage")]
    Schema,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    source: ConfigArgs,
    /// Add the origin of each key: the file and its line, a variable, a flag, or the default
    #[arg(long)]
    origin: bool,
    /// Output format; JSON always contains the origins
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A configuration file
    #[default]
    Toml,
    /// One object: under the path of each key its `value` and its `origin`
    Json,
}

/// Runs `command`.
///
/// # Errors
///
/// The errors of writing to `out`.
pub(super) fn run(command: &Command, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show(show) => self::show(show, out),
        Command::Schema => {
            writeln!(out, "{:#}", config::json_schema()).context("cannot print")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(Show { source, origin, format }: &Show, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let shown =
        source.input().and_then(|input| config::load_shown(&input, &source.overrides, |_| Vec::new(), |_| Vec::new()));
    let shown = match shown {
        Ok((_, shown)) => shown,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
    };
    match format {
        Format::Toml => write!(out, "{}", shown.toml(*origin)),
        Format::Json => writeln!(out, "{:#}", shown.json()),
    }
    .context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}
