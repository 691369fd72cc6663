//! Checks of `rules.yaml`: those of promtool, and those that promtool does not make.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pulsegate_test_kit::process::{Finished, Process};
use tempfile::TempDir;
use tokio::process::Command;

use crate::metrics::table::documented;
use crate::monitoring::dashboard::metrics_of;

/// An alert of the file.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    /// Its lines.
    pub(crate) text: String,
}

/// Returns the folder of the rules and the dashboard.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns all alerts.
pub(crate) fn alerts() -> Vec<Alert> {
    let text = read("rules.yaml");
    let of = |part: &str| {
        let (name, rest) = part.split_once('\n').expect("more lines");
        // Up to the next rule or group.
        let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("        "));
        Alert { name: name.to_owned(), text: lines.fold(String::new(), |text, line| text + line + "\n") }
    };
    let alerts: Vec<_> = text.split("      - alert: ").skip(1).map(of).collect();
    assert!(alerts.len() > 20, "{alerts:#?}");
    alerts
}

impl Alert {
    /// Returns the text behind `key: ` on its line.
    fn value(&self, key: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{} has no {key}", self.name))
    }

    /// Returns the expression.
    fn expression(&self) -> String {
        let (_, rest) = self.text.split_once("expr: ").unwrap_or_else(|| panic!("{} has no expr", self.name));
        rest.split("        for:").next().unwrap_or_default().trim_start_matches("|\n").to_owned()
    }
}

/// Runs promtool to its end; its tests keep a core busy for seconds.
pub(crate) async fn promtool(arguments: &[&str], folder: &Path) -> Finished {
    let mut command = Command::new("promtool");
    let mut promtool = Process::start_without_input("promtool", command.args(arguments).current_dir(folder));
    promtool.exit_within(Duration::from_secs(60)).await;
    promtool.finish().await
}

#[tokio::test]
pub(crate) async fn promtool_accepts_the_rules_and_their_tests() {
    let checked = promtool(&["check", "rules", "rules.yaml"], &folder()).await;
    assert!(checked.code == Some(0) && checked.out.contains("SUCCESS"), "{checked:#?}");
    let tested = promtool(&["test", "rules", "rules_test.yaml"], &folder()).await;
    assert!(tested.code == Some(0) && tested.out.contains("SUCCESS"), "{tested:#?}");
}

#[tokio::test]
async fn the_tests_notice_alerts_that_never_fire_or_always_do() {
    for (what, expression) in [("never fires", "vector(0) > 1"), ("always fires", "vector(1)")] {
        let dir = TempDir::new().expect("make a temporary directory");
        fs::write(dir.path().join("rules_test.yaml"), read("rules_test.yaml")).expect("write");
        let rules = alerts().iter().fold(read("rules.yaml"), |rules, alert| {
            let (before, rest) = alert.text.split_once("expr: ").expect("an expression");
            let (_, after) = rest.split_once("        for:").expect("every alert waits");
            rules.replace(&alert.text, &format!("{before}expr: {expression}\n        for:{after}"))
        });
        fs::write(dir.path().join("rules.yaml"), &rules).expect("write");
        let tested = promtool(&["test", "rules", "rules_test.yaml"], dir.path()).await;
        let failures = format!("{}{}", tested.out, tested.err);
        for Alert { name, .. } in alerts() {
            let is_noticed = failures.contains(&format!("alertname: {name}, "));
            assert!(tested.code == Some(1) && is_noticed, "no test fails where {name} {what}:\n{failures}");
        }
    }
}

#[test]
fn every_alert_has_what_a_person_on_call_needs() {
    let tests = read("rules_test.yaml");
    let paper = fs::read_to_string(folder().join("../OPERATIONS.md")).expect("there is a runbook");
    let (_, section) = paper.split_once("\n## Alerts\n").expect("a section of alerts");
    let section = section.split("\n## ").next().unwrap_or_default();
    let headings: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let names: Vec<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let same: BTreeSet<_> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    assert_eq!(
        same,
        names.iter().cloned().collect(),
        "deploy/OPERATIONS.md has a section for each alert, and no other"
    );
    assert_eq!(headings.len(), names.len());
    for alert in alerts() {
        let name = &alert.name;
        assert!(["critical", "warning"].contains(&alert.value("severity")), "{name}");
        let seconds = alert.value("for").trim_end_matches(['m', 'h']);
        assert!(seconds.parse::<u32>().is_ok_and(|count| count > 0), "{name}: a condition must hold for some time");
        let anchor = format!("/OPERATIONS.md#{}", name.to_lowercase());
        assert!(alert.value("runbook_url").ends_with(&anchor), "{name}: {}", alert.value("runbook_url"));
        for text in [alert.value("summary"), alert.value("description")] {
            assert!(
                name == "PulsegateAbsent" || text.contains("{{ $labels."),
                "{name} names neither process nor job: {text}"
            );
        }
        let count =
            |expected: &str| tests.matches(&format!("alertname: {name}\n        exp_alerts:{expected}\n")).count();
        assert!(count("") > 0 && count(" []") > 0, "{name}: a test in which it fires, and one in which it does not");
    }
}

#[test]
fn rules_name_only_metrics_that_there_are() {
    let documented = documented();
    let rules = read("rules.yaml");
    let code: String = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .fold(String::new(), |all, line| all + line + "\n");
    let recorded: BTreeSet<_> = code.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let used = |name: &&&str| alerts().iter().any(|alert| alert.expression().contains(**name));
    let unused: Vec<_> = recorded.iter().filter(|name| !used(name)).collect();
    assert!(unused.is_empty(), "recorded for nothing: {unused:?}");
    for alert in alerts() {
        let expression = recorded.iter().fold(alert.expression(), |text, name| text.replace(name, ""));
        for metric in metrics_of(&expression) {
            // kube-state-metrics has the limits of containers.
            let of_kubernetes = ["kube_pod_container_resource_limits", "kube_pod_init_container_resource_limits"];
            let known = documented.iter().any(|row| row.is_of(&metric)) || of_kubernetes.contains(&&*metric);
            assert!(known, "{}: there is no metric {metric}", alert.name);
        }
    }
}
