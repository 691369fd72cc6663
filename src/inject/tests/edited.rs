//! Manifests that a person or a tool edited after the injection.

use super::{injected, options};
use crate::inject::{inject, uninject};

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  template:
    metadata:
      labels:
        app: shop
    spec:
      containers:
      - name: app
        image: a:1
        ports:
        - containerPort: 3000
";

fn service(ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: shop\nspec:\n  selector:\n    app: shop\n  ports:\n{ports}"
    )
}

/// Replaces a text that must be there.
#[track_caller]
fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replacen(from, to, 1)
}

/// Removes what was injected; returns text and notes.
#[track_caller]
fn restored(text: &str) -> (String, Vec<String>) {
    let restored = uninject(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (restored.text, restored.notes)
}

/// Returns the documents of a text as the items of a List.
fn list(documents: &[&str]) -> String {
    let item = |document: &&str| {
        let lines = document.lines().enumerate();
        lines.flat_map(|(at, line)| [if at == 0 { "- " } else { "  " }, line, "\n"]).collect::<String>()
    };
    format!("apiVersion: v1\nitems:\n{}kind: List\n", documents.iter().map(item).collect::<String>())
}

#[test]
fn a_config_map_inside_of_a_list_goes_alone() {
    let neighbour = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mine\ndata:\n  a: b\n";
    let text = injected(DEPLOYMENT);
    let (workload, config_map) = text.split_once("---\n").expect("two documents");
    let expected = list(&[DEPLOYMENT, neighbour]);
    for listed in [list(&[workload, config_map, neighbour]), list(&[config_map, workload, neighbour])] {
        let (back, notes) = restored(&listed);
        assert_eq!((back, notes), (expected.clone(), vec![]), "{listed}");
        let again = inject(&listed, &options()).expect("injected").text;
        assert!(again.contains("name: mine") && again.starts_with("apiVersion: v1\nitems:\n- "), "{again}");
        assert_eq!(restored(&again).0, expected);
    }
}

#[test]
fn a_port_is_found_again_wherever_it_stands() {
    let named = "  - name: web\n    port: 80\n    targetPort: 3000\n";
    let other = "  - name: other\n    port: 9000\n    targetPort: 9000\n";
    let text = injected(&format!("{DEPLOYMENT}---\n{}", service(named)));
    let moved = edit(&text, "  ports:\n  - name: web", &format!("  ports:\n{other}  - name: web"));
    let expected = format!("{DEPLOYMENT}---\n{}", service(&format!("{other}{named}")));
    assert_eq!(restored(&moved), (expected.clone(), vec![]));
    let again = inject(&moved, &options()).expect("injected");
    assert_eq!(restored(&again.text).0, expected);
    // A port without a name is found by its number.
    let text = injected(&format!("{DEPLOYMENT}---\n{}", service("  - port: 80\n    targetPort: 3000\n")));
    let moved = edit(&text, "  ports:\n  - port: 443", &format!("  ports:\n{other}  - port: 443"));
    let (back, notes) = restored(&moved);
    assert!(back.contains(&format!("{other}  - port: 80\n    targetPort: 3000\n")) && notes.is_empty(), "{back}");
}

#[test]
fn a_port_that_was_deleted_takes_no_other_with_it() {
    let both =
        "  - name: web\n    port: 80\n    targetPort: 3000\n  - name: other\n    port: 9000\n    targetPort: 9000\n";
    let text = injected(&format!("{DEPLOYMENT}---\n{}", service(both)));
    let gone = edit(&text, "  - name: web\n    port: 443\n    targetPort: 8443\n", "");
    let (back, notes) = restored(&gone);
    let left = service("  - name: other\n    port: 9000\n    targetPort: 9000\n");
    assert_eq!(back, format!("{DEPLOYMENT}---\n{left}"));
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("Service shop: spec/ports/web/port was injected, and was removed or renamed"),
        "{notes:?}"
    );
}

