//! The documents are true: every command in them is run here or by a test that is named here, the transcript of the
//! README matches the output, every example of a configuration is valid, and every link has a target.

mod links;
mod program;
mod release;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use program::Program;
use rcgen::{CertificateParams, KeyPair};
use transcript::{Dev, dev_leads_to_its_own_transcript};

const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");

/// The test of a command.
enum Tried {
    /// A test of this file.
    Here(fn()),
    /// Another test: this text is in that file.
    Elsewhere { file: &'static str, by: &'static str },
}

/// The documents whose commands are tested.
const PAPERS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "config/README.md",
    "deploy/README.md",
    "deploy/OPERATIONS.md",
    "deploy/API.md",
    "deploy/monitoring/README.md",
    "deploy/npm/README.md",
    "tests/load/README.md",
];

/// Every command of the documents, exactly as it is written there.
const COMMANDS: &[(&str, Tried)] = &[
    ("cargo run --release -- dev", Tried::Here(dev_leads_to_its_own_transcript)),
    (
        "pulsegate ping --interval 1m --ca /tmp/pulsegate-dev-8443.pem wss://localhost:8443/echo",
        Tried::Here(dev_leads_to_its_own_transcript),
    ),
    (INSTALL, Tried::Here(the_program_is_installed)),
    (
        "deploy/npm/pack",
        Tried::Elsewhere { file: "tests/npm/pack.rs", by: "fn without_a_program_it_builds_a_static_one" },
    ),
    (
        concat!("npx ./deploy/npm/pulsegate-", env!("CARGO_PKG_VERSION"), "-linux-x64.tgz dev -- node server.js"),
        Tried::Elsewhere { file: "tests/npm/npx.rs", by: "fn the_tarball_of_both_needs_no_registry" },
    ),
    (
        "npx pulsegate dev",
        Tried::Elsewhere { file: "tests/npm/npx.rs", by: "fn sigterm_to_npx_ends_the_program_in_order" },
    ),
    (
        "npx pulsegate dev --to http://127.0.0.1:3000",
        Tried::Elsewhere { file: "tests/npm/launcher.rs", by: "fn arguments_and_environment_reach_the_program" },
    ),
    (
        "npm install pulsegate",
        Tried::Elsewhere { file: "tests/npm/managers.rs", by: "fn npm_installs_the_program_of_this_platform" },
    ),
    (
        "npx pulsegate --help",
        Tried::Elsewhere { file: "tests/npm/launcher.rs", by: "fn the_exit_code_is_that_of_the_program" },
    ),
    ("pulsegate dev --to http://127.0.0.1:3000", Tried::Here(dev_stands_in_front_of_another_app)),
    (
        "pulsegate dev -- node server.js",
        Tried::Elsewhere { file: "tests/child/start.rs", by: "fn dev_starts_the_app_too" },
    ),
    (
        "pulsegate dev --trust --open",
        Tried::Elsewhere {
            file: "tests/dev/trust.rs",
            by: "fn the_system_and_the_browsers_trust_the_ca_until_it_is_removed",
        },
    ),
    (
        "pulsegate dev --untrust",
        Tried::Elsewhere {
            file: "tests/dev/trust.rs",
            by: "fn the_system_and_the_browsers_trust_the_ca_until_it_is_removed",
        },
    ),
    (
        "pulsegate dev --lan",
        Tried::Elsewhere {
            file: "tests/dev/lan.rs",
            by: "fn the_address_of_the_lan_is_found_and_is_in_the_certificate",
        },
    ),
    (
        "pulsegate run -c proxy.toml -- node server.js",
        Tried::Elsewhere { file: "tests/child/start.rs", by: "fn the_app_gets_a_port" },
    ),
    (
        "pulsegate run -c proxy.toml --stop-within 10s -- node server.js",
        Tried::Elsewhere { file: "tests/child/end.rs", by: "fn a_drain_fits_the_time_of_the_platform" },
    ),
    ("mkcert -install", Tried::Here(the_steps_of_the_readme_lead_to_a_proxy)),
    (MKCERT, Tried::Here(the_steps_of_the_readme_lead_to_a_proxy)),
    ("pulsegate check -c proxy.toml", Tried::Here(the_steps_of_the_readme_lead_to_a_proxy)),
    ("pulsegate run -c proxy.toml", Tried::Here(the_steps_of_the_readme_lead_to_a_proxy)),
    (
        "pulsegate run --listen 0.0.0.0:8443 --upstream http://127.0.0.1:3000 --certificate tls.crt --private-key tls.key",
        Tried::Elsewhere { file: "tests/operate/start.rs", by: "fn flags_alone_make_a_proxy" },
    ),
    (
        "pulsegate run --domain app.example.com --email ops@example.com -- node server.js",
        Tried::Elsewhere { file: "tests/acme/child.rs", by: "fn one_command_serves_an_app_with_a_certificate" },
    ),
    ("pulsegate ping -c 3 wss://app.example.com/ws", Tried::Here(ping_prints_round_trips)),
    (
        concat!(
            "docker build -f deploy/Dockerfile -t registry.example.com/pulsegate:",
            env!("CARGO_PKG_VERSION"),
            " ."
        ),
        Tried::Elsewhere { file: "tests/deploy/checks.py", by: "def check_the_build_context_is_complete" },
    ),
    (
        "docker build -t registry.example.com/express-app:1.0.0 deploy/kubernetes/example/app",
        Tried::Elsewhere {
            file: "tests/kubernetes/runs.rs",
            by: "fn the_packages_of_the_example_are_those_of_the_tests",
        },
    ),
    (
        "kubectl create secret tls pulsegate-tls --cert=tls.crt --key=tls.key",
        Tried::Elsewhere { file: "tests/kubernetes/judge.py", by: "def name_problems" },
    ),
    (
        "kubectl apply -k deploy/kubernetes/example/overlay",
        Tried::Elsewhere { file: "tests/kubernetes/component.rs", by: "fn the_overlay_is_the_app_behind_pulsegate" },
    ),
    (
        "kubectl kustomize deploy/kubernetes/example/overlay",
        Tried::Elsewhere { file: "tests/kubernetes/component.rs", by: "fn the_overlay_is_the_app_behind_pulsegate" },
    ),
    (
        "kubectl kustomize . > before.yaml",
        Tried::Elsewhere {
            file: "tests/kubernetes/component.rs",
            by: "fn a_comparison_names_what_the_component_replaces",
        },
    ),
    (
        "kubectl kustomize . | diff before.yaml - | grep '^<'",
        Tried::Elsewhere { file: "tests/kubernetes/component.rs", by: "| diff before.yaml - | grep '^<'" },
    ),
    (
        "kubectl apply -f deploy/monitoring/networkpolicy.yaml -f deploy/monitoring/pdb.yaml",
        Tried::Elsewhere { file: "tests/kubernetes/component.rs", by: "fn policies_fit_the_example" },
    ),
    (
        "helm dependency build deploy/helm/express-example",
        Tried::Elsewhere { file: "tests/kubernetes/made.rs", by: ".args([\"dependency\", \"build\", chart])" },
    ),
    (
        "helm install chat deploy/helm/express-example --set-file tls.certificate=tls.crt --set-file tls.privateKey=tls.key",
        Tried::Elsewhere { file: "tests/kubernetes/charts.rs", by: "fn the_certificate_of_the_example_has_one_source" },
    ),
    (
        "pulsegate inject -f deployment.yaml | kubectl apply -f -",
        Tried::Elsewhere { file: "tests/inject/manifests.rs", by: "fn every_manifest_becomes_its_golden" },
    ),
    (
        "helm template shop ./chart | pulsegate inject -f - | kubectl apply -f -",
        Tried::Elsewhere { file: "tests/inject/manifests.rs", by: "name: \"helm_template\"" },
    ),
    (
        "pulsegate inject -f deployment.yaml --image registry.example.com/pulsegate > injected.yaml",
        Tried::Elsewhere { file: "tests/inject/manifests.rs", by: "fn other_flags_replace_what_was_injected" },
    ),
    (
        "pulsegate inject -f injected.yaml --uninject > deployment.yaml",
        Tried::Elsewhere {
            file: "tests/inject/manifests.rs",
            by: "fn a_second_run_changes_nothing_and_uninject_gives_the_bytes_back",
        },
    ),
    (
        "pulsegate conns --state closed",
        Tried::Elsewhere { file: "tests/operate/real.rs", by: "fn sessions_are_listed_watched_and_closed" },
    ),
    (
        "pulsegate kill f6d2804a0000000c --reason \"under investigation\"",
        Tried::Elsewhere { file: "tests/operate/real.rs", by: "fn sessions_are_listed_watched_and_closed" },
    ),
    (
        "pulsegate drain --wait",
        Tried::Elsewhere { file: "tests/operate/real.rs", by: "fn a_drain_is_waited_for_and_the_process_stays" },
    ),
    (
        "pulsegate healthcheck --ready",
        Tried::Elsewhere { file: "tests/operate/real.rs", by: "fn a_drain_is_waited_for_and_the_process_stays" },
    ),
    (
        "pulsegate reload",
        Tried::Elsewhere { file: "tests/operate/reload.rs", by: "fn a_failure_exits_with_one_and_prints_its_reason" },
    ),
    (
        "pulsegate config schema > proxy.schema.json",
        Tried::Elsewhere { file: "tests/schema/main.rs", by: "[\"config\", \"schema\"]" },
    ),
    (
        "curl --unix-socket /run/pulsegate/admin.sock 'http://localhost/v1/connections?state=closed'",
        Tried::Elsewhere { file: "tests/admin/closing.rs", by: "rig.get(\"/v1/connections?state=closed\")" },
    ),
    ("tests/load/run", Tried::Elsewhere { file: "tests/run", by: "tests/load/run --only soak --quick" }),
    ("tests/load/run --quick", Tried::Elsewhere { file: "tests/run", by: "tests/load/run --only soak --quick" }),
    (
        "tests/load/stopwatch",
        Tried::Elsewhere { file: "tests/deploy/artifacts.rs", by: "fn the_stopwatch_measures_them" },
    ),
    ("tests/load/instructions", Tried::Here(the_long_scripts_explain_themselves)),
    ("tests/load/instructions --profiles", Tried::Here(the_long_scripts_explain_themselves)),
    ("cargo build", Tried::Here(the_program_is_installed)),
    ("cargo test --lib", Tried::Elsewhere { file: "tests/run", by: "cargo test --workspace" }),
    ("cargo test --test rules", Tried::Elsewhere { file: "tests/run", by: "cargo test --workspace" }),
    ("cargo test --test program heartbeat", Tried::Elsewhere { file: "tests/run", by: "cargo test --workspace" }),
    ("tests/install", Tried::Elsewhere { file: "tests/run", by: "step \"tests/install\" tests/install" }),
    ("tests/run", Tried::Elsewhere { file: ".ci/run", by: "tests/run </dev/null" }),
    (".ci/run", Tried::Elsewhere { file: ".github/workflows/ci.yml", by: "run: .ci/run" }),
    ("tests/scenarios", Tried::Elsewhere { file: "tests/rules/main.rs", by: "\"tests/scenarios\"" }),
    ("tests/long --only fuzz --minutes 5", Tried::Here(the_long_scripts_explain_themselves)),
    (
        "deploy/artifacts",
        Tried::Elsewhere { file: "tests/deploy/artifacts.rs", by: "fn a_release_has_every_file_with_its_checksum" },
    ),
    (
        "deploy/packages/build target/release/pulsegate --allow-dynamic",
        Tried::Elsewhere { file: "tests/deploy/rpm_apk.rs", by: "fn the_same_program_makes_the_same_packages" },
    ),
    (
        "sudo apt install ./target/artifacts/pulsegate_*.deb",
        Tried::Elsewhere { file: "tests/deploy/deb.rs", by: "fn an_installation_creates_the_user_and_starts_nothing" },
    ),
    (
        "sudo dnf install ./target/artifacts/pulsegate-*.rpm",
        Tried::Elsewhere { file: "tests/deploy/rpm_apk.rs", by: "fn the_rpm_is_installed_upgraded_and_removed" },
    ),
    (
        "sudo apk add --allow-untrusted ./target/artifacts/pulsegate_*.apk",
        Tried::Elsewhere { file: "tests/deploy/rpm_apk.rs", by: "fn the_scripts_of_the_apk_run_with_busybox" },
    ),
    (
        concat!("tar -xzf target/artifacts/pulsegate-", env!("CARGO_PKG_VERSION"), "-x86_64-unknown-linux-gnu.tar.gz"),
        Tried::Elsewhere { file: "tests/deploy/artifacts.rs", by: "fn archive_runs" },
    ),
    (
        "pulsegate check -c /etc/pulsegate/proxy.toml",
        Tried::Elsewhere { file: "tests/deploy/deb.rs", by: "fn an_installation_creates_the_user_and_starts_nothing" },
    ),
    (
        "systemctl enable --now pulsegate",
        Tried::Elsewhere { file: "tests/deploy/checks.py", by: "def check_systemd_takes_the_unit" },
    ),
    (
        "sed -i 's#https://runbooks.example.com/pulsegate#https://git.example.com/pulsegate/deploy#' deploy/monitoring/rules.yaml",
        ALERTS,
    ),
    ("promtool check rules deploy/monitoring/rules.yaml", ALERTS),
    (PROMETHEUS_RULE, ALERTS),
    (
        "kubectl create configmap pulsegate-dashboard --from-file=pulsegate.json=deploy/monitoring/dashboard.json",
        ALERTS,
    ),
    ("kubectl label configmap pulsegate-dashboard grafana_dashboard=1", ALERTS),
    (
        "docker build -f deploy/Dockerfile -t pulsegate .",
        Tried::Elsewhere { file: "tests/deploy/checks.py", by: "def check_the_build_context_is_complete" },
    ),
    (
        "deploy/image target/x86_64-unknown-linux-gnu/dist/pulsegate --tag registry.example.com/pulsegate",
        Tried::Elsewhere { file: "tests/image/files.rs", by: "fn its_architecture_is_that_of_the_program" },
    ),
    (
        "docker compose up --build",
        Tried::Elsewhere { file: "tests/deploy/compose.rs", by: "fn the_command_of_the_file_makes_a_proxy" },
    ),
    ("deploy/release 0.2.0 --dry-run", Tried::Elsewhere { file: "tests/readme/release.rs", by: "\"--dry-run\"" }),
    ("deploy/release 0.2.0", Tried::Elsewhere { file: "tests/readme/release.rs", by: "a_release_is_made_in_a_clone" }),
];

