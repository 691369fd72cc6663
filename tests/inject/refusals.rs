//! Input that is not injected: nothing on standard output, and a sentence with the place and the way out.

use std::fs;

use tempfile::TempDir;

use super::{inject, place};

/// The manifest of a Pod, with the lines `pod` in its specification and `container` in its container.
fn pod(spec: &str, container: &str) -> String {
    let indented = |text: &str, by: usize| -> String {
        text.lines().flat_map(|line| [&" ".repeat(by), line, "\n"].map(str::to_owned)).collect()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: demo\nspec:\n{}  containers:\n  - name: app\n    image: demo:1\n{}",
        indented(spec, 2),
        indented(container, 4)
    )
}

#[track_caller]
fn refused(flags: &[&str], input: &[u8], sentence: &str) {
    let ran = inject(["-f", "-"].into_iter().chain(flags.iter().copied()), input);
    assert_eq!((ran.code, ran.out.len()), (Some(1), 0), "{}", ran.err);
    assert!(ran.err.starts_with("pulsegate: ") && ran.err.contains(sentence), "no {sentence:?} in {}", ran.err);
    assert_eq!(ran.err.trim_end().lines().count(), 1, "{}", ran.err);
}

const PORT: &str = "ports:\n- containerPort: 3000";

#[test]
fn what_is_no_manifest_is_refused() {
    refused(&[], b"", "standard input: no workload that serves clients; pass a Deployment");
    refused(&[], b"# nothing\n---\n", "no workload that serves clients");
    refused(&[], b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n", "no workload that serves clients");
    refused(&[], b"just words", "no workload that serves clients");
    refused(&[], b"a: [1\nb: 2\n", "standard input:");
    refused(&[], b"kind: Pod\nmetadata:\n\tname: x\n", "standard input:3: column 2: not YAML: ");
    refused(&[], b"kind: Pod\nmetadata:\n\tname: x\n", "; indent with spaces");
    refused(&[], b"kind: Pod\nspec: \"\xff\"\n", "line 2 is not UTF-8 text; save the file as UTF-8");
    refused(&[], b"kind: Pod\rspec: {}\n", "standard input:1: a carriage return without a newline");
    let template =
        "kind: Deployment\nspec:\n  replicas: {{ .Values.replicas }}\n  {{- toYaml .Values.pod | nindent 2 }}\n";
    refused(&[], template.as_bytes(), "this looks like a template: render it first");
    let value = pod("", PORT).replace("demo:1", "{{ .Values.image }}");
    refused(&[], value.as_bytes(), "standard input:8: a variable in double braces: this looks like a template");
    refused(&[], &vec![b'#'; 50 * 1024 * 1024], "cannot read standard input: it is longer than 16777216 bytes");
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, sentence) in [
        ("", "it is a folder; pass one file, or join several: cat *.yaml | pulsegate inject -f -"),
        ("missing.yaml", "No such file or directory"),
    ] {
        let ran = inject(["-f", &path(name)], b"");
        assert_eq!((ran.code, ran.out.len()), (Some(1), 0), "{}", ran.err);
        assert!(ran.err.contains("cannot read ") && ran.err.contains(sentence), "{}", ran.err);
    }
    // The file is named in front of the line, and stays as it is.
    let text = pod("hostNetwork: true", PORT);
    fs::write(path("a.yaml"), &text).expect("write it");
    let ran = inject(["-f", &path("a.yaml")], b"");
    assert!(ran.err.contains("/a.yaml:6: Pod demo uses the network of its node (hostNetwork)"), "{}", ran.err);
    assert_eq!(fs::read_to_string(path("a.yaml")).expect("readable"), text);
}

