//! `--config`: the file of the user in the `ConfigMap`, and its drain in the pod.

use std::fs;
use std::process::Command;

use pulsegate_test_kit::pki::Pki;
use serde_json::Value;
use tempfile::TempDir;

use super::{inject, place};
use crate::PULSEGATE;

const CONFIG: &str = r#"# Größe ✓
[tls]
certificate = "/etc/pulsegate-tls/tls.crt"
private_key = "/etc/pulsegate-tls/tls.key"

[listen]
address = "0.0.0.0:9443"

[upstream]
url = "http://127.0.0.1:3000"

[drain]
delay = "2s"
window = "90s"

[admin]
health = "0.0.0.0:9191"

[[route]]
path = "/slow/"
heartbeat = { close_grace = "10500ms" }
"#;

/// Runs it on the manifest of a Pod with this configuration.
fn with_config(text: &str) -> super::Ran {
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let file = folder.path().join("proxy.toml");
    fs::write(&file, text).expect("write it");
    let pod = place("manifests/pod.yaml").display().to_string();
    inject(["-f", &pod, "--config", &file.display().to_string()], b"")
}

#[test]
fn the_sleep_is_the_bound_that_check_prints() {
    let injected = with_config(CONFIG).text();
    // The same file, with a certificate that exists on this machine.
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let pki = Pki::make(folder.path());
    let file = folder.path().join("proxy.toml");
    let [certificate, key] = [&pki.certificate, &pki.private_key].map(|path| path.display().to_string());
    let text = CONFIG.replace("/etc/pulsegate-tls/tls.crt", &certificate).replace("/etc/pulsegate-tls/tls.key", &key);
    fs::write(&file, text).expect("write it");
    let checked =
        Command::new(PULSEGATE).args(["check", "--format", "json", "-c"]).arg(&file).output().expect("it runs");
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let bound = checked["serves"]["drain"]["total_s"].as_f64().unwrap_or_else(|| panic!("no bound in {checked:#}"));
    assert!((bound - 107.5).abs() < 1e-6, "{bound}: delay, window, close_grace and margin");
    for part in [
        "        sleep:\n          seconds: 108\n",
        "  terminationGracePeriodSeconds: 138\n",
        "    - name: https\n      containerPort: 9443\n",
        "    - name: pulsegate\n      containerPort: 9191\n",
        "        path: /readyz\n        port: 9191\n",
    ] {
        assert!(injected.contains(part), "no {part:?} in {injected}");
    }
    let indented: String =
        CONFIG.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("    {line}\n") }).collect();
    assert!(injected.ends_with(&format!("  proxy.toml: |\n{indented}")), "{injected}");
}

#[test]
fn check_has_nothing_against_the_configuration_that_is_made() {
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let pki = Pki::make(folder.path());
    let [certificate, key] = [&pki.certificate, &pki.private_key].map(|path| path.display().to_string());
    let pod = place("manifests/pod.yaml").display().to_string();
    for flags in [&[][..], &["--plain", "--trusted-proxies", "10.0.0.0/8"]] {
        let injected = inject(["-f", &pod].into_iter().chain(flags.iter().copied()), b"").text();
        let (_, text) = injected.split_once("  proxy.toml: |\n").expect("a configuration");
        let lines = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
        let text = lines.collect::<Vec<_>>().join("\n");
        let text = text.replace("/etc/pulsegate-tls/tls.crt", &certificate).replace("/etc/pulsegate-tls/tls.key", &key);
        let file = folder.path().join("proxy.toml");
        fs::write(&file, text).expect("write it");
        let output = Command::new(PULSEGATE).args(["check", "--format", "json", "-c"]).arg(&file).output();
        let checked: Value = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
        assert_eq!((&checked["valid"], &checked["warnings"]), (&true.into(), &Value::Array(vec![])), "{checked:#}");
        assert_eq!(checked["serves"]["drain"]["total_s"].as_f64().map(f64::ceil), Some(27.0), "{checked:#}");
    }
}

#[test]
fn a_configuration_behind_an_ingress_mounts_no_certificate() {
    let tls = "[tls]\nmode = \"off\"\n[forwarded]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[upstream]\nurl = \"http://127.0.0.1:3000\"";
    let injected = with_config(tls).text();
    assert!(!injected.contains("pulsegate-tls") && !injected.contains("fsGroup"), "{injected}");
    assert!(injected.ends_with("  proxy.toml: |-\n    [tls]\n    mode = \"off\"\n    [forwarded]\n    trusted_proxies = [\"10.0.0.0/8\"]\n    [upstream]\n    url = \"http://127.0.0.1:3000\"\n"), "{injected}");
}

