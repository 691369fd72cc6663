//! `pulsegate check`: reports the faults of a configuration, or the service that it describes.

pub mod connect;
mod heartbeat;
mod listener;
mod operations;
mod overlap;
mod warnings;

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use connect::AppTrial;

use warnings::warnings;

use crate::child::AppCommand;
use crate::config::{
    self, FileCache, Input, OriginPolicy, Overrides, Report, Route, Settings, TlsFault, TlsSettings, UnreadVariable,
    UpstreamSettings, UpstreamTarget,
};

/// The output format of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object: `valid`, `errors`, and where there are none `warnings`, `notes` and `serves`; `starts` with a
    /// command.
    Json,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// `run` would start with this configuration, as far as can be determined without listening.
    Valid,
    /// `run` would refuse this configuration, or, with `--connect`, an app cannot be used.
    Invalid,
}

impl From<CheckResult> for ExitCode {
    fn from(verdict: CheckResult) -> Self {
        match verdict {
            CheckResult::Valid => Self::SUCCESS,
            CheckResult::Invalid => Self::from(Report::EXIT_CODE),
        }
    }
}

/// A function that tries every app of a configuration.
pub type Connect<'a> = &'a dyn Fn(&Settings, &FileCache) -> io::Result<Vec<AppTrial>>;

/// The configuration to check.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The source of its text.
    pub input: &'a Input,
    /// The values given by flags.
    pub overrides: &'a Overrides,
    /// The command that would start the app.
    pub started: Option<&'a AppCommand>,
    /// The environment variables that are not read.
    pub unread: &'a [UnreadVariable],
    /// The cache through which TLS files are read.
    pub cache: &'a FileCache,
}

/// Loads and validates the whole configuration without opening a listener. Writes all its faults to `out`, or, if there
/// are none, a description of the service.
///
/// `certificates` reads the TLS files and returns their faults, and `app` does the same for the files of an app behind
/// TLS. `connect`, if given, tries the apps of a valid configuration.
///
/// # Errors
///
/// The errors of writing to `out`, and those of `connect`.
pub fn check(
    subject: Subject<'_>,
    format: OutputFormat,
    certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>,
    app: impl Fn(&UpstreamSettings) -> Vec<TlsFault>,
    connect: Option<Connect<'_>>,
    out: &mut impl Write,
) -> io::Result<CheckResult> {
    let Subject { input, overrides, started, unread, cache } = subject;
    let loaded = config::load_with(input, overrides, certificates, app);
    let trials = match (&loaded, connect) {
        (Ok(settings), Some(connect)) => Some(connect(settings, cache)?),
        _ => None,
    };
    let errors: Vec<Value> = trials.iter().flatten().filter_map(AppTrial::finding).collect();
    let is_valid = loaded.is_ok() && errors.is_empty();
    match (&loaded, format) {
        (Ok(settings), OutputFormat::Human) => {
            let warnings = warnings(settings, unread, cache);
            describe(input, settings, started, trials.as_deref().unwrap_or_default(), &warnings, out)?;
        }
        (Ok(settings), OutputFormat::Json) => {
            let mut said = json!({
                "valid": is_valid,
                "errors": errors,
                "warnings": warnings(settings, unread, cache),
                "notes": operations::notes(&settings.admin),
                "serves": serves(settings),
            });
            if let Some(command) = started {
                said["starts"] = command.to_string().into();
            }
            if let Some(trials) = trials {
                said["connects"] = trials.iter().map(AppTrial::fact).collect();
            }
            writeln!(out, "{said:#}")?;
        }
        (Err(report), format) => return refused(report, format, out),
    }
    Ok(if is_valid { CheckResult::Valid } else { CheckResult::Invalid })
}

/// Writes the faults of a configuration that cannot be used.
pub(super) fn refused(report: &Report, format: OutputFormat, out: &mut impl Write) -> io::Result<CheckResult> {
    match format {
        OutputFormat::Human => writeln!(out, "{report}")?,
        OutputFormat::Json => writeln!(out, "{:#}", json!({ "valid": false, "errors": report.findings() }))?,
    }
    Ok(CheckResult::Invalid)
}

fn describe(
    input: &Input,
    settings: &Settings,
    started: Option<&AppCommand>,
    trials: &[AppTrial],
    warnings: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{input} is valid.")?;
    if let Some(command) = started {
        let port = match &settings.upstream.target {
            UpstreamTarget::Tcp { port, .. } => format!(", with PORT={port} in its environment"),
            UpstreamTarget::Unix(_) => String::new(),
        };
        item("starts", &[format!("{command}{port}")], out)?;
    }
    for (about, lines) in listener::sentences(settings).into_iter().chain(operations::sentences(settings)) {
        item(about, &lines, out)?;
    }
    let routes = &settings.routes;
    let alike = routes.iter().all(|route| route.origins == routes[0].origins);
    if alike && *routes[0].origins != OriginPolicy::Any {
        item("lets in", &[listener::pages(&routes[0].origins)], out)?;
    }
    let width = routes.iter().map(|route| overlap::label(route).len()).max().unwrap_or(0);
    for route in routes {
        let mut lines = outline(route);
        if route.upstream != settings.upstream {
            let mut to = listener::app(&route.upstream).into_iter();
            lines.extend(to.next().map(|first| format!("to {first}")));
            lines.extend(to);
        }
        if !alike {
            lines.push(format!("lets in {}", listener::pages(&route.origins)));
        }
        let mut lines = lines.into_iter();
        writeln!(out, "  route        {:width$}  {}", overlap::label(route), lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "               {:width$}    {line}", "")?;
        }
    }
    let overlaps = overlap::sentences(routes);
    if !overlaps.is_empty() {
        item("overlaps", &overlaps, out)?;
    }
    let connects: Vec<String> = trials.iter().filter_map(AppTrial::line).collect();
    if !connects.is_empty() {
        item("connects", &connects, out)?;
    }
    for error in trials.iter().filter_map(AppTrial::error) {
        writeln!(out, "\nerror: {error}")?;
    }
    for warning in warnings {
        writeln!(out, "\nwarning: {warning}")?;
    }
    for note in operations::notes(&settings.admin) {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}

/// Writes lines about one subject, with its name before the first.
fn item(about: &str, lines: &[String], out: &mut impl Write) -> io::Result<()> {
    for (at, line) in lines.iter().enumerate() {
        writeln!(out, "  {:12} {line}", if at == 0 { about } else { "" })?;
    }
    Ok(())
}

/// Describes a route in lines: the heartbeat and the limits of its sessions, and its kinds of sessions if there are
/// several.
fn outline(route: &Route) -> Vec<String> {
    let mut lines = heartbeat::sentences(&route.heartbeat);
    if let Some(first) = lines.first_mut() {
        first.push_str(&listener::session_bounds(&route.limits));
    }
    lines
}

fn serves(settings: &Settings) -> Value {
    let routes = settings.routes.iter().map(|route| {
        let mut facts = heartbeat::facts(&route.heartbeat);
        facts.extend(listener::route_facts(route).into_iter().map(|(key, value)| (key.to_owned(), value)));
        Value::Object(facts)
    });
    let routes: Vec<Value> = routes.collect();
    let mut facts = listener::facts(settings);
    facts["routes"] = routes.into();
    for (section, of_section) in operations::facts(settings) {
        facts[section] = of_section;
    }
    facts["overlaps"] = overlap::sentences(&settings.routes).into();
    facts
}

#[cfg(test)]
mod tests;
