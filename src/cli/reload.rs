//! `pulsegate reload`: makes a running proxy read its configuration and certificates again.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;

use super::remote::{Reloaded, Remote, RemoteArgs, block_on};
use super::text;

/// The time limit for the response: the proxy reads its files before it responds, possibly from a slow disk.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of `pulsegate reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Open sessions keep their configuration; new ones get the new one. If the file has an error, the old configuration stays \
in force.

Exit codes: 0 the file is in force, except for the printed keys, which need a restart, 1 it is not, or no proxy answered, \
2 wrong usage")]
pub struct ReloadArgs {
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// Requests a reload, and prints its result.
///
/// # Errors
///
/// The proxy cannot be reached or refuses the request, or printing fails.
pub fn run(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    let fine = |status: &StatusCode| status.is_success() || *status == StatusCode::UNPROCESSABLE_ENTITY;
    let reloaded: Reloaded = block_on(async { Ok(remote.post("/v1/reload", None, TIMEOUT, fine).await?) })?;
    let (said, failed) = describe(&reloaded);
    if failed {
        eprintln!("pulsegate: {said}");
        return Ok(ExitCode::FAILURE);
    }
    text::print(&format!("{said}\n")).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the result as text, and whether it is a failure.
fn describe(reloaded: &Reloaded) -> (String, bool) {
    let Reloaded { result, generation, requires_restart, error } = reloaded;
    let restart = text::printable(&requires_restart.join(", "));
    match result.as_str() {
        "unchanged" => (format!("unchanged: generation {generation} stays in force"), false),
        "applied" => (format!("applied: generation {generation} is in force"), false),
        "partial" => {
            let rest = format!("these keys need a restart and are unchanged: {restart}");
            (format!("applied in part: generation {generation} is in force; {rest}"), false)
        }
        _ => {
            // The proxy's own report may have several lines; each is made printable by itself.
            let error = error.as_deref().unwrap_or("the proxy gives no reason");
            let error = error.lines().map(text::printable).collect::<Vec<_>>().join("\n");
            (format!("not reloaded, generation {generation} stays in force: {error}"), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_words() {
        let describe = |result: &str| {
            describe(&Reloaded {
                result: result.into(),
                generation: 7,
                requires_restart: vec!["listen.address".into(), "listen.workers".into()],
                error: Some("proxy.toml:3:1: unknown key\x1b[0m\nhelp".into()),
            })
        };
        assert_eq!(describe("applied"), ("applied: generation 7 is in force".into(), false));
        assert_eq!(describe("unchanged"), ("unchanged: generation 7 stays in force".into(), false));
        let (partial, failed) = describe("partial");
        assert!(partial.ends_with(": listen.address, listen.workers") && !failed, "{partial}");
        let (failure, failed) = describe("failed");
        assert!(failure.ends_with("proxy.toml:3:1: unknown key\u{fffd}[0m\nhelp") && failed, "{failure}");
    }
}
