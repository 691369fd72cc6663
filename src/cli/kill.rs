//! `pulsegate kill`: closes sessions of a running proxy, with a Close that gives the reason.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::{Context, bail};
use http::StatusCode;
use serde_json::{Value, json};

use super::remote::{Remote, RemoteArgs, RemoteError, SessionReport, Shut, TIMEOUT, block_on};
use super::{text, units};
use crate::config::Cidr;
use crate::ws;

/// The number of sessions above which a confirmation is required.
const MANY: u64 = 10;

/// The arguments of `pulsegate kill`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
#[command(after_help = "\
Client and app each get a Close, after the frame in progress; with --now they get none, and nothing more. More than 10 \
sessions at once need a confirmation: on the terminal, or by --yes.

Exit codes: 0 all of them were closed, 1 one was unknown, or none matched, or no proxy answered, 2 wrong usage")]
pub struct KillArgs {
    /// The sessions, by the id that logs and `conns` show
    #[arg(value_name = "ID", value_parser = id, group = "which", conflicts_with_all = ["route", "client", "misses_gte"])]
    ids: Vec<String>,
    /// All sessions of this route, as `conns` shows it
    #[arg(long, value_name = "ROUTE", group = "which")]
    route: Option<String>,
    /// All sessions of clients in this network, or of this address
    #[arg(long, value_name = "CIDR", group = "which")]
    client: Option<Cidr>,
    /// All sessions with at least this many misses in a row
    #[arg(long, value_name = "N", group = "which", value_parser = units::number)]
    misses_gte: Option<u32>,
    /// The code of the Close (RFC 6455 §7.4) [default: 1008]
    #[arg(long, value_parser = code)]
    code: Option<u16>,
    /// The reason that the Close gives [default: closed by the operator]
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Reset both legs at once: no Close is sent, and nothing more is delivered
    #[arg(long, conflicts_with_all = ["code", "reason"])]
    now: bool,
    /// Only print the sessions that would be closed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// Closes the sessions, and prints their ids.
///
/// # Errors
///
/// The proxy cannot be reached or refuses the request, the confirmation is missing, or printing fails.
pub fn run(args: &KillArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    block_on(async { if args.ids.is_empty() { args.by_filter(&remote).await } else { args.by_id(&remote).await } })
}

impl KillArgs {
    async fn by_id(&self, remote: &Remote) -> anyhow::Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        for id in &self.ids {
            let outcome = match self.one(remote, id).await {
                Ok(outcome) => outcome,
                Err(error) if error.has_code("not_found") => {
                    eprintln!("pulsegate: there is no session {id}; `pulsegate conns --state all` lists them");
                    code = ExitCode::FAILURE;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            text::print(&format!("{outcome} {id}\n")).context("cannot print")?;
        }
        Ok(code)
    }

    /// Closes one session; returns its outcome in a word.
    async fn one(&self, remote: &Remote, id: &str) -> Result<&'static str, RemoteError> {
        const OVER: &str = "already closed";
        if self.dry_run {
            let conn: SessionReport = remote.get(&format!("/v1/connections/{id}")).await?;
            return Ok(if conn.state == "closed" { OVER } else { "would close" });
        }
        let path = format!("/v1/connections/{id}/close");
        match remote.post::<Shut>(&path, Some(&self.close_fields()), TIMEOUT, StatusCode::is_success).await {
            Ok(_) => Ok("closed"),
            Err(error) if error.has_code("closed") => Ok(OVER),
            Err(error) => Err(error),
        }
    }

