//! `deploy/kubernetes`: the component, the example, and the policies for it.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::made::{Judge, golden, kustomize, root, succeed};

const OVERLAY: &str = "deploy/kubernetes/example/overlay";

#[test]
fn the_overlay_is_the_app_behind_pulsegate() {
    let rendered = kustomize(OVERLAY);
    golden("tests/kubernetes/golden/overlay.yaml", &rendered);
    Judge::new(&["pulsegate-tls"]).file("overlay.yaml", &rendered).run("judge.py");
}

#[test]
fn the_base_is_a_valid_app_without_pulsegate() {
    let rendered = kustomize("deploy/kubernetes/example/base");
    assert!(!rendered.contains("pulsegate"), "{rendered}");
    Judge::new(&[]).with("--without-sidecar").file("base.yaml", &rendered).run("judge.py");
}

#[test]
fn the_app_is_unchanged_but_for_its_sleep() {
    let container = |rendered: &str| {
        let (_, app) = rendered.split_once("      containers:\n").expect("containers");
        app.lines()
            .take_while(|line| line.starts_with("      -") || line.starts_with("       "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = container(&kustomize("deploy/kubernetes/example/base"));
    let after = container(&kustomize(OVERLAY));
    let sleep = "        lifecycle:\n          preStop:\n            sleep:\n              seconds: 27\n";
    assert!(after.contains(sleep), "{after}");
    assert_eq!(after.replace(sleep, ""), before);
}

#[test]
fn the_component_takes_every_kind_of_workload() {
    let rendered = kustomize("tests/kubernetes/mixed");
    golden("tests/kubernetes/golden/mixed.yaml", &rendered);
    Judge::new(&["pulsegate-tls"]).file("mixed.yaml", &rendered).run("judge.py");
}

/// Patches of a kustomization come after its components: the times of the app win, and numbers stay numbers.
#[test]
fn a_patch_after_the_component_keeps_what_the_app_had() {
    let rendered = kustomize("tests/kubernetes/own");
    golden("tests/kubernetes/golden/own.yaml", &rendered);
    Judge::new(&["pulsegate-tls"]).with("--own-hook=worker").file("own.yaml", &rendered).run("judge.py");
    let patch = fs::read_to_string(root().join("tests/kubernetes/own/pod-patch.yaml")).expect("it is there");
    let page = fs::read_to_string(root().join("deploy/README.md")).expect("it is there");
    assert!(page.contains(&format!("```yaml\n{patch}```\n")), "deploy/README.md does not show {patch}");
}

#[test]
fn a_comparison_names_what_the_component_replaces() {
    let folder = TempDir::with_prefix("pulsegate-kubernetes-").expect("make a directory");
    fs::write(folder.path().join("before.yaml"), kustomize("tests/kubernetes/own/base")).expect("write a file");
    fs::write(folder.path().join("after.yaml"), kustomize("tests/kubernetes/own/unpatched")).expect("write a file");
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat after.yaml | diff before.yaml - | grep '^<'"]).current_dir(folder.path());
    let said = succeed(&mut shell);
    let replaced: Vec<_> = said.lines().map(|line| line.trim_start_matches(['<', ' '])).collect();
    assert_eq!(replaced, ["seconds: 60", "fsGroup: 2000", "terminationGracePeriodSeconds: 120"], "{said}");
}

#[test]
fn policies_fit_the_example() {
    // As hpa.yaml asks.
    let mut all = kustomize(OVERLAY).replace("  replicas: 2\n", "");
    for name in ["hpa", "networkpolicy", "pdb", "podmonitor"] {
        let file = root().join("deploy/monitoring").join(name).with_extension("yaml");
        all = all + "---\n" + &fs::read_to_string(file).expect("it is there");
    }
    for kind in ["HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"] {
        assert_eq!(all.matches(&format!("\nkind: {kind}\n")).count(), 1, "{kind}");
    }
    Judge::new(&["pulsegate-tls"]).file("all.yaml", &all).run("judge.py");
}
