//! The command line: arguments in, exit code out. One file per command.

mod app;
pub mod check;
mod completions;
mod config;
pub mod conns;
pub mod dev;
pub mod diagnose;
pub mod drain;
mod duration;
pub mod healthcheck;
pub mod inject;
pub mod kill;
mod man;
pub mod ping;
pub mod reload;
mod remote;
pub mod revoke;
mod run;
mod source;
mod text;
pub mod top;
mod units;
mod usage;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use self::app::AppArgs;
use self::source::ConfigArgs;
use self::text::{complain, fault};
use crate::config::{FileCache, TlsSettings, unread_variables};
use crate::upstream::App;

/// A TLS-terminating sidecar that runs the WebSocket heartbeats of an Express app.
#[derive(Debug, Parser)]
#[command(name = "pulsegate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    #[command(
        after_help = "A public site, with its app and without a file:\n  pulsegate run --domain app.example.com --email ops@example.com -- node server.js\n\nExit codes: 0 ended as asked, 1 failed at run time, 2 wrong usage, 78 wrong configuration; with a command the app's own, also after a second signal, 128 + n after signal n, 126 or 127 if it cannot be started"
    )]
    Run(run::RunArgs),
    /// Validate the configuration and read the certificates, without opening a port
    #[command(
        after_help = "Exit codes: 0 all is well, 2 wrong usage, 78 wrong configuration, or with --connect an app that cannot be used"
    )]
    Check(Check),
    /// Print the configuration, or its schema
    #[command(subcommand)]
    Config(config::Command),
    /// Try it with nothing installed: a certificate, an echo app and the proxy in front of it
    Dev(dev::DevArgs),
    /// Open a WebSocket and print heartbeat round trips
    Ping(ping::PingArgs),
    /// List the sessions of a running proxy
    Conns(conns::ConnsArgs),
    /// Print the diagnosis of one session, or of those of one address
    Diagnose(diagnose::DiagnoseArgs),
    /// Watch the sessions of a running proxy
    Top(top::TopArgs),
    /// Close sessions of a running proxy
    Kill(kill::KillArgs),
    /// Take a running proxy out of service: no new connections, sessions closed in order
    Drain(drain::DrainArgs),
    /// Reload the configuration and certificates of a running proxy
    Reload(reload::ReloadArgs),
    /// Revoke the certificate that was ordered from an authority
    Revoke(revoke::RevokeArgs),
    /// Add the sidecar to a Kubernetes manifest, or remove it: text in, text out
    Inject(inject::InjectArgs),
    /// Check that a proxy is alive, or ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the completions of a shell
    #[command(
        after_help = "For bash: pulsegate completions bash > ~/.local/share/bash-completion/completions/pulsegate"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "To read it: pulsegate man | man -l -")]
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl Command {
    /// Returns the arguments for an app to start, if the command takes them.
    fn app(&self) -> Option<&AppArgs> {
        match self {
            Self::Run(run::RunArgs { app, .. }) | Self::Check(Check { app, .. }) => Some(app),
            Self::Dev(args) => Some(args.app()),
            _ => None,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    source: ConfigArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: check::OutputFormat,
    /// Try every app too: connect, perform the TLS handshake, and send the request of its health check
    #[arg(long, conflicts_with = "command")]
    connect: bool,
    #[command(flatten)]
    app: AppArgs,
}

/// Runs the command that the arguments name, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => usage::with_remedy(error, std::env::args()).exit(),
    };
    if let Some(app) = cli.command.app()
        && app.lacks_command(std::env::args_os())
    {
        usage::without_command(Cli::command()).exit();
    }
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check_source(&args),
        Command::Config(command) => config::run(&command, &mut io::stdout().lock()),
        Command::Dev(args) => dev::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Conns(args) => conns::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Revoke(args) => revoke::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Completions { shell } => completions::print(shell, Cli::command(), &mut io::stdout().lock()),
        Command::Man { directory: None } => man::print(Cli::command(), &mut io::stdout().lock()),
        Command::Man { directory: Some(folder) } => man::write(Cli::command(), &folder),
    };
    result.unwrap_or_else(|error| {
        complain(&fault(&error));
        app::exit_code(&error)
    })
}

fn check_source(args: &Check) -> anyhow::Result<ExitCode> {
    let Check { source, format, connect, app } = args;
    let unread = unread_variables();
    let mut out = io::stdout().lock();
    let configuration = app.input(source).and_then(|input| Ok((app.overrides(source, &input)?, input)));
    let verdict = match configuration {
        Ok((overrides, input)) => {
            let cache = &FileCache::default();
            let started = app.command();
            let subject = check::Subject {
                input: &input,
                overrides: &overrides,
                started: started.as_ref(),
                unread: &unread,
                cache,
            };
            let certificates = |tls: &TlsSettings| run::tls_faults(tls, cache);
            let connect: Option<check::Connect<'_>> = if *connect { Some(&check::connect::try_apps) } else { None };
            check::check(subject, *format, certificates, |app| App::faults(app, cache), connect, &mut out)
        }
        Err(report) => check::refused(&report, *format, &mut out),
    };
    verdict.map(ExitCode::from).context("cannot check")
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn tls_files_for_an_app_are_looked_at() {
        use crate::config::{UpstreamSettings, UpstreamTarget, UpstreamTls};

        let app = |upstream: &UpstreamSettings| App::faults(upstream, &FileCache::default());
        let target = UpstreamTarget::Tcp { host: "app.test".into(), port: 443 };
        let problem = |tls| {
            let faults = app(&UpstreamSettings { tls: Some(tls), ..UpstreamSettings::at(target.clone()) });
            faults.into_iter().map(|fault| fault.what).collect::<Vec<_>>().join("\n")
        };
        let ca = problem(UpstreamTls { ca: Some("/nowhere/ca.pem".into()), ..UpstreamTls::default() });
        assert!(ca.starts_with("cannot read certificates from /nowhere/ca.pem: "), "{ca}");
        let identity = Some(("/nowhere/tls.crt".into(), "/nowhere/tls.key".into()));
        let identity = problem(UpstreamTls { identity, ..UpstreamTls::default() });
        assert!(identity.starts_with("/nowhere/tls.crt: cannot be read: "), "{identity}");
        assert!(identity.contains("\n/nowhere/tls.key: cannot be read: "), "both files: {identity}");
        assert_eq!(app(&UpstreamSettings::at(target)), []);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_run_and_check_reach_the_settings_as_overrides() {
        for command in ["run", "check"] {
            let flags = ["-c", "a.toml", "--listen", "[::1]:0", "--upstream", "unix:/app.sock", "--log-level", "debug"];
            let line = ["pulsegate", command].into_iter().chain(flags);
            let source = match Cli::try_parse_from(line).expect("valid").command {
                Command::Run(run::RunArgs { source, .. }) | Command::Check(Check { source, .. }) => source,
                other => panic!("{other:?}"),
            };
            assert_eq!(source.config, Some(PathBuf::from("a.toml")));
            let expected = Overrides {
                listen: Some("[::1]:0".into()),
                upstream: Some("unix:/app.sock".into()),
                log_level: Some("debug".into()),
                ..Overrides::default()
            };
            assert_eq!(source.overrides, expected);
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [&["pulsegate", "ran"][..], &["pulsegate", "run", "--lisen", "[::1]:0"], &["pulsegate"]] {
            let error = Cli::try_parse_from(line).expect_err("wrong usage");
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
        let error = usage::without_command(Cli::command());
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("the app's command after -- is empty"), "{error}");
        let help = Cli::try_parse_from(["pulsegate", "--help"]).expect_err("clap's way of ending early");
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
