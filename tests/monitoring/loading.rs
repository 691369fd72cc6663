//! The commands of `deploy/monitoring/README.md`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pulsegate_test_kit::process::Process;
use tempfile::TempDir;
use tokio::process::Command;

use crate::monitoring::rules::{folder, promtool, read};

/// Keeps its arguments, its input, and the file that it is given.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >>"$KEPT_IN/kubectl.log"
case "$*" in
*"-f -"*) cat >"$KEPT_IN/applied.yaml" ;;
*--from-file=*) file="${*##*--from-file=*=}"; cp "${file%% *}" "$KEPT_IN/from-file.json" ;;
esac
"#;

/// Returns the text of the fenced blocks in `language`.
fn blocks(language: &str) -> Vec<String> {
    let paper = read("README.md");
    let fence = format!("```{language}\n");
    let blocks: Vec<_> =
        paper.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect();
    assert!(!blocks.is_empty(), "no {language} in the paper");
    blocks
}

#[tokio::test]
async fn the_commands_of_the_paper_load_alerts_and_dashboard() {
    let dir = TempDir::new().expect("make a temporary directory");
    let copy = dir.path().join("deploy/monitoring");
    fs::create_dir_all(&copy).expect("make the folder");
    for file in ["rules.yaml", "dashboard.json"] {
        fs::copy(folder().join(file), copy.join(file)).expect("copy");
    }
    let kubectl = dir.path().join("kubectl");
    fs::write(&kubectl, KUBECTL).expect("write");
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let mut command = Command::new("sh");
    command.arg("-ec").arg(blocks("sh").concat()).current_dir(dir.path()).env("KEPT_IN", dir.path());
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", dir.path().display()));
    let run = Process::run("sh", &mut command).await;
    assert!(run.code == Some(0) && run.out.contains("SUCCESS"), "{run:#?}");

    let rules = fs::read_to_string(copy.join("rules.yaml")).expect("readable");
    assert_eq!(rules.matches("runbook_url: https://git.example.com/pulsegate/deploy/OPERATIONS.md#").count(), 23);
    assert!(!rules.contains("runbooks.example.com"), "{rules}");
    let applied = fs::read_to_string(dir.path().join("applied.yaml")).expect("kubectl got something");
    let (head, spec) = applied.split_once("spec:\n").expect("a spec");
    assert_eq!(head, "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: pulsegate\n");
    let spec = spec.lines().fold(String::new(), |text, line| text + line.strip_prefix("  ").unwrap_or(line) + "\n");
    assert_eq!(spec, rules, "what is below `spec` is the file");
    let loaded = fs::read_to_string(dir.path().join("from-file.json")).expect("kubectl got a file");
    assert_eq!(loaded, read("dashboard.json"));
    // etcd takes objects of up to 1.5 MiB, and an annotation of `kubectl apply` up to 256 KiB.
    assert!(loaded.len() < 256 << 10, "{} bytes", loaded.len());
}

#[tokio::test]
async fn prometheus_accepts_the_configuration_of_the_paper() {
    let dir = TempDir::new().expect("make a temporary directory");
    let config = blocks("yaml").remove(0).replace("/etc/prometheus/pulsegate/", &format!("{}/", folder().display()));
    fs::write(dir.path().join("prometheus.yml"), config).expect("write");
    let checked = promtool(&["check", "config", "prometheus.yml"], dir.path()).await;
    assert!(checked.code == Some(0) && checked.out.contains("28 rules found"), "{checked:#?}");
}