/// The test that runs every command of the paper about monitoring.
const ALERTS: Tried = Tried::Elsewhere {
    file: "tests/monitoring/loading.rs",
    by: "fn the_commands_of_the_paper_load_alerts_and_dashboard",
};
const PROMETHEUS_RULE: &str = "{ printf 'apiVersion: monitoring.coreos.com/v1\\nkind: PrometheusRule\\nmetadata:\\n  \
                               name: pulsegate\\nspec:\\n'; sed 's/^/  /' deploy/monitoring/rules.yaml; } | kubectl apply -f -";
const INSTALL: &str = "sudo install -m 755 target/release/pulsegate /usr/local/bin/";
const MKCERT: &str = "mkcert -cert-file tls.crt -key-file tls.key localhost";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn paper(name: &str) -> String {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    // tests/runbook runs the commands of the runbook.
    let Some((before, rest)) = text.split_once("\n## Runbook\n") else { return text };
    format!("{before}\n## {}", rest.split_once("\n## ").expect("a section after the runbook").1)
}

fn readme() -> String {
    paper("README.md")
}

/// Returns the fenced blocks of a text in this language, without their indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(opened) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut block = String::new();
        for line in lines.by_ref().take_while(|line| line.trim_start() != "```") {
            block = block + line.get(indent..).unwrap_or_default() + "\n";
        }
        if opened == language {
            found.push(block);
        }
    }
    found
}

