//! `pulsegate drain`: takes a running proxy out of service without ending its process.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::StatusCode;
use tokio::time::sleep;

use super::remote::{Draining, Remote, RemoteArgs, TIMEOUT, block_on};
use super::text;

/// The interval between two requests for the state of the drain.
const PAUSE: Duration = Duration::from_millis(250);
/// The least interval between two reports in the same phase.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The arguments of `pulsegate drain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The proxy reports on /readyz that it is not ready, accepts connections for `drain.delay` more, then closes its sessions \
over `drain.window` and finishes its requests. It does not exit. Repeating the command has no effect.

`pulsegate drain --cancel` cancels an announced drain: within `drain.delay`, while connections are still accepted, and \
only if a command asked for it, not SIGTERM or SIGINT.

As a preStop hook of Kubernetes: exec: { command: [\"/pulsegate\", \"drain\", \"--wait\"] }

Exit codes: 0 the drain has begun, or with --wait has ended, or with --cancel is cancelled, 1 no proxy answered, the drain \
took longer than --timeout, or it was or cannot be cancelled, 2 wrong usage")]
pub struct DrainArgs {
    /// Return only when no session is left
    #[arg(long)]
    wait: bool,
    /// Time limit of the wait [default: none]
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = super::duration::parse)]
    timeout: Option<Duration>,
    /// Cancel a drain that is only announced: the proxy is ready again
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    cancel: bool,
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// Starts the drain and, with `--wait`, waits for its end; or cancels it.
///
/// # Errors
///
/// The proxy cannot be reached or refuses the request, or printing fails.
pub fn run(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    if args.cancel {
        return block_on(cancel(&remote));
    }
    let began = Instant::now();
    block_on(async {
        let time_limit = args.timeout.map_or(TIMEOUT, |timeout| timeout.min(TIMEOUT));
        let now: Draining = remote.post("/v1/drain", None, time_limit, StatusCode::is_success).await?;
        report(&now)?;
        if !args.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let wait = wait_until_drained(&remote, now);
        match args.timeout {
            None => wait.await,
            Some(limit) => match tokio::time::timeout(limit.saturating_sub(began.elapsed()), wait).await {
                Ok(ended) => ended,
                Err(_) => {
                    let limit = humantime::format_duration(limit);
                    eprintln!("pulsegate: not drained within {limit}; the drain continues");
                    Ok(ExitCode::FAILURE)
                }
            },
        }
    })
}

/// Cancels an announced drain. If it can no longer be cancelled, the API's refusal gives the reason.
async fn cancel(remote: &Remote) -> anyhow::Result<ExitCode> {
    let now: Draining = remote.post("/v1/drain/cancel", None, TIMEOUT, StatusCode::is_success).await?;
    report(&now)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the drain is complete, and reports its progress.
async fn wait_until_drained(remote: &Remote, mut last: Draining) -> anyhow::Result<ExitCode> {
    let mut reported_at = Instant::now();
    loop {
        match last.phase.as_str() {
            "drained" => return Ok(ExitCode::SUCCESS),
            "serving" if last.cancelled_at.is_some() => {
                eprintln!("pulsegate: the drain was cancelled (pulsegate drain --cancel); the proxy serves");
                return Ok(ExitCode::FAILURE);
            }
            // Another process has replaced the one that drained.
            "serving" => return gone("it has been replaced by one that serves"),
            _ => {}
        }
        sleep(PAUSE).await;
        let now: Draining = match remote.get("/v1/drain").await {
            Ok(now) => now,
            Err(error) if error.is_absence() => return gone("it is gone"),
            // The process may end in the middle of a response; the next request will show it.
            Err(error) if error.is_transient() => continue,
            Err(error) => return Err(error.into()),
        };
        if now.phase == "serving" {
            last = now;
            continue;
        }
        if now.phase != last.phase || (now != last && reported_at.elapsed() >= REPORT_INTERVAL) {
            report(&now)?;
            reported_at = Instant::now();
            last = now;
        }
    }
}

fn report(now: &Draining) -> anyhow::Result<()> {
    if now.phase == "serving" {
        let line = format!("ready, accepting: {}\n", text::sessions(now.sessions));
        return text::print(&line).context("cannot print");
    }
    let what = match now.phase.as_str() {
        "announced" => "not ready any more, still accepting",
        "draining" => "not accepting, closing",
        "drained" => "drained",
        "aborting" => "dropping what is left",
        other => other,
    };
    text::print(&format!("{}: {} left\n", text::printable(what), text::sessions(now.sessions))).context("cannot print")
}

fn gone(how: &str) -> anyhow::Result<ExitCode> {
    text::print(&format!("{how}\n")).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}