#[test]
fn own_values_stay_and_edits_of_the_sidecar_are_named() {
    let text =
        injected(&format!("{DEPLOYMENT}---\n{}", service("  - port: 80\n    name: web\n    targetPort: 3000\n")));
    for (from, to, kept, note) in [
        (
            "PeriodSeconds: 57",
            "PeriodSeconds: 90",
            true,
            "Deployment shop: terminationGracePeriodSeconds was edited from 57 to 90",
        ),
        (
            "fsGroup: 65532",
            "fsGroup: 2000",
            true,
            "Deployment shop: securityContext/fsGroup was edited from 65532 to 2000",
        ),
        ("seconds: 27", "seconds: 40", true, "Deployment shop: containers/app/lifecycle/preStop was edited since"),
        ("- port: 443", "- port: 8443", true, "Service shop: spec/ports/web/port was edited from 443 to 8443"),
        (
            "cpu: 100m",
            "cpu: 500m",
            false,
            "Deployment shop: initContainers/pulsegate was edited since it was injected, and the edit is lost",
        ),
        ("sizeLimit: 1Mi", "sizeLimit: 2Mi", false, "Deployment shop: volumes/pulsegate-run was edited"),
        (
            "window = \"15s\"",
            "window = \"16s\"",
            false,
            "ConfigMap shop-pulsegate: data was edited since it was injected, and the edit is lost; save it in a file, and inject with --config FILE",
        ),
    ] {
        let edited = edit(&text, from, to);
        let (back, notes) = restored(&edited);
        assert!(notes.len() == 1 && notes[0].starts_with(note), "{from}: {notes:?}");
        assert_eq!(back.contains(to), kept, "{from}: {back}");
        let again = inject(&edited, &options()).expect("injected");
        assert_eq!(again.notes.iter().filter(|line| line.starts_with(note)).count(), 1, "{:?}", again.notes);
    }
}

#[test]
fn what_has_another_name_is_found_if_it_is_the_only_one() {
    let text = injected(&format!("{DEPLOYMENT}---\n{}", service("  - port: 80\n    targetPort: 3000\n")));
    let (back, notes) = restored(&edit(&text, "- name: app", "- name: web"));
    assert!(
        notes.is_empty() && back.starts_with(&DEPLOYMENT.replace("- name: app", "- name: web")),
        "{notes:?}\n{back}"
    );
    let (back, notes) = restored(&edit(&text, "- port: 443", "- port: 8443"));
    assert!(back.ends_with("  - port: 8443\n    targetPort: 3000\n"), "{back}");
    assert!(notes.len() == 1 && notes[0].starts_with("Service shop: spec/ports/port=443/port was"), "{notes:?}");
    let (back, notes) = restored(&edit(&text, "targetPort: 8443", "targetPort: 9999"));
    assert!(back.ends_with("  - port: 80\n    targetPort: 9999\n"), "{back}");
    assert!(notes[0].contains("targetPort was edited from 8443 to 9999"), "{notes:?}");
    // Another init container in place of the sidecar is not removed.
    let other = edit(&text, "initContainers:\n      - name: pulsegate\n", "initContainers:\n      - name: mine\n");
    let (back, notes) = restored(&other);
    assert!(
        back.contains("- name: mine") && notes[0].contains("initContainers/pulsegate was injected, and was removed"),
        "{notes:?}"
    );
}