/// Returns every command: each line of a `sh` block, and those behind a prompt in a `console` block.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for text in PAPERS.iter().map(|name| paper(name)) {
        let (scripts, transcripts) = (blocks(&text, "sh"), blocks(&text, "console"));
        let typed = transcripts.iter().flat_map(|block| block.lines()).filter_map(|line| line.strip_prefix("$ "));
        let lines = scripts.iter().flat_map(|block| block.lines()).chain(typed);
        commands.extend(lines.map(|line| line.split_once(" #").map_or(line, |(command, _)| command).trim().to_owned()));
    }
    assert!(commands.len() > 20, "{commands:?}");
    commands
}

#[test]
fn every_command_is_tried() {
    let commands = commands();
    for command in &commands {
        assert!(COMMANDS.iter().any(|(known, _)| known == command), "no test for {command:?}");
    }
    for (known, tried) in COMMANDS {
        assert!(commands.iter().any(|command| command == known), "{known:?} is in no paper any more");
        if let Tried::Elsewhere { file, by } = tried {
            let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(by), "{by:?}, which tries {known:?}, is not in {file}");
        }
    }
    // One after the other: the port that the README names is free for one of them at a time.
    let mut done: Vec<fn()> = Vec::new();
    for (_, tried) in COMMANDS {
        if let Tried::Here(test) = tried
            && !done.iter().any(|other| std::ptr::fn_addr_eq(*other, *test))
        {
            test();
            done.push(*test);
        }
    }
}

