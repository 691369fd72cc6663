//! The panels of `dashboard.json` and their queries, and the checks that need no data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pulsegate_test_kit::process::Process;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::metrics::table::documented;
use crate::monitoring::rules::read;

/// A panel with queries.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) description: String,
    /// The plugin that draws it.
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) queries: Vec<Query>,
    pub(crate) json: Value,
}

/// A query of a panel.
#[derive(Debug)]
pub(crate) struct Query {
    expression: String,
    /// The template of the names of its series.
    pub(crate) legend: String,
}

/// The values of the variables of the dashboard, as the text of a regular expression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    pub(crate) namespace: &'static str,
    pub(crate) job: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) route: &'static str,
}

/// *All* in every variable.
pub(crate) const ALL: Selection = Selection { namespace: ".*", job: ".*", pod: ".*", route: ".*" };

impl Query {
    /// Returns the query that Grafana sends for this selection.
    pub(crate) fn with(&self, Selection { namespace, job, pod, route }: Selection) -> String {
        // Grafana takes four times the interval of scraping.
        let values =
            [("$__rate_interval", "4s"), ("$namespace", namespace), ("$job", job), ("$pod", pod), ("$route", route)];
        let query = values.iter().fold(self.expression.clone(), |text, (name, value)| text.replace(name, value));
        assert!(!query.contains('$') || query.contains("\"${1}xx\""), "a variable is left in {query}");
        query
    }

    /// Returns the name of a series, and the labels of the template that it does not have.
    pub(crate) fn name(&self, series: &Value) -> (String, Vec<String>) {
        let mut missing = Vec::new();
        let mut parts = self.legend.split("{{");
        let mut name = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (label, rest) = part.split_once("}}").expect("the template is closed");
            match series["metric"][label].as_str() {
                Some(value) => name += value,
                None => missing.push(label.to_owned()),
            }
            name += rest;
        }
        (name, missing)
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("dashboard.json")).expect("it is JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns the panels, without the headings of rows.
pub(crate) fn panels() -> Vec<Panel> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row");
    let panels: Vec<_> = panels
        .map(|panel| {
            let queries = panel["targets"].as_array().expect("queries").iter();
            let defaults = &panel["fieldConfig"]["defaults"]["unit"];
            let unit = if panel["type"] == "heatmap" { &panel["options"]["yAxis"]["unit"] } else { defaults };
            Panel {
                title: text(&panel["title"]),
                description: text(&panel["description"]),
                kind: text(&panel["type"]),
                unit: text(unit),
                queries: queries
                    .map(|query| Query { expression: text(&query["expr"]), legend: text(&query["legendFormat"]) })
                    .collect(),
                json: panel.clone(),
            }
        })
        .collect();
    assert!(panels.len() > 30, "only {} panels", panels.len());
    panels
}

/// Returns the headings of rows.
pub(crate) fn rows() -> Vec<Value> {
    let dashboard = dashboard();
    dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] == "row").cloned().collect()
}

/// Returns the names of metrics in an expression: words before `{`, `[` or an end, that are neither functions, nor labels,
/// nor text.
pub(crate) fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    for (at, part) in expression.split('"').enumerate() {
        // Every second part is text.
        plain += if at % 2 == 0 { part } else { "_" };
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = plain.split(|c| !is_word(c));
    let prefixes = ["pulsegate_", "process_", "kube_", "container_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

/// Returns everything below `value`.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Array(all) => all.iter().for_each(|one| walk(one, visit)),
        Value::Object(all) => all.values().for_each(|one| walk(one, visit)),
        _ => {}
    }
}