#[test]
fn a_network_policy_that_stops_clients_is_named() {
    let policy = |spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n  podSelector: {{matchLabels: {{app: shop}}}}\n{spec}"
        )
    };
    let noted = |policies: &str| {
        let notes = inject(&format!("{DEPLOYMENT}{policies}"), &options()).expect("injected").notes;
        notes.iter().any(|note| {
            note.starts_with("NetworkPolicy web selects Deployment shop and does not admit port 8443, the sidecar's; admit it instead of port 3000")
        })
    };
    let app_only = policy("  ingress:\n  - ports:\n    - port: 3000\n");
    assert!(noted(&app_only));
    assert!(noted(&policy("  ingress: []\n")));
    assert!(noted(&policy("  ingress:\n  - ports: [{port: 8443, protocol: UDP}]\n")));
    for admitted in [
        "  ingress:\n  - from: []\n",
        "  ingress:\n  - ports: [{port: 3000}, {port: 8443}]\n",
        "  ingress:\n  - ports: [{port: https}]\n",
        "  ingress:\n  - ports: [{port: 8000, endPort: 9000}]\n",
        "  policyTypes: [Egress]\n",
    ] {
        assert!(!noted(&policy(admitted)), "{admitted}");
        assert!(!noted(&format!("{app_only}{}", policy(admitted))) || admitted.contains("Egress"), "{admitted}");
    }
    assert!(!noted(&app_only.replace("app: shop", "app: other")));
    assert!(!noted(&app_only.replace("name: web", "name: web\n  namespace: other")));
}

#[test]
fn what_the_api_server_adds_is_no_edit() {
    let text = injected(DEPLOYMENT);
    let served = edit(&text, "defaultMode: 0440", "defaultMode: 288");
    let served = edit(&served, "            port: 9090\n", "            port: 9090\n            scheme: HTTP\n");
    let served = edit(
        &served,
        "        restartPolicy: Always\n",
        "        restartPolicy: Always\n        terminationMessagePolicy: File\n",
    );
    let served = edit(
        &served,
        "args: [\"run\", \"-c\", \"/etc/pulsegate/proxy.toml\"]",
        "args:\n        - run\n        - -c\n        - /etc/pulsegate/proxy.toml",
    );
    assert_eq!(restored(&served), (DEPLOYMENT.to_owned(), vec![]));
}

#[test]
fn what_is_no_longer_true_of_the_app_is_named() {
    let text = edit(DEPLOYMENT, "  name: shop\n", "  name: shop\n  namespace: prod\n") + "          hostPort: 80\n";
    let service = service("  - port: 80\n    appProtocol: http\n    targetPort: 3000\n");
    let service = edit(&service, "  name: shop\n", "  name: shop\n  namespace: prod\n");
    let notes = inject(&format!("{text}---\n{service}"), &options()).expect("injected").notes.join("\n");
    for note in [
        "create secret tls pulsegate-tls -n prod --cert=tls.crt",
        "Deployment shop has a hostPort for port 3000, through which clients bypass",
        "Service shop: appProtocol http of port 80 is no longer true",
    ] {
        assert!(notes.contains(note), "no {note:?} in {notes}");
    }
    let windows = edit(&text, "      containers:\n", "      os:\n        name: windows\n      containers:\n");
    let error = inject(&windows, &options()).expect_err("refused");
    assert!(error.line == Some(13) && error.message.starts_with("Deployment shop runs on Windows"), "{error}");
    for (only, is_known) in [
        ("shop", true),
        ("deploy/shop", true),
        ("Deployments/shop", true),
        ("prod/shop", true),
        ("test/shop", false),
        ("sts/shop", false),
    ] {
        let options = super::InjectOptions { only: vec![only.to_owned()], ..options() };
        assert_eq!(inject(&text, &options).is_ok(), is_known, "{only}");
    }
}

#[test]
fn documents_and_containers_that_run_together_are_refused_by_line() {
    let joined = format!("{DEPLOYMENT}{}", service("  - port: 80\n    targetPort: 3000\n"));
    let error = inject(&joined, &options()).expect_err("refused");
    assert!(
        error.line == Some(16) && error.message.ends_with("twice; separate documents by a line with --- alone"),
        "{error}"
    );
    let twice = format!("{DEPLOYMENT}      - name: app\n        image: b:1\n");
    let error = inject(&twice, &options()).expect_err("refused");
    assert!(
        error.line == Some(16) && error.message == "Deployment shop has two containers named app; rename one",
        "{error}"
    );
}