#[test]
fn keys_and_defaults_in_the_table_are_those_of_the_documented_file() {
    let documented = fs::read_to_string(root().join("config/proxy.toml")).expect("it is there");
    let mut seen = 0;
    for line in readme().lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let Some((section, key)) = cells[1].split_once('.').filter(|_| !cells[1].contains([' ', '`'])) else {
            continue;
        };
        // Names of log lines and of fields have a point, too.
        let Some(text) = documented.split(&format!("\n[{section}]\n")).nth(1) else { continue };
        let text = text.split("\n[").next().unwrap_or_default();
        let stands = |value: &str| text.lines().any(|line| line.trim_start_matches("# ") == format!("{key} = {value}"));
        // A log line has a target there.
        if cells[2].contains("::") {
            continue;
        }
        // Words instead of a value: there is no single value to compare.
        if line.split('|').nth(2).is_some_and(|cell| cell.trim().starts_with('`')) {
            let value = cells[2];
            assert!(stands(value) || stands(&format!("\"{value}\"")), "{section}.{key} = {value} is not the default");
            seen += 1;
        }
    }
    assert_eq!(seen, 5, "the table was not found");
}

#[test]
fn the_toolchain_that_is_asked_for_is_the_one_of_the_manifest() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let version =
        manifest.split("\nrust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a version");
    assert!(readme().contains(&format!("a Rust toolchain ({version} or later)")), "{version}");
}

