//! `deploy/kubernetes`: the component, the example, and the policies for it.

use std::fs;

use super::made::{Judge, golden, kustomize, root};

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
