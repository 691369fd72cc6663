//! Real manifests: their goldens, the way back, and the judge.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{inject, place};

/// A manifest of the folder `manifests`, its flags, and what the judge must know.
struct Case {
    name: &'static str,
    flags: &'static [&'static str],
    port: u16,
    listen: u16,
}

const IMAGE: &str = concat!("registry.example.com/pulsegate:", env!("CARGO_PKG_VERSION"));

const CASES: [Case; 6] = [
    // `helm create shop`, rendered.
    Case { name: "helm_template", flags: &[], port: 3000, listen: 8443 },
    // `kubectl create deployment` and `kubectl expose`, both with --dry-run=client -o yaml.
    Case {
        name: "kubectl_create",
        flags: &["--plain", "--trusted-proxies", "10.0.0.0/8,fd00::/8"],
        port: 8080,
        listen: 8081,
    },
    // `kompose convert --stdout` of an app with Redis.
    Case {
        name: "kompose",
        flags: &[
            "--only",
            "web",
            "--image",
            "ghcr.io/example/pulsegate:0.1.0@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        ],
        port: 3000,
        listen: 8443,
    },
    // `kubectl get daemonset,service -o yaml`.
    Case { name: "kubectl_get_list", flags: &["--tls-secret", "wildcard"], port: 3000, listen: 8443 },
    Case { name: "by_hand", flags: &[], port: 8080, listen: 8443 },
    Case { name: "pod", flags: &["--plain", "--trusted-proxies", "192.168.0.0/16"], port: 3000, listen: 8080 },
];

impl Case {
    fn path(&self) -> String {
        place(&format!("manifests/{}.yaml", self.name)).display().to_string()
    }

    fn injected(&self) -> String {
        let path = self.path();
        inject(["-f", &path].into_iter().chain(self.flags.iter().copied()), b"").text()
    }

    fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().skip_while(|flag| **flag != name).nth(1).copied()
    }

    /// Returns the facts for the judge; `after` is the path of the output.
    fn facts(&self, after: &Path) -> Value {
        json!({
            "before": self.path(),
            "after": after,
            "port": self.port,
            "listen": self.listen,
            "plain": self.flags.contains(&"--plain"),
            "image": self.flag("--image").unwrap_or(IMAGE),
            "secret": self.flag("--tls-secret"),
            "only": self.flag("--only").map(|only| [only]),
            "drain": 27,
        })
    }
}

#[test]
fn every_manifest_becomes_its_golden() {
    for case in &CASES {
        let golden = place(&format!("golden/{}.yaml", case.name));
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        // A release changes no golden.
        let injected = case.injected().replace(IMAGE, "registry.example.com/pulsegate:VERSION");
        let injected = injected.replace(concat!("\"version\":\"", env!("CARGO_PKG_VERSION")), "\"version\":\"VERSION");
        let injected = without_sum(&injected, "\"initContainers/pulsegate\":\"#");
        if injected != expected {
            let written = std::env::temp_dir().join(format!("pulsegate-inject-{}.yaml", case.name));
            fs::write(&written, &injected).expect("write it");
            panic!("diff {} {}; if it is right, copy it", golden.display(), written.display());
        }
    }
}

/// Returns a text without the hash behind `marker`, which covers the version of the image.
fn without_sum(text: &str, marker: &str) -> String {
    let mut parts = text.split(marker);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + marker + "SUM" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

#[test]
fn the_additions_are_exactly_those_that_an_independent_judge_expects() {
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let facts = CASES.iter().map(|case| {
        let after = folder.path().join(case.name);
        fs::write(&after, case.injected()).expect("write it");
        case.facts(&after)
    });
    let list = folder.path().join("cases.json");
    fs::write(&list, facts.collect::<Value>().to_string()).expect("write it");
    let python = Command::new(place("../deploy/venv")).output().expect("tests/deploy/venv runs");
    assert!(python.status.success(), "tests/deploy/venv: {}", String::from_utf8_lossy(&python.stderr));
    let python = String::from_utf8(python.stdout).expect("a path");
    let judged = Command::new("timeout")
        .args(["--kill-after=5", "300", python.trim()])
        .arg(place("judge.py"))
        .arg(&list)
        .output()
        .expect("timeout(1) runs");
    let said = String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{said}");
    assert_eq!(said.matches("ok ").count(), CASES.len(), "{said}");
}

#[test]
fn a_second_run_changes_nothing_and_uninject_gives_the_bytes_back() {
    for case in &CASES {
        let (before, injected) = (fs::read(case.path()).expect("readable"), case.injected());
        let again = inject(["-f", "-"].into_iter().chain(case.flags.iter().copied()), injected.as_bytes());
        assert_eq!(again.text(), injected, "{}", case.name);
        let back = inject(["--uninject", "-f", "-"], injected.as_bytes());
        assert!(back.err.contains("removed from ConfigMap"), "{}", back.err);
        assert_eq!((back.code, back.out == before), (Some(0), true), "{}: {}", case.name, back.err);
        // Nothing to remove.
        let same = inject(["--uninject", "-f", "-"], &before);
        assert!(same.err.contains("nothing was injected"), "{}", same.err);
        assert_eq!((same.code, same.out == before), (Some(0), true), "{}: {}", case.name, same.err);
    }
}

#[test]
fn other_flags_replace_what_was_injected() {
    let path = CASES[0].path();
    let first = inject(["-f", &path], b"").text();
    let flags = ["--image", "ghcr.io/example/pulsegate:0.2.0", "--plain", "--trusted-proxies", "10.0.0.0/8"];
    let second = inject(["-f", "-"].into_iter().chain(flags), first.as_bytes()).text();
    assert_eq!(second, inject(["-f", &path].into_iter().chain(flags), b"").text());
    assert!(second.contains("ghcr.io/example/pulsegate:0.2.0") && !second.contains("pulsegate-tls"), "{second}");
}

#[test]
fn what_a_person_should_do_is_said_beside_the_output() {
    let ran = inject(["-f", &CASES[0].path()], b"");
    for line in [
        "injected into Deployment shop: app port 3000, preStop sleep 27 s, grace period 57 s\n",
        "note: Service shop: port 80 is now 443, as the sidecar speaks TLS\n",
        "note: Deployment shop needs the Secret pulsegate-tls: kubectl create secret tls pulsegate-tls --cert=tls.crt --key=tls.key",
        "note: Pod shop-test-connection is left as it is: it is a hook of Helm\n",
        "is a placeholder; pass --image\n",
    ] {
        assert!(ran.err.contains(line), "no {line:?} in {}", ran.err);
    }
    let ran = inject(["-f", &CASES[4].path()], b"");
    assert!(ran.err.contains("note: CronJob sweep is left as it is: a Job serves no clients\n"), "{}", ran.err);
}
