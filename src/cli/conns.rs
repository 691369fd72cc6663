//! `pulsegate conns`: lists the sessions of a running proxy.

pub(super) mod table;

use std::process::ExitCode;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::json;

use super::remote::{Connections, Remote, RemoteArgs, SessionReport, block_on};
use super::{text, units};
use crate::config::Cidr;

/// The sort keys of the API, ascending and descending.
pub(super) const SORTS: [&str; 20] = [
    "opened",
    "-opened",
    "rtt",
    "-rtt",
    "idle",
    "-idle",
    "misses",
    "-misses",
    "bytes_in",
    "-bytes_in",
    "bytes_out",
    "-bytes_out",
    "client",
    "-client",
    "route",
    "-route",
    "held",
    "-held",
    "closed",
    "-closed",
];

/// The arguments of `pulsegate conns`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The table has the width of the terminal, and omits columns on a narrow one; in a pipe it has all columns. \
HELD is the number of bytes held for both sides because they read slowly. CLOSED-AT is UTC. \
JSON has every field: times in seconds since 1970, durations in seconds.

Exit codes: 0 all is well, 1 no proxy answered, 2 wrong usage")]
pub struct ConnsArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// State of the sessions to list: open, or recently closed
    #[arg(long, value_enum, default_value_t)]
    state: State,
    /// Only sessions of this route, as the table shows it
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only sessions of clients in this network, or of this address
    #[arg(long, value_name = "CIDR")]
    client: Option<Cidr>,
    /// Only sessions with at least this many misses in a row
    #[arg(long, value_name = "N", value_parser = units::number)]
    misses_gte: Option<u32>,
    /// Sort key: opened, closed, rtt, idle, misses, `bytes_in`, `bytes_out`, held, client or route; - in front reverses the
    /// order [default: opened; with --state closed -closed, newest first]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, hide_possible_values = true,
          value_parser = PossibleValuesParser::new(SORTS))]
    sort: Option<String>,
    /// At most this many sessions [default: all]
    #[arg(long, value_name = "N", value_parser = units::number)]
    limit: Option<u32>,
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// The output format of a list of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object: `now`, `generation`, `total` and `connections`.
    Json,
}

/// The states of the sessions to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// Open, or closing.
    #[default]
    Open,
    /// Closed; the proxy remembers the last ones.
    Closed,
    /// Both.
    All,
}

/// Prints the sessions.
///
/// # Errors
///
/// The proxy cannot be reached or refuses the request, or printing fails.
pub fn run(args: &ConnsArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let found = block_on(async { Ok(remote.connections(&args.query(), limit).await?) })?;
    let (text, left_out) = match args.format {
        Format::Json => (json(&found), 0),
        Format::Table => {
            let conns: Vec<SessionReport> =
                found.list.iter().map(SessionReport::deserialize).collect::<Result<_, _>>().context(
                    "these sessions have the format of another pulsegate version; --format json shows them unchanged",
                )?;
            let width = text::width();
            let mut text = match (conns.len(), width) {
                // An empty list gets a sentence on a terminal, and its heading in a pipe.
                (0, Some(_)) => args.nothing(),
                _ => table::lines(&conns, width, found.now).join("\n"),
            };
            text.push('\n');
            (text, found.total.saturating_sub(u64::try_from(conns.len()).unwrap_or(u64::MAX)))
        }
    };
    text::print(&text).context("cannot print")?;
    if left_out > 0 {
        eprintln!("pulsegate: {} not shown", text::sessions(left_out));
    }
    Ok(ExitCode::SUCCESS)
}

impl ConnsArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let state = match self.state {
            State::Open => "open",
            State::Closed => "closed",
            State::All => "all",
        };
        let usual = if self.state == State::Closed { "-closed" } else { "opened" };
        let sort = self.sort.as_deref().unwrap_or(usual);
        let mut pairs = vec![("state", state.to_owned()), ("sort", sort.to_owned())];
        pairs.extend(self.route.clone().map(|route| ("route", route)));
        pairs.extend(self.client.map(|client| ("client", client.to_string())));
        pairs.extend(self.misses_gte.map(|misses| ("misses_gte", misses.to_string())));
        pairs
    }

    /// Returns the sentence for an empty list.
    fn nothing(&self) -> String {
        let which = match self.state {
            State::Open => "open ",
            State::Closed => "closed ",
            State::All => "",
        };
        let narrowed = self.route.is_some() || self.client.is_some() || self.misses_gte.is_some();
        format!("no {which}session{}", if narrowed { " matches" } else { "" })
    }
}

fn json(found: &Connections) -> String {
    let Connections { now, generation, total, list } = found;
    let json = json!({ "now": now, "generation": generation, "total": total, "connections": list });
    text::escaped(&format!("{json:#}\n"))
}
