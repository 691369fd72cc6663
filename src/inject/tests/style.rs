//! Compiled under `#[cfg(test)]` only.
//!
//! What is inserted has the style of what is there.

use super::{injected, lines};

/// A pod whose containers are given as text.
fn pod(containers: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n{containers}")
}

#[test]
fn dashes_stand_where_those_of_the_containers_stand() {
    let text = injected(&pod("  containers:\n  - name: app\n    ports: [{containerPort: 3000}]\n"));
    assert_eq!(
        lines(&text, "  initContainers", 3),
        format!("  initContainers:\n  - name: pulsegate\n    image: {}\n", super::DEFAULT_IMAGE)
    );
    assert_eq!(
        lines(&text, "    lifecycle", 4),
        "    lifecycle:\n      preStop:\n        sleep:\n          seconds: 27\n"
    );
    let text = injected(&pod("    containers:\n      -   name: app\n          ports: [{containerPort: 3000}]\n"));
    assert_eq!(
        lines(&text, "          lifecycle", 3),
        "          lifecycle:\n              preStop:\n                  sleep:\n"
    );
    assert_eq!(
        lines(&text, "    volumes", 4),
        "    volumes:\n      -   name: pulsegate-config\n          configMap:\n              name: a-pulsegate\n"
    );
}

#[test]
fn line_endings_stay() {
    let text = pod("  containers:\n  - name: app\n    ports: [{containerPort: 3000}]\n").replace('\n', "\r\n");
    let text = injected(&text);
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    // A last line without an end gets one, and loses it again.
    injected(pod("  containers:\n  - name: app\n    ports: [{containerPort: 3000}]").as_str());
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let text = injected(&pod(
        "  # first\n  containers:\n  # the app\n  - name: app # here\n    ports: [{containerPort: 3000}]   # ä\n    # resources:\n    #   limits: {}\n\n  # behind an empty line\n  dnsPolicy: Default\n  # the end\n",
    ));
    assert_eq!(
        lines(&text, "    ports: [{containerPort: 3000}]", 9),
        "    ports: [{containerPort: 3000}]   # ä\n    lifecycle:\n      preStop:\n        sleep:\n          seconds: 27\n    # resources:\n    #   limits: {}\n\n  # behind an empty line\n"
    );
    assert_eq!(lines(&text, "  dnsPolicy", 2), "  dnsPolicy: Default\n  initContainers:\n");
}

#[test]
fn documents_keep_their_separators() {
    let pod = pod("  containers:\n  - name: app\n    ports: [{containerPort: 3000}]\n");
    for text in [
        format!("---\n{pod}"),
        format!("---\n---\n{pod}---\n"),
        format!("---\n{pod}---"),
        format!("{pod}...\n# between\n---\nkind: Other\n...\n"),
        format!("%YAML 1.2\n---\n{pod}...\n"),
        format!("\u{feff}# bom\n{pod}"),
        format!("--- # why\n{pod}--- # because\n"),
        format!("{pod}\n\n   \n"),
        format!("{pod}   "),
        format!("{pod}# last"),
        format!("{pod}    lifecycle:"),
        format!("{pod}  - name: other\n    ports: "),
    ] {
        let injected = injected(&text);
        assert!(injected.contains("\n---\napiVersion: v1\nkind: ConfigMap\n"), "{injected}");
    }
}

#[test]
fn empty_values_are_filled_and_emptied_again() {
    for empty in ["", " {}", " null", " ~", "\n    {}", " # why"] {
        let text = injected(&pod(&format!(
            "  securityContext:{empty}\n  containers:\n  - name: app\n    lifecycle:{empty}\n    ports: [{{containerPort: 3000}}]\n"
        )
        .replace("\n    {}\n    ports", "\n      {}\n    ports")));
        assert!(text.contains("    fsGroup: 65532\n"), "{text}");
    }
    for empty in ["", " []", "\n    []", "   [ ]  # none"] {
        let text = injected(&pod(&format!(
            "  volumes:{empty}\n  initContainers:{empty}\n  containers:\n  - name: app\n    ports: [{{containerPort: 3000}}]\n"
        )));
        assert!(text.contains("\n  - name: pulsegate-config\n"), "{text}");
    }
}

#[test]
fn the_sidecar_stands_behind_what_ends_and_before_what_stays() {
    let order = |init: &str| {
        let text = injected(&pod(&format!(
            "  initContainers:\n{init}  containers:\n  - name: app\n    ports: [{{containerPort: 3000}}]\n"
        )));
        let init = text.split("  containers:\n").next().expect("the init containers").to_owned();
        init.lines()
            .filter_map(|line| line.strip_prefix("  - name: "))
            .filter(|name| name.len() < 10)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (ends, stays) =
        ("  - name: ends\n    image: a\n", "  # a sidecar\n  - name: stays\n    restartPolicy: Always\n");
    assert_eq!(order(ends), "ends pulsegate");
    assert_eq!(order(stays), "pulsegate stays");
    assert_eq!(order(&format!("{ends}{stays}")), "ends pulsegate stays");
    assert_eq!(order(&format!("{stays}{ends}{stays}")), "stays ends pulsegate stays");
}

#[test]
fn names_that_look_like_other_types_stay_strings() {
    for name in ["\"123\"", "'true'", "\"1e3\"", "on"] {
        let text = injected(
            &pod("  containers:\n  - name: app\n    ports: [{containerPort: 3000}]\n")
                .replace("name: a\n", &format!("name: {name}\n  namespace: \"0x1f\"\n")),
        );
        assert!(text.contains("  namespace: \"0x1f\"\n  annotations:"), "{text}");
    }
}
