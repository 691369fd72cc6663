//! The command line: arguments in, exit code out.

pub mod check;
pub mod dev;
mod duration;
pub mod ping;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Overrides;
use crate::tls::Identity;

/// A program that cannot start because of its configuration, certificates among it (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

/// A TLS-terminating sidecar that takes WebSocket heartbeats off an Express app's hands.
#[derive(Debug, Parser)]
#[command(name = "pulsegate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    #[command(after_help = "Exit codes: 0 ended as asked, 1 failed at run time, 2 wrong usage, 78 wrong configuration")]
    Run(run::Args),
    /// Validate the configuration and read the certificates, without opening a port
    #[command(after_help = "Exit codes: 0 all is well, 2 wrong usage, 78 wrong configuration")]
    Check(CheckArgs),
    /// Try it with nothing installed: a certificate, an echo app and the proxy in front of it
    Dev(dev::Args),
    /// Open a WebSocket and print heartbeat round trips
    Ping(ping::Args),
}

/// Which configuration is meant; flags win over the environment, which wins over the file.
#[derive(Debug, clap::Args)]
struct Source {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "config/proxy.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    source: Source,
    /// How the outcome is written
    #[arg(long, value_enum, default_value_t)]
    format: check::Format,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => Ok(check::check(&args.source.config, &Overrides::default(), args.format, |files| {
            Identity::from_pem_files(files).map(drop).map_err(|error| error.to_string())
        })),
        Command::Dev(args) => dev::run(&args),
        Command::Ping(args) => ping::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("pulsegate: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_run_reach_the_settings_as_overrides() {
        let line = ["pulsegate", "run", "-c", "a.toml", "--listen", "[::1]:0", "--upstream", "unix:/app.sock"];
        let cli = Cli::try_parse_from(line).expect("valid");
        let Command::Run(args) = cli.command else { panic!("{:?}", cli.command) };
        let overrides = args.overrides();
        assert_eq!(args.source.config, PathBuf::from("a.toml"));
        assert_eq!(overrides.listen, Some("[::1]:0".parse().expect("address")));
        assert_eq!(overrides.upstream.as_deref(), Some("unix:/app.sock"));
        assert_eq!(overrides.log_level, None);
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [&["pulsegate", "ran"][..], &["pulsegate", "run", "--listen", "8443"], &["pulsegate"]] {
            let error = Cli::try_parse_from(line).expect_err("wrong usage");
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
        let help = Cli::try_parse_from(["pulsegate", "--help"]).expect_err("clap's way of ending early");
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