#[test]
fn the_dashboard_depends_on_no_data_source_of_its_author() {
    let dashboard = dashboard();
    let mut sources = BTreeSet::new();
    walk(&dashboard, &mut |value| {
        if let Some(source) = value.get("datasource") {
            sources.insert((text(&source["type"]), text(&source["uid"])));
        }
    });
    let expected = [("grafana", "-- Grafana --"), ("prometheus", "${datasource}")];
    assert_eq!(sources, expected.map(|(kind, uid)| (kind.to_owned(), uid.to_owned())).into());
    assert!(dashboard.get("id").is_none(), "Grafana gives it an id");
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().expect("variables").iter().collect();
    assert_eq!(
        variables.iter().map(|variable| text(&variable["name"])).collect::<Vec<_>>(),
        ["datasource", "namespace", "job", "pod", "route"]
    );
    for variable in &variables[1..] {
        // Matches series without the label too, as they are outside of Kubernetes.
        assert_eq!((&variable["allValue"], &variable["includeAll"]), (&".*".into(), &true.into()), "{variable}");
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeMap::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + w <= 24, "{} is wider than the grid", panel["title"]);
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            let other = taken.insert(cell, &panel["title"]);
            assert!(other.is_none(), "{} and {other:?} overlap", panel["title"]);
        }
    }
    for panel in self::panels() {
        assert!(!panel.title.is_empty() && panel.description.ends_with('.') && !panel.unit.is_empty(), "{panel:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let documented = documented();
    let mut shown = BTreeSet::new();
    for panel in panels() {
        for query in panel.queries {
            for metric in metrics_of(&query.expression) {
                let row = documented.iter().find(|row| row.is_of(&metric));
                let row = row.unwrap_or_else(|| panic!("{}: there is no metric {metric}", panel.title));
                shown.insert(row.name.clone());
            }
        }
    }
    let hidden: BTreeSet<_> = documented.iter().map(|row| &*row.name).filter(|name| !shown.contains(*name)).collect();
    let expected = [
        // An alert needs it.
        "pulsegate_acme_next_order_timestamp_seconds",
        // An alert reports that a reload was refused, and for how long.
        "pulsegate_config_last_reload_success_timestamp_seconds",
        // They are part of pulsegate_upstream_errors_total.
        "pulsegate_upstream_connect_errors_total",
        "process_virtual_memory_bytes",
    ];
    assert_eq!(hidden, expected.into(), "a panel shows every other metric");
}

#[tokio::test]
async fn grafanas_own_types_accept_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring");
    assert!(folder.join("node_modules/typescript").exists(), "run ./tests/install");
    let good = folder.join("../../deploy/monitoring/dashboard.json");
    let dir = TempDir::new().expect("make a temporary directory");
    // The compiler is slow on a busy machine, so that all faults are tried in one run.
    let faults = [
        ("\"mode\": \"multi\"", "\"mode\": \"many\""),
        ("\"lineWidth\"", "\"lineWidht\""),
        ("\"collapsed\": false,", ""),
        ("\"schemaVersion\"", "\"schemaVersoin\""),
    ];
    let mut command = Command::new("node");
    command.arg(folder.join("schema.mjs")).arg(&good);
    for (at, (from, to)) in faults.into_iter().enumerate() {
        let changed = read("dashboard.json").replace(from, to);
        assert!(changed.contains(to) && !changed.contains(from), "{from} is not in the dashboard");
        let file = dir.path().join(format!("fault-{at}.json"));
        std::fs::write(&file, changed).expect("write");
        command.arg(file);
    }
    let mut judge = Process::start_without_input("node", &mut command);
    let status = judge.exit_within(std::time::Duration::from_secs(60)).await;
    let judged = judge.finish().await;
    assert_eq!(status.code(), Some(1), "{judged:#?}");
    let about = |name: &str| judged.out.lines().filter(|line| line.contains(name)).collect::<Vec<_>>();
    assert_eq!(about("deploy/monitoring/dashboard.json"), Vec::<&str>::new(), "{}", judged.err);
    for (at, fault) in faults.iter().enumerate() {
        assert!(!about(&format!("fault-{at}.json")).is_empty(), "{fault:?} is not noticed: {judged:#?}");
    }
}
