//! `pulsegate reload`: has a running proxy read its configuration and certificates anew.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;

use super::remote::{Reloaded, Remote, Where, block_on};
use super::text;

/// Files are read before the answer comes, from whatever disk they are on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Established sessions keep what they were opened with; new ones get what is new. With anything wrong in the file, all \
stays as it is.

Exit codes: 0 what is in the file is in force, but for keys that are named as needing a restart, 1 it is not, or no \
proxy could be asked, 2 wrong usage")]
pub struct Args {
    #[command(flatten)]
    proxy: Where,
}

/// Reloads, and prints what came of it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    let fine = |status: &StatusCode| status.is_success() || *status == StatusCode::UNPROCESSABLE_ENTITY;
    let reloaded: Reloaded = block_on(async { Ok(remote.post("/v1/reload", None, PATIENCE, fine).await?) })?;
    let (said, failed) = told(&reloaded);
    if failed {
        eprintln!("pulsegate: {said}");
        return Ok(ExitCode::FAILURE);
    }
    text::print(&format!("{said}\n")).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// What has come of it in words, and whether that is a failure.
fn told(reloaded: &Reloaded) -> (String, bool) {
    let Reloaded { result, generation, requires_restart, error } = reloaded;
    let restart = text::printable(&requires_restart.join(", "));
    match result.as_str() {
        "unchanged" => (format!("unchanged: generation {generation} stays in force"), false),
        "applied" => (format!("applied: generation {generation} is in force"), false),
        "partial" => {
            let rest = format!("these keys want a restart and are as before: {restart}");
            (format!("applied in part: generation {generation} is in force; {rest}"), false)
        }
        _ => {
            // The proxy's own report may have lines; each is made safe alone.
            let error = error.as_deref().unwrap_or("the proxy does not say why");
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
        let told = |result: &str| {
            told(&Reloaded {
                result: result.into(),
                generation: 7,
                requires_restart: vec!["listen.address".into(), "listen.workers".into()],
                error: Some("proxy.toml:3:1: unknown key\x1b[0m\nhelp".into()),
            })
        };
        assert_eq!(told("applied"), ("applied: generation 7 is in force".into(), false));
        assert_eq!(told("unchanged"), ("unchanged: generation 7 stays in force".into(), false));
        let (partial, failed) = told("partial");
        assert!(partial.ends_with(": listen.address, listen.workers") && !failed, "{partial}");
        let (failure, failed) = told("failed");
        assert!(failure.ends_with("proxy.toml:3:1: unknown key\u{fffd}[0m\nhelp") && failed, "{failure}");
    }
}
