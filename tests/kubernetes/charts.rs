//! `deploy/helm`: the library, the example, and a chart that uses both as others would.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::made::{Charts, HELMS, Judge, golden, kustomize, root, succeed};
use crate::PULSEGATE;

/// The name that the charts give the Secret of the release `demo`.
const SECRET: &str = "demo-express-example-tls";

/// Renders a chart with both helms, which must print the same.
#[track_caller]
fn both(chart: &str, arguments: &[&str]) -> String {
    let [newest, older] = HELMS.map(|helm| Charts::build(helm).render(chart, arguments));
    assert_eq!(newest, older, "an older helm renders {chart} {arguments:?} differently");
    newest
}

/// Renders the example with values of the tests.
#[track_caller]
fn example(values: &str) -> String {
    let file = root().join("tests/kubernetes/values").join(values).with_extension("yaml");
    both("express-example", &["--values", file.to_str().expect("a path that is text")])
}

#[test]
fn the_example_renders_for_every_way_to_use_it() {
    let mut judge = Judge::new(&[SECRET]);
    for values in ["default", "full", "pem", "plain"] {
        let rendered = example(values);
        golden(&format!("tests/kubernetes/golden/{values}.yaml"), &rendered);
        judge = judge.file(&format!("{values}.yaml"), &rendered);
    }
    judge.run("judge.py");
}

#[test]
fn the_certificate_of_the_example_has_one_source() {
    let full = example("full");
    assert!(full.contains("\nkind: Certificate\n") && !full.contains("\nkind: Secret\n"), "{full}");
    let pem = example("pem");
    assert!(pem.contains("\ntype: kubernetes.io/tls\n") && !pem.contains("\nkind: Certificate\n"), "{pem}");
    let file = root().join("LICENSE-MIT");
    let file = file.to_str().expect("a path that is text");
    let (certificate, key) = (format!("tls.certificate={file}"), format!("tls.privateKey={file}"));
    let by_file = both("express-example", &["--set-file", &certificate, "--set-file", &key]);
    assert!(by_file.contains("\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: \"MIT License"), "{by_file}");
    for values in ["default", "plain"] {
        let rendered = example(values);
        assert!(!rendered.contains("kind: Certificate") && !rendered.contains("kind: Secret"), "{rendered}");
    }
}

#[test]
fn charts_of_others_use_the_library() {
    let rendered = both("umbrella", &[]);
    golden("tests/kubernetes/golden/umbrella.yaml", &rendered);
    Judge::new(&[SECRET, "shared-tls"]).file("umbrella.yaml", &rendered).run("judge.py");
}

#[test]
fn the_sidecars_of_component_and_charts_are_the_same() {
    let judge = Judge::new(&["pulsegate-tls", SECRET]).with("--alike");
    let judge = judge.file("overlay.yaml", &kustomize("deploy/kubernetes/example/overlay"));
    judge.file("chart.yaml", &both("express-example", &[])).run("judge.py");
}

#[test]
fn the_judge_finds_every_mutation() {
    let said = Judge::new(&[]).file("full.yaml", &example("full")).run("mutations.py");
    assert!(said.ends_with(" mutations found\n") && !said.contains("no '"), "{said}");
}

#[test]
fn helm_lint_finds_nothing() {
    for helm in HELMS {
        let charts = Charts::build(helm);
        for chart in ["express-example", "umbrella", "pulsegate"] {
            let said = succeed(charts.command().args(["lint", "--strict", chart]));
            assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
        }
    }
}

#[test]
fn notes_name_the_next_steps() {
    // Only an installation shows them; the dry run of helm 3 asks a cluster.
    let charts = Charts::build("helm4");
    let dry_run = ["install", "demo", "express-example", "--dry-run=client", "--namespace=chat"];
    let said = succeed(charts.command().args(dry_run));
    let (_, notes) = said.split_once("\nNOTES:\n").expect("notes");
    for part in [
        "kubectl create secret tls demo-express-example-tls --namespace chat --cert=tls.crt --key=tls.key",
        "An Ingress in front of it must lead to port 443 over TLS",
        "kubectl rollout status deployment/demo-express-example --namespace chat",
        "closes its sessions over 15s, and stops its app after 27 s",
    ] {
        assert!(notes.contains(part), "no {part:?} in {notes}");
    }
    let said = succeed(charts.command().args(dry_run).args(["--set=pulsegate.plain=true"]).args(["--set", TRUSTED]));
    let (_, notes) = said.split_once("\nNOTES:\n").expect("notes");
    assert!(notes.contains("plain HTTP to the ingress") && !notes.contains("create secret"), "{notes}");
}

/// What plain HTTP needs beside it.
const TRUSTED: &str = "pulsegate.config.forwarded.trusted_proxies={10.0.0.0/8}";

/// The schema of the library's values holds that of the configuration file, word for word.
#[test]
fn values_are_checked_like_the_file() {
    let file = "deploy/helm/pulsegate/values.schema.json";
    let schema = fs::read_to_string(root().join(file)).expect("it is there");
    let mut schema: Value = serde_json::from_str(&schema).expect("JSON");
    let printed = succeed(Command::new(PULSEGATE).args(["config", "schema"]));
    let mut config: Value = serde_json::from_str(&printed).expect("JSON");
    let config = config.as_object_mut().expect("an object");
    config.remove("$schema");
    config.remove("title");
    schema["properties"]["config"] = Value::Object(config.clone());
    golden(file, &(serde_json::to_string_pretty(&schema).expect("JSON") + "\n"));
}
