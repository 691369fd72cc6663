//! `pulsegate diagnose`: prints the history of one session, or of those of one address.

use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::remote::{Diagnosis, Remote, RemoteArgs, RemoteError, SessionReport, block_on};
use super::{text, units};
use crate::config::Cidr;

/// The width of the topics and of the gap after them, in characters.
const MARGIN: usize = 13;
/// The least width of the text beside the topics on a narrow terminal, in characters.
const LEAST: usize = 30;

/// The arguments of `pulsegate diagnose`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
#[command(after_help = "\
For an open session: its upgrade, heartbeat, round trips, the bytes held for each side, and the next event with its \
time. For a closed one: the reason, the side that began it, and the Close that each side received. For both: the \
sessions of the same address before and after. The proxy remembers the last `admin.closed_sessions` that closed.

Exit codes: 0 all is well, 1 no such session, or no proxy answered, 2 wrong usage")]
pub struct DiagnoseArgs {
    /// The session, by the id that logs and `conns` show
    #[arg(value_name = "ID", value_parser = id, group = "which")]
    id: Option<String>,
    /// The sessions of clients in this network, or of this address, newest first
    #[arg(long, value_name = "CIDR", group = "which")]
    client: Option<Cidr>,
    /// With --client, at most this many sessions
    #[arg(long, value_name = "N", default_value = "3", value_parser = units::number)]
    limit: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    proxy: RemoteArgs,
}

/// The output format of a diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Sentences, by topic.
    #[default]
    Text,
    /// One JSON object with `total` and `diagnoses`, each as the API answers it.
    Json,
}

/// Prints the diagnoses.
///
/// # Errors
///
/// The proxy cannot be reached or refuses the request, or printing fails.
pub fn run(args: &DiagnoseArgs) -> anyhow::Result<ExitCode> {
    let remote = Remote::find(&args.proxy)?;
    let (diagnoses, total) = block_on(args.ask(&remote))?;
    if diagnoses.is_empty() {
        eprintln!("pulsegate: {}", args.nothing());
        return Ok(ExitCode::FAILURE);
    }
    let output = match args.format {
        Format::Json => {
            let json = json!({ "total": total, "diagnoses": diagnoses });
            text::escaped(&format!("{json:#}\n"))
        }
        Format::Text => stories(&diagnoses)?,
    };
    text::print(&output).context("cannot print")?;
    let left_out = total.saturating_sub(u64::try_from(diagnoses.len()).unwrap_or(u64::MAX));
    if left_out > 0 && args.format == Format::Text {
        eprintln!("pulsegate: {} not shown; --limit {total} shows all", text::sessions(left_out));
    }
    Ok(ExitCode::SUCCESS)
}

impl DiagnoseArgs {
    /// Returns the diagnoses in the API's format, and the number of sessions that match.
    async fn ask(&self, remote: &Remote) -> anyhow::Result<(Vec<Value>, u64)> {
        let Some(client) = self.client else {
            let id = self.id.as_deref().unwrap_or_default();
            let found: Vec<Value> = diagnosis(remote, id).await?.into_iter().collect();
            return Ok((found, 1));
        };
        let query = [("state", "all".to_owned()), ("client", client.to_string()), ("sort", "-opened".to_owned())];
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let list = remote.connections(&query, Some(limit)).await?;
        let mut found = Vec::new();
        for conn in &list.list {
            // A session that has closed since may already be forgotten.
            found.extend(diagnosis(remote, &SessionReport::deserialize(conn)?.id).await?);
        }
        Ok((found, list.total))
    }

    /// Returns the sentence for an empty result.
    fn nothing(&self) -> String {
        let remembered = "the proxy remembers the last `admin.closed_sessions` that closed, 1000 by default";
        match (&self.id, self.client) {
            (_, Some(client)) => format!("no session of {client} is open or remembered; {remembered}"),
            (id, None) => format!(
                "no session {} is open or remembered; `pulsegate conns --state all` lists those that are, and {remembered}",
                id.as_deref().unwrap_or_default()
            ),
        }
    }
}

fn id(text: &str) -> Result<String, String> {
    let hint = "`pulsegate conns --state all` lists them, --client names an address instead";
    units::id(text).ok_or_else(|| format!("an id is 16 hexadecimal digits; {hint}"))
}

/// Returns the diagnosis of `id`; `None` if there is no such session.
async fn diagnosis(remote: &Remote, id: &str) -> Result<Option<Value>, RemoteError> {
    match remote.get(&format!("/v1/connections/{id}/diagnosis")).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.has_code("not_found") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Formats the diagnoses one below the other, at the terminal's width.
fn stories(diagnoses: &[Value]) -> anyhow::Result<String> {
    let width = text::width();
    let mut all = String::new();
    for diagnosis in diagnoses {
        let Diagnosis { story } = Diagnosis::deserialize(diagnosis)
            .context("this diagnosis has the format of another pulsegate version; --format json shows it unchanged")?;
        if !all.is_empty() {
            all.push('\n');
        }
        for paragraph in story {
            let topic = text::printable(&paragraph.topic);
            let text = text::printable(&paragraph.text);
            let room = width.map_or(usize::MAX, |width| width.saturating_sub(MARGIN).max(LEAST));
            for (at, line) in wrapped(&text, room).into_iter().enumerate() {
                let margin = if at == 0 { topic.as_str() } else { "" };
                all.push_str(format!("{margin:MARGIN$}{line}").trim_end());
                all.push('\n');
            }
        }
    }
    Ok(all)
}

/// Breaks `text` into lines of at most `width` characters at blanks; a longer word gets a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let more = word.chars().count();
        if length > 0 && length + 1 + more > width {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += more;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_lines_within_the_width() {
        assert_eq!(wrapped("one two three", usize::MAX), ["one two three"]);
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one incomprehensible", 5), ["one", "incomprehensible"]);
        assert_eq!(wrapped("größe größe", 11), ["größe größe"]);
        assert_eq!(wrapped("", 7), [""]);
    }

    #[test]
    fn topics_stand_in_a_margin_and_nothing_moves_the_cursor() {
        let story =
            |text: &str| json!({ "story": [{ "topic": "opened", "text": text }, { "topic": "a\x1bb", "text": "x" }] });
        let text = stories(&[story("one\x1b[2J"), story("two")]).expect("a story");
        let first = "opened       one\u{fffd}[2J\na\u{fffd}b          x\n";
        assert_eq!(text, format!("{first}\nopened       two\na\u{fffd}b          x\n"));
    }
}
