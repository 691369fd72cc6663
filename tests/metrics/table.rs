//! The table of metrics in `deploy/METRICS.md`, and a comparison with the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pulsegate::telemetry::metrics::markdown;

const BEGIN: &str = "<!-- metrics:begin -->\n";
const END: &str = "<!-- metrics:end -->";

/// One metric as the table documents it.
#[derive(Debug)]
pub(crate) struct Documented {
    /// The full name; that of a histogram gets suffixes when it is scraped.
    pub(crate) name: String,
    pub(crate) kind: String,
    /// The labels with their possible values.
    pub(crate) labels: BTreeMap<String, Words>,
}

/// The possible values of a label.
#[derive(Debug)]
pub(crate) enum Words {
    /// One of these.
    Of(BTreeSet<String>),
    /// The names in the configuration.
    Configured,
}

/// Returns the table's rows.
pub(crate) fn documented() -> Vec<Documented> {
    let table = table();
    let rows: Vec<_> = table.lines().skip(2).map(row).collect();
    assert!(rows.len() > 20, "the table is cut:\n{table}");
    rows
}

fn table() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/METRICS.md");
    let text = fs::read_to_string(file).expect("deploy/METRICS.md is readable");
    let table = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(table, _)| table.trim());
    table.unwrap_or_else(|| panic!("no table between {BEGIN}and {END} in deploy/METRICS.md")).to_owned()
}

/// Parses `` | `name` | type | `label`: `word` `word`; `label`: some words | meaning | ``.
fn row(line: &str) -> Documented {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, kind, labels, meaning] = cells[..] else { panic!("no four cells in {line:?}") };
    assert!(!meaning.is_empty(), "{line:?} says nothing");
    let labels = labels.split("; ").filter(|label| !label.is_empty()).map(|label| {
        let (name, values) = label.split_once(": ").unwrap_or_else(|| panic!("no values of {label:?} in {line:?}"));
        let words: BTreeSet<String> = values.split(' ').filter_map(quoted).collect();
        let is_closed = values.split(' ').count() == words.len();
        (quoted(name).expect("a label's name is code"), if is_closed { Words::Of(words) } else { Words::Configured })
    });
    Documented { name: quoted(name).expect("a name is code"), kind: kind.to_owned(), labels: labels.collect() }
}

fn quoted(text: &str) -> Option<String> {
    Some(text.strip_prefix('`')?.strip_suffix('`')?.to_owned())
}

impl Documented {
    /// Returns whether this is the metric of a sample called `sample`.
    pub(crate) fn is_of(&self, sample: &str) -> bool {
        let suffixes: &[&str] = if self.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        sample.strip_prefix(&*self.name).is_some_and(|suffix| suffixes.contains(&suffix))
    }

    /// Fails unless `labels` are this metric's, every value is one of its set, and every route is one of `routes`.
    pub(crate) fn assert_describes(&self, labels: &BTreeMap<String, String>, routes: &[&str]) {
        let names = |label: &&String| !(self.kind == "histogram" && *label == "le");
        let found: Vec<_> = labels.keys().filter(names).collect();
        assert_eq!(found, self.labels.keys().collect::<Vec<_>>(), "labels of {}", self.name);
        for (name, words) in &self.labels {
            let value = &labels[name];
            let is_known = match words {
                Words::Of(words) => words.contains(value),
                Words::Configured if name == "route" => routes.contains(&&**value),
                Words::Configured => !value.is_empty(),
            };
            assert!(is_known, "{value:?} is no {name} of {}", self.name);
        }
    }
}

#[test]
fn the_table_has_every_metric_as_it_is() {
    let expected = markdown();
    assert_eq!(table(), expected.trim(), "put this between {BEGIN} and {END} in deploy/METRICS.md:\n{expected}");
}

#[test]
fn a_row_is_read_as_it_is_meant() {
    let row = row("| `a_total` | counter | `route`: host and path, as in `/x/`; `code`: `1` `2` | Some; words |");
    assert!(matches!(row.labels["route"], Words::Configured), "{row:?}");
    let is_of = |code: &str| [("route", "/"), ("code", code)].map(|(name, value)| (name.into(), value.into()));
    row.assert_describes(&BTreeMap::from(is_of("2")), &["/"]);
    let strange = std::panic::catch_unwind(|| row.assert_describes(&BTreeMap::from(is_of("3")), &["/"]));
    assert!(strange.is_err(), "3 is no code");
    assert!(row.is_of("a_total") && !row.is_of("a_total_count"));
}
