//! `pulsegate run`: runs the proxy.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::app::{self, AppArgs, AppLaunch};
use super::source::ConfigArgs;
use super::text::{self, complain, fault};
use crate::acme;
use crate::config::{self, FileCache, Finding, Input, LogFormat, Report, TlsFault, TlsRole, TlsSettings};
use crate::drain::{OnHangup, Shutdown};
use crate::reload::{self, LoadError};
use crate::server::Server;
use crate::telemetry::{self, HeartbeatLogging};
use crate::tls::ServerConfigs;
use crate::upstream::App;

/// The arguments of `pulsegate run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) source: ConfigArgs,
    #[command(flatten)]
    pub(super) app: AppArgs,
}

/// Runs the proxy until a signal ends it, or the app that it has started.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let command = args.app.command();
    let input = match args.app.input(&args.source) {
        Ok(input) => input,
        Err(report) => {
            let format = config::log_format(&Input::Nothing, &args.source.overrides);
            return Ok(refused(&LoadError::Settings(report), format));
        }
    };
    let overrides = match args.app.overrides(&args.source, &input) {
        Ok(overrides) => overrides,
        Err(report) => {
            let format = config::log_format(&input, &args.source.overrides);
            return Ok(refused(&LoadError::Settings(report), format));
        }
    };
    let source = {
        let (input, overrides) = (input.clone(), overrides.clone());
        let file = input.file().map(std::path::Path::to_path_buf);
        reload::ConfigSource::new(file, move |cache| {
            config::load_shown(&input, &overrides, |tls| tls_faults(tls, cache), |app| App::faults(app, cache))
        })
    };
    let opened = match source.open() {
        Ok(opened) => opened,
        Err(error) => return Ok(refused(&error, config::log_format(&input, &overrides))),
    };
    let format = opened.settings.log.format;
    let (levels, flush) = telemetry::init(&opened.settings.log, HeartbeatLogging::AsLevel).context("cannot log")?;
    let open = opened.settings.open_routes().count();
    if open > 0 {
        tracing::warn!(routes = open, setting = "origins.allow", "open to pages of every origin");
    }
    for config::UnreadVariable { variable, instead } in config::unread_variables() {
        tracing::warn!(variable, mend = format!("set {instead}"), "config.variable_not_read");
    }
    let address = opened.settings.upstream.target.clone();
    let app = command.map(|command| {
        let (hangup, stop_within) = (OnHangup::Reload, args.app.stop_within());
        AppLaunch { command, address: &address, flag: "--upstream", hangup, stop_within }
    });
    let served = Server::with_reloads(source, opened, levels).map_err(anyhow::Error::from);
    let served = served.and_then(|server| match app {
        Some(app) => app.serve(|shutdown, listening| server.run_behind(shutdown, async { Ok(listening.await) })),
        None => Ok(server.run(Shutdown::on_signals()).map(|()| ExitCode::SUCCESS)?),
    });
    // All log lines are written before the error.
    drop(flush);
    match served {
        Ok(code) => Ok(code),
        Err(error) if format == LogFormat::Json => {
            let fields = [("error".to_owned(), fault(&error).into())].into_iter().collect();
            // In one piece: the app may write there, too.
            let _ = io::stderr().write_all(format!("{}\n", line("fatal", fields)).as_bytes());
            Ok(app::exit_code(&error))
        }
        Err(error) => Err(error),
    }
}

/// Returns the faults of all files that `tls` names, and of the folder for ordered certificates.
pub(super) fn tls_faults(tls: &TlsSettings, cache: &FileCache) -> Vec<TlsFault> {
    let mut faults = ServerConfigs::faults(tls, cache);
    // One that names the folder already is enough.
    if faults.iter().all(|fault| fault.role != TlsRole::Storage) {
        faults.extend(tls.acme.as_deref().map(|acme| acme::faults(acme, cache)).unwrap_or_default());
    }
    faults
}