    async fn by_filter(&self, remote: &Remote) -> anyhow::Result<ExitCode> {
        let would = self.all(remote, true).await?;
        if would.matched == 0 {
            eprintln!("pulsegate: no open session matches");
            return Ok(ExitCode::FAILURE);
        }
        let shut = if self.dry_run {
            would
        } else {
            self.confirm(would.matched)?;
            self.all(remote, false).await?
        };
        let (verb, count) = if self.dry_run { ("would close", shut.matched) } else { ("closed", shut.closed) };
        let mut report = String::new();
        for id in &shut.ids {
            writeln!(report, "{verb} {}", text::printable(id))?;
        }
        let rest = count.saturating_sub(u64::try_from(shut.ids.len()).unwrap_or(u64::MAX));
        if rest > 0 {
            writeln!(report, "{verb} {rest} more")?;
        }
        writeln!(report, "{verb} {}", text::sessions(count))?;
        text::print(&report).context("cannot print")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Closes the sessions that match the filter; with `dry_run`, returns the same list and closes none.
    async fn all(&self, remote: &Remote, dry_run: bool) -> Result<Shut, RemoteError> {
        let mut filter = json!({});
        let fields = [
            ("route", self.route.as_ref().map(|route| json!(route))),
            ("client", self.client.map(|client| json!(client.to_string()))),
            ("misses_gte", self.misses_gte.map(|misses| json!(misses))),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                filter[key] = value;
            }
        }
        let mut body = self.close_fields();
        body["filter"] = filter;
        body["dry_run"] = dry_run.into();
        remote.post("/v1/connections/close", Some(&body), TIMEOUT, StatusCode::is_success).await
    }

    /// Returns the fields of a request that set code and reason of the Close, or a reset.
    fn close_fields(&self) -> Value {
        let mut body = json!({});
        if let Some(code) = self.code {
            body["code"] = code.into();
        }
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        if self.now {
            body["now"] = true.into();
        }
        body
    }

    /// Asks for a confirmation to close `count` sessions, if they are many.
    fn confirm(&self, count: u64) -> anyhow::Result<()> {
        if count <= MANY || self.yes {
            return Ok(());
        }
        let (stdin, mut stderr) = (io::stdin(), io::stderr());
        if !stdin.is_terminal() || !stderr.is_terminal() {
            bail!(
                "{} match, and there is no terminal to confirm on; --yes closes them without confirmation",
                text::sessions(count)
            );
        }
        write!(stderr, "Close {}? [y/N] ", text::sessions(count)).context("cannot ask")?;
        let mut answer = String::new();
        stdin.read_line(&mut answer).context("cannot read the answer")?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was closed") }
    }
}

fn id(text: &str) -> Result<String, String> {
    let hint = "to close many, give --route, --client or --misses-gte";
    units::id(text).ok_or_else(|| format!("an id is 16 hexadecimal digits; {hint}"))
}

fn code(text: &str) -> Result<u16, String> {
    let code = text.parse().ok().filter(|code| ws::may_be_sent(*code));
    code.ok_or_else(|| {
        "must be a code that may stand in a Close: 1000 to 1014 without 1004 to 1006, or 3000 to 4999".to_owned()
    })
}

/// Parses the reason of a Close, which shares a control frame of 125 bytes with the code (RFC 6455 §5.5).
fn reason(text: &str) -> Result<String, String> {
    const LONGEST: usize = 123;
    match text.len() {
        ..=LONGEST => Ok(text.to_owned()),
        length => Err(format!("must be at most {LONGEST} bytes, for a Close holds no more; this is {length}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused_before_any_request() {
        assert_eq!(id("00000000000000A1"), Ok("00000000000000a1".to_owned()));
        for refused in ["", "a1", "00000000000000zz", "00000000000000a1 "] {
            assert!(id(refused).is_err(), "{refused:?}");
        }
        assert_eq!(code("4001"), Ok(4001));
        for refused in ["999", "1005", "1006", "1015", "2000", "5000", "x"] {
            assert!(code(refused).is_err(), "{refused}");
        }
        assert!(reason(&"é".repeat(61)).is_ok());
        assert!(reason(&"é".repeat(62)).expect_err("124 bytes").ends_with("this is 124"));
    }
}