#[test]
fn what_stands_in_the_way_is_named_with_its_line() {
    let in_pod = |spec: &str, container: &str, sentence: &str| refused(&[], pod(spec, container).as_bytes(), sentence);
    in_pod("", "", "Pod demo declares no containerPort, so the app's port is not known; pass --port");
    in_pod("", "ports:\n- containerPort: 3000\n- containerPort: 3001", "has several ports (3000, 3001)");
    let taken = pod("", "ports:\n- containerPort: 3000\n- containerPort: 8443");
    refused(&["--port", "3000"], taken.as_bytes(), ":11: container app has the port 8443");
    in_pod("", "ports:\n- containerPort: 9090", "container app has the port 9090, which the sidecar needs");
    in_pod(
        "initContainers:\n- name: pulsegate\n  image: a",
        PORT,
        ":7: Pod demo has a container named pulsegate that inject did not add",
    );
    in_pod(
        "volumes:\n- name: pulsegate-run\n  emptyDir: {}",
        PORT,
        ":7: Pod demo has a volume that inject would add; rename it",
    );
    let hook = format!("{PORT}\nlifecycle:\n  preStop:\n    exec:\n      command: [sleep, '5']");
    in_pod(
        "",
        &hook,
        ":12: container app has a preStop hook of its own, and a container has one at most; replace it by sleep: { seconds: 27 }",
    );
    in_pod(
        "terminationGracePeriodSeconds: ${GRACE}",
        PORT,
        ":6: terminationGracePeriodSeconds is \"${GRACE}\" and no number of seconds; fill the variable in first",
    );
    in_pod("terminationGracePeriodSeconds: 1h", PORT, "no number of seconds");
    in_pod("securityContext: {runAsUser: 1}", PORT, ":6: securityContext is in flow style");
    in_pod(
        "securityContext: &a\n  runAsUser: 1\nx: *a",
        PORT,
        "securityContext has an anchor, and an alias repeats it",
    );
    in_pod("<<: {}", PORT, ":6: spec is merged with another mapping (`<<`)");
    in_pod("volumes: []\nvolumes: []", PORT, "spec has the key volumes twice");
    in_pod("volumes: # why\n  []", PORT, "volumes has a comment between key and value");
    refused(
        &[],
        pod("", PORT)
            .replace(
                "containers:\n  - name: app",
                "containers: [{name: a, ports: [{containerPort: 1}]}]\n  x:\n  - name: app",
            )
            .as_bytes(),
        ":6: containers is in flow style ({} or []), in which no line can be inserted; write it in block style",
    );
    refused(
        &[],
        pod("", PORT).replace("  name: demo", "  generateName: demo-").as_bytes(),
        "Pod without a name; write metadata.name",
    );
    refused(
        &[],
        b"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec: {}\n",
        ":1: Deployment a has no spec.template.spec",
    );
    refused(&[], b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers: []\n", "has no containers");
    let json = br#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}}"#;
    refused(&[], json, "this is JSON: print it as YAML, as in kubectl get -o yaml or yq -P FILE");
    refused(&["--only", "web,demo"], pod("", PORT).as_bytes(), "no workload is named \"web\"; there are Pod/demo");
    let config_map =
        format!("{}---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: demo-pulsegate\n", pod("", PORT));
    refused(&[], config_map.as_bytes(), "there is a ConfigMap demo-pulsegate already");
    refused(
        &[],
        pod("", "ports:\n- containerPort: 3000\nargs:\n- |\n  a").trim_end().as_bytes(),
        "the file ends in a block scalar without a newline",
    );
}

#[test]
fn the_way_out_that_a_refusal_names_works() {
    let hook = format!("{PORT}\nlifecycle:\n  preStop:\n    exec:\n      command: [sleep, '30']");
    let kept = inject(["-f", "-", "--keep-pre-stop"], pod("", &hook).as_bytes()).text();
    assert!(kept.contains("command: [sleep, '30']\n") && !kept.contains("seconds: 27\n"), "{kept}");
    assert!(inject(["-f", "-", "--port", "3001"], pod("", "").as_bytes()).text().contains("http://127.0.0.1:3001\""));
    let two = format!("{}---\n{}", pod("", PORT), pod("", "").replace("demo", "other"));
    assert!(inject(["-f", "-", "--only", "pod/demo"], two.as_bytes()).text().contains("demo-pulsegate"));
    let both = format!("{}---\n{}", pod("", PORT), pod("", PORT).replace("demo", "other"));
    let both = inject(["-f", "-"], both.as_bytes()).text();
    assert!(both.contains("name: demo-pulsegate\n") && both.contains("name: other-pulsegate\n"), "{both}");
}

#[test]
fn a_null_grace_period_is_the_default() {
    for null in ["", " null", " ~"] {
        let text = pod(&format!("terminationGracePeriodSeconds:{null}"), PORT);
        let injected = inject(["-f", "-"], text.as_bytes()).text();
        assert!(injected.contains("  terminationGracePeriodSeconds: 57\n"), "{injected}");
        assert_eq!(inject(["-f", "-", "--uninject"], injected.as_bytes()).text(), text);
    }
}

#[test]
fn a_record_that_was_changed_is_refused() {
    let injected = inject(["-f", "-"], pod("", PORT).as_bytes()).text();
    let broken = injected.replacen("{\"version\"", "{version", 1);
    refused(&["--uninject"], broken.as_bytes(), ":6: annotation pulsegate/injected is not as it was written");
    refused(&[], broken.as_bytes(), "restore it, or remove by hand what was injected");
}

#[test]
fn edits_of_a_person_survive_uninject() {
    let text = pod("", PORT);
    let injected = inject(["-f", "-"], text.as_bytes()).text();
    let edited = injected.replace("demo:1", "demo:2").replace("cpu: 100m", "cpu: 500m");
    let edited = edited.replace("  volumes:\n", "  volumes:\n  # mine\n  - name: mine\n    emptyDir: {}\n");
    let back = inject(["-f", "-", "--uninject"], edited.as_bytes()).text();
    let expected = text.replace("demo:1", "demo:2") + "  volumes:\n  # mine\n  - name: mine\n    emptyDir: {}\n";
    assert_eq!(back, expected);
}

#[test]
fn wrong_flags_are_wrong_usage() {
    let pod = place("manifests/pod.yaml").display().to_string();
    for flags in [
        &["--plain"][..],
        &["--trusted-proxies", "10.0.0.0/8"],
        &["--plain", "--trusted-proxies", "10.0.0.0/33"],
        &["--plain", "--trusted-proxies", "10.0.0.0/8", "--tls-secret", "a"],
        &["--config", "a.toml", "--port", "1"],
        &["--uninject", "--port", "3000"],
        &["--port", "0"],
        &["--image", "a b"],
        &["--tls-secret", "A_b"],
        &["--in-place"],
    ] {
        let ran = inject(["-f", &pod].into_iter().chain(flags.iter().copied()), b"");
        assert_eq!((ran.code, ran.out.len()), (Some(2), 0), "{flags:?}: {}", ran.err);
    }
    assert_eq!(inject([], b"").code, Some(2), "no file is named");
}