/// Writes all faults of a configuration that cannot be used, as text or as one JSON object per line.
fn refused(error: &LoadError, format: LogFormat) -> ExitCode {
    match (error, format) {
        (LoadError::Settings(report), LogFormat::Json) => {
            for finding in report.findings() {
                eprintln!("{}", line("config.invalid", fields(finding)));
            }
        }
        (LoadError::Settings(report), _) => eprintln!("{report}"),
        (error, LogFormat::Json) => return invalid(&error.one_line(), format),
        (error, _) => return invalid(&error.to_string(), format),
    }
    ExitCode::from(Report::EXIT_CODE)
}

/// Writes the fault of a configuration that cannot be used.
fn invalid(error: &str, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Json => {
            eprintln!("{}", line("config.invalid", [("error".to_owned(), error.into())].into_iter().collect()));
        }
        _ => complain(error),
    }
    ExitCode::from(Report::EXIT_CODE)
}

/// Returns the fields of a finding, with its message as `error`.
fn fields(finding: &Finding) -> Map<String, Value> {
    let Value::Object(mut fields) = json!(finding) else { return Map::new() };
    if let Some(message) = fields.remove("message") {
        fields.insert("error".to_owned(), message);
    }
    fields
}

/// Returns a JSON line in the log's format, for errors that end the process regardless of the log level.
fn line(message: &str, mut fields: Map<String, Value>) -> String {
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    fields.insert("target".to_owned(), "pulsegate".into());
    let fields = Value::Object(fields).to_string();
    // The first three fields are in the order of the log's other lines.
    let begin = format!("{{\"timestamp\":\"{timestamp}\",\"level\":\"ERROR\",\"message\":\"{message}\"");
    text::escaped(&format!("{begin},{}", &fields[1..]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;
    use crate::config::{Environment, Overrides, from_str};

    #[test]
    fn a_fatal_error_is_a_line_of_the_log() {
        let text = "[listen]\naddress = \"127.0.0.1:99999\"\n[tls]\nmode = \"of\u{202e}f\"\n";
        let report = from_str(Path::new("proxy.toml"), text, &Environment::default(), &Overrides::default());
        let report = report.expect_err("three errors");
        let lines = report.findings().iter().map(|finding| {
            let line = line("config.invalid", fields(finding));
            let mut value: Value = serde_json::from_str(&line).expect("one object a line");
            let timestamp = value.as_object_mut().and_then(|object| object.remove("timestamp")).expect("a time");
            let timestamp = timestamp.as_str().map(humantime::parse_rfc3339).expect("text");
            assert!(timestamp.is_ok() && !line.contains(['\n', '\u{202e}']), "{line}");
            text::escaped(&value.to_string())
        });
        assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        {"error":"`upstream.url` is missing: where the app listens","file":"proxy.toml","help":"set `url` in [upstream], PULSEGATE__UPSTREAM__URL, or --upstream","key":"upstream.url","level":"ERROR","message":"config.invalid","target":"pulsegate"}
        {"column":11,"error":"`listen.address` must be an address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"","file":"proxy.toml","help":"99999 is no port: ports go up to 65535","key":"listen.address","level":"ERROR","line":2,"message":"config.invalid","target":"pulsegate","text":"\"127.0.0.1:99999\""}
        {"column":2,"error":"`tls.certificate` is missing: the PEM file of the server's certificate chain","file":"proxy.toml","help":"set `certificate` in [tls], PULSEGATE__TLS__CERTIFICATE, or --certificate","key":"tls.certificate","level":"ERROR","line":3,"message":"config.invalid","target":"pulsegate","text":"tls"}
        {"column":2,"error":"`tls.private_key` is missing: the PEM file of the certificate's key","file":"proxy.toml","help":"set `private_key` in [tls], PULSEGATE__TLS__PRIVATE_KEY, or --private-key","key":"tls.private_key","level":"ERROR","line":3,"message":"config.invalid","target":"pulsegate","text":"tls"}
        {"column":8,"error":"`tls.mode` must be \"terminate\" or \"off\"","file":"proxy.toml","help":"did you mean \"off\"?","key":"tls.mode","level":"ERROR","line":4,"message":"config.invalid","target":"pulsegate","text":"\"of\u202ef\""}
        "#);
    }
}