/// Installs the program elsewhere, because `cargo test` has built what `cargo build` builds.
fn the_program_is_installed() {
    let folder = tempfile::TempDir::with_prefix("pulsegate-readme-").expect("make a temporary directory");
    let bin = folder.path().to_str().expect("text").to_owned() + "/";
    let command = INSTALL.strip_prefix("sudo ").expect("the command of a user");
    let command = command.replace("target/release/pulsegate", PULSEGATE).replace("/usr/local/bin/", &bin);
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a program")).args(words).status();
    assert!(status.expect("it runs").success(), "{command}");
    let version = Command::new(folder.path().join("pulsegate")).arg("--version").output().expect("it is installed");
    assert!(version.status.success(), "{version:?}");
}

/// Runs their help only: they take minutes and tools that not every machine has.
fn the_long_scripts_explain_themselves() {
    for script in ["tests/load/instructions", "tests/long"] {
        let output = Command::new(root().join(script)).arg("--help").output().expect("it runs");
        assert!(output.status.success() && !output.stdout.is_empty(), "{script}: {output:?}");
    }
}

/// A folder of one test, with a certificate for the configuration to name.
struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("a name").self_signed(&key).expect("a certificate");
        fs::write(folder.join("tls.crt"), certificate.pem()).expect("written");
        fs::write(folder.join("tls.key"), key.serialize_pem()).expect("written");
        Self { folder }
    }

    /// Sets this certificate in the place of the one that the file names.
    fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("PULSEGATE__TLS__CERTIFICATE", self.folder.join("tls.crt"))
            .env("PULSEGATE__TLS__PRIVATE_KEY", self.folder.join("tls.key"))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Left in target/ if it cannot be removed.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns `pulsegate` with these arguments, from the root of the repository.
