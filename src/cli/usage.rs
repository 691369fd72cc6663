//! Tips for command lines in the style of other programs.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of other programs, with the equivalent one.
const COMMANDS: [(&[&str], &str); 5] = [
    (&["start", "serve", "server", "up", "proxy", "daemon"], "run"),
    (&["validate", "test", "lint", "configtest", "verify"], "check"),
    (&["stop", "shutdown", "quit"], "drain"),
    (&["list", "ls", "ps", "sessions", "connections"], "conns"),
    (&["disconnect", "close"], "kill"),
];

/// Flags of other programs, with the equivalent one.
const FLAGS: [(&[&str], &str); 7] = [
    (&["--port", "-p", "--bind", "--address", "--host", "-l"], "--listen ADDRESS:PORT, as in --listen 0.0.0.0:8443"),
    (
        &["--to", "--target", "--backend", "--app", "--upstream"],
        "--upstream URL, as in --upstream http://127.0.0.1:3000",
    ),
    (&["--cert", "--crt", "--tls-cert", "--ssl-cert", "--tls-certificate"], "--certificate FILE"),
    (&["--key", "--tls-key", "--ssl-key", "--tls-private-key"], "--private-key FILE"),
    (&["--file", "-f", "--conf", "--configuration", "--config-file"], "-c FILE"),
    (&["--verbose", "-v", "--debug", "--log"], "--log-level debug"),
    (&["--json"], "--log-format json"),
];

/// Returns the error for a `--` without a command after it.
pub(super) fn without_command(mut program: clap::Command) -> clap::Error {
    let example = "write it, as in `-- node server.js`, or leave the -- out; a variable of the shell may be unset";
    program.error(ErrorKind::MissingRequiredArgument, format!("the app's command after -- is empty: {example}"))
}

/// Adds a tip to `error` that names the equivalent of one of `arguments`, of which the first is the program; only if
/// one is known.
pub(super) fn with_remedy(mut error: clap::Error, mut arguments: impl Iterator<Item = String>) -> clap::Error {
    let context = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand => context(&error, ContextKind::InvalidSubcommand).and_then(|word| {
            let (_, command) = COMMANDS.iter().find(|(words, _)| words.contains(&word.as_str()))?;
            Some(format!("the command is `pulsegate {command}`"))
        }),
        ErrorKind::UnknownArgument => context(&error, ContextKind::InvalidArg).and_then(|flag| {
            let flag = flag.split(['=', ' ']).next().unwrap_or_default();
            let first = arguments.nth(1);
            if let (Some(command @ ("run" | "dev")), false) = (first.as_deref(), flag.starts_with('-')) {
                return Some(format!("the app's command follows --, as in pulsegate {command} -- {flag}"));
            }
            let (_, meant) = FLAGS.iter().find(|(flags, _)| flags.contains(&flag))?;
            match first.as_deref() {
                Some("run" | "check" | "config") => Some(format!("the flag is {meant}")),
                // `dev` has a --listen of its own, and another flag for the app.
                Some("dev") if meant.starts_with("--listen") => Some("the flag is --listen 127.0.0.1:PORT".to_owned()),
                Some("dev") if meant.starts_with("--upstream") => {
                    Some("the flag is --to URL, as in --to http://127.0.0.1:3000".to_owned())
                }
                Some(first) if first.starts_with('-') => {
                    Some(format!("the command comes first: pulsegate run {meant}"))
                }
                _ => None,
            }
        }),
        _ => None,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        // clap takes an unknown flag for a word of the app's command.
        error.remove(ContextKind::Suggested);
    }
    if let Some(tip) = tip {
        // clap's own suggestion, by similar spelling, would differ.
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}