#[test]
fn the_redirect_takes_no_port_of_the_app_and_needs_one_of_the_service() {
    let redirect = |port: u16| CONFIG.replace("[upstream]", &format!("redirect = \"0.0.0.0:{port}\"\n\n[upstream]"));
    let taken = with_config(&redirect(3000));
    assert_eq!((taken.code, taken.out.len()), (Some(1), 0), "{}", taken.err);
    assert!(taken.err.contains("has the port 3000") && taken.err.contains("another listen.redirect"), "{}", taken.err);
    let free = with_config(&redirect(8080));
    assert!(free.err.contains("note: listen.redirect is port 8080 of Pod "), "{}", free.err);
    assert!(!with_config(CONFIG).err.contains("redirect"));
}

#[test]
fn the_environment_of_this_shell_does_not_count() {
    let folder = TempDir::with_prefix("pulsegate-inject-").expect("make a temporary directory");
    let file = folder.path().join("proxy.toml");
    fs::write(&file, CONFIG).expect("write it");
    let mut command = Command::new(PULSEGATE);
    command.env("PULSEGATE__DRAIN__WINDOW", "1s").args(["inject", "-f"]).arg(place("manifests/pod.yaml"));
    let output = command.arg("--config").arg(&file).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("seconds: 108\n"), "{text}");
}

#[test]
fn an_unusable_configuration_exits_with_78_and_prints_no_manifest() {
    let tls = "[tls]\ncertificate = \"/etc/pulsegate-tls/tls.crt\"\nprivate_key = \"/etc/pulsegate-tls/tls.key\"\n";
    let app = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n";
    for (text, fault) in [
        ("[listen]\nadress = \"0.0.0.0:1\"\n".to_owned(), "did you mean `address`?"),
        (format!("{tls}{app}[drain]\nwindow = 5\n"), "proxy.toml:7:10"),
        ("not toml".to_owned(), "error: "),
        (
            format!("{}{app}", tls.replace("-tls/tls.crt", "/tls/server.crt")),
            "/etc/pulsegate/tls/server.crt is not in the pod, where the Secret is mounted at /etc/pulsegate-tls; put the file into the Secret, and write /etc/pulsegate-tls/server.crt",
        ),
        (format!("{tls}[upstream]\nurl = \"unix:/run/app.sock\"\n"), "upstream.url is a unix socket"),
        (
            format!("{tls}{app}[admin]\nhealth = \"off\"\n"),
            "admin.health must be an address that the kubelet's probes reach",
        ),
        (format!("{tls}{app}[admin]\nhealth = \"127.0.0.1:9090\"\n"), "admin.health must be an address"),
        (
            format!("{tls}{app}[admin]\nsocket = \"127.0.0.1:4040\"\n"),
            "admin.socket must be /run/pulsegate/admin.sock in the pod",
        ),
        (
            format!("{tls}{app}[listen]\naddress = \"127.0.0.1:8443\"\n"),
            "listen.address is a loopback address, which no client reaches in the pod; write \"[::]:8443\"",
        ),
        (format!("{tls}{app}[listen]\naddress = \"[::1]:8443\"\n"), "listen.address is a loopback address"),
        (
            format!("{tls}{app}[[route]]\npath = \"/x/\"\nupstream = {{ url = \"unix:/run/x.sock\" }}\n"),
            "route /x/: its upstream.url is a unix socket",
        ),
        (format!("[tls.acme]\ndomains = [\"app.example\"]\n{app}"), "let cert-manager write the Secret"),
    ] {
        let ran = with_config(&text);
        assert_eq!((ran.code, ran.out.len()), (Some(78), 0), "{text}: {}", ran.err);
        assert!(ran.err.contains(fault), "no {fault:?} in {}", ran.err);
    }
    let missing = inject(["-f", "-", "--config", "/nowhere/proxy.toml"], b"");
    assert_eq!((missing.code, missing.out.len()), (Some(78), 0));
    assert!(missing.err.contains("cannot read /nowhere/proxy.toml: No such file"), "{}", missing.err);
}