fn pulsegate(arguments: &str) -> Command {
    let mut command = Command::new(PULSEGATE);
    // A reader of the README has temporary files where most machines have them.
    command.args(arguments.split(' ')).current_dir(root()).env("TMPDIR", "/tmp");
    command
}

#[test]
fn the_documented_configurations_are_valid() {
    let certificate = Certificate::new("check");
    for file in ["config/proxy.toml", "deploy/kubernetes/component/proxy.toml"] {
        let mut command = pulsegate(&format!("check -c {file}"));
        let output = certificate.give(&mut command).output().expect("it runs");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let without = pulsegate("check -c config/proxy.toml").output().expect("it runs");
    assert_eq!(without.status.code(), Some(78), "no certificate is at the path of the file");
}

#[test]
fn the_documented_configuration_runs() {
    let certificate = Certificate::new("run");
    let mut command = pulsegate("run -c config/proxy.toml");
    runs_and_ends(certificate.give(&mut command));
}

#[test]
fn every_example_of_a_configuration_is_valid() {
    let certificate = Certificate::new("examples");
    let file = certificate.folder.join("example.toml");
    let mut seen = 0;
    for example in PAPERS.iter().flat_map(|name| blocks(&paper(name), "toml")) {
        fs::write(&file, &example).expect("written");
        let mut command = pulsegate(&format!("check -c {}", file.display()));
        // An example shows only its subject: the required keys come from the environment.
        if !example.contains("mode = \"off\"") {
            certificate.give(&mut command);
        }
        if !example.contains("[upstream]") {
            command.env("PULSEGATE__UPSTREAM__URL", "http://127.0.0.1:3000");
        }
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stdout));
        seen += 1;
    }
    assert!(seen > 3, "only {seen} examples");
}

/// Follows the README: a certificate by mkcert, the file of the README beside it, and the two commands.
fn the_steps_of_the_readme_lead_to_a_proxy() {
    let folder = tempfile::TempDir::with_prefix("pulsegate-readme-").expect("make a temporary directory");
    for command in ["mkcert -install", MKCERT] {
        let mut mkcert = Command::new("mkcert");
        // An authority of its own, which is not installed in any trust store of this machine.
        mkcert.args(command.split(' ').skip(1)).env("CAROOT", folder.path()).env("TRUST_STORES", "none");
        let output = mkcert.current_dir(folder.path()).output().expect("mkcert runs: `tests/install` installs it");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let file = blocks(&readme(), "toml").swap_remove(0);
    fs::write(folder.path().join("proxy.toml"), file).expect("written");
    let output = pulsegate("check -c proxy.toml").current_dir(folder.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("warning"), "{said}");
    runs_and_ends(pulsegate("run -c proxy.toml").current_dir(folder.path()));
}

/// Runs a proxy until it listens, on free ports, and ends it by SIGTERM.
fn runs_and_ends(command: &mut Command) {
    // Other programs may have the ports of the configuration.
    for key in ["LISTEN__ADDRESS", "ADMIN__HEALTH", "ADMIN__SOCKET"] {
        command.env(format!("PULSEGATE__{key}"), "127.0.0.1:0");
    }
    let mut program = Program::start(command);
    program.line("listening");
    program.signal("TERM");
    assert!(program.end().success(), "SIGTERM is an orderly end");
}

fn dev_stands_in_front_of_another_app() {
    let mut program = Program::start(&mut pulsegate("dev --to http://127.0.0.1:3000"));
    program.line("in front of http://127.0.0.1:3000");
    program.line("Ctrl-C ends it");
    program.signal("INT");
    assert!(program.end().success());
}

fn ping_prints_round_trips() {
    let dev = Dev::start();
    let mut ping = Program::start(&mut pulsegate(&format!("ping -c 3 --ca {} {}", dev.authority, dev.url)));
    ping.line("3 pings sent, 3 pongs received, 0% lost");
    assert!(ping.end().success());
    dev.end();
}
