//! The programs that render and judge manifests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pulsegate_test_kit::pki::Pki;
use tempfile::TempDir;

use crate::PULSEGATE;

const LIMIT: &str = "120";

/// Both versions of helm that `tests/kubernetes/tools` installs.
pub(super) const HELMS: [&str; 2] = ["helm4", "helm3"];

/// Both versions of kubectl, each with its kustomize.
pub(super) const KUBECTLS: [&str; 2] = ["kubectl", "kubectl1.32"];

/// The variable that makes [`golden`] write instead of compare.
const REWRITE: &str = "REWRITE_GOLDEN";

/// Returns the root of the repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn command(program: &Path) -> Command {
    assert!(program.exists(), "{} is missing: run ./tests/install", program.display());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program).current_dir(root());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command, which must succeed; returns its standard output.
#[track_caller]
pub(super) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("timeout(1) runs");
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed
}

/// Renders a kustomization with every kubectl, which must all print the same.
#[track_caller]
pub(super) fn kustomize(folder: &str) -> String {
    let [newest, older] = KUBECTLS.map(|kubectl| {
        succeed(command(&root().join("target/kubernetes").join(kubectl)).arg("kustomize").arg(root().join(folder)))
    });
    assert_eq!(newest, older, "an older kubectl renders {folder} differently");
    newest
}

/// A copy of the charts with their dependencies built, as `helm dependency build` leaves them.
#[derive(Debug)]
pub(super) struct Charts {
    helm: &'static str,
    folder: TempDir,
}

impl Charts {
    /// Copies the charts, and the one of the tests; builds their dependencies with `helm`.
    #[track_caller]
    pub(super) fn build(helm: &'static str) -> Self {
        let charts = Self { helm, folder: TempDir::with_prefix("pulsegate-charts-").expect("make a directory") };
        for source in ["deploy/helm/pulsegate", "deploy/helm/express-example", "tests/kubernetes/umbrella"] {
            let to = charts.folder.path().join(Path::new(source).file_name().expect("a name"));
            copy(&root().join(source), &to);
        }
        for chart in ["express-example", "umbrella"] {
            succeed(charts.command().args(["dependency", "build", chart]));
        }
        charts
    }

    /// Returns the folder in which the charts are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns helm in the folder of the charts, with no settings and caches but those in there.
    pub(super) fn command(&self) -> Command {
        let mut command = command(&root().join("target/kubernetes").join(self.helm));
        command.current_dir(self.folder.path());
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.folder.path().join("home"));
        }
        command
    }

    /// Runs `helm template demo CHART ARGUMENT…`.
    pub(super) fn template(&self, chart: &str, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(["template", "demo", chart]).args(arguments);
        command.output().expect("timeout(1) runs")
    }

    /// Runs `helm template`, which must succeed; returns the manifests, each after one line `---`.
    #[track_caller]
    pub(super) fn render(&self, chart: &str, arguments: &[&str]) -> String {
        let output = self.template(chart, arguments);
        assert!(output.status.success(), "{} {chart} {arguments:?}: {}", self.helm, text(&output.stderr));
        // Versions of helm differ in the empty lines before `---`.
        let rendered = text(&output.stdout).split("\n---\n").map(str::trim_end).collect::<Vec<_>>().join("\n---\n");
        rendered + "\n"
    }

    /// Runs `helm template`, which must fail; returns what it prints.
    #[track_caller]
    pub(super) fn refusal(&self, chart: &str, arguments: &[&str]) -> String {
        let output = self.template(chart, arguments);
        let rendered = text(&output.stdout);
        assert!(!output.status.success(), "{} {chart} {arguments:?} renders {rendered}", self.helm);
        text(&output.stderr)
    }
}

/// Copies a chart, without what earlier commands have made in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("the chart is there") {
        let entry = entry.expect("it is readable");
        let target = to.join(entry.file_name());
        if entry.file_name() == "charts" || entry.file_name() == "Chart.lock" {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

/// Compares with a file of the repository, or writes it if `REWRITE_GOLDEN` is set.
#[track_caller]
pub(super) fn golden(file: &str, rendered: &str) {
    let path = root().join(file);
    // A release changes the version, and no golden file.
    let rendered = rendered
        .replace(concat!("/pulsegate:", env!("CARGO_PKG_VERSION")), "/pulsegate:VERSION")
        .replace(concat!("chart: express-example-", env!("CARGO_PKG_VERSION")), "chart: express-example-VERSION");
    if std::env::var_os(REWRITE).is_some() {
        fs::write(&path, &rendered).expect("write the golden file");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    let line = wanted.lines().zip(rendered.lines()).position(|(wanted, rendered)| wanted != rendered);
    assert!(
        wanted == rendered,
        "{file} differs from line {} on; if that is meant, `{REWRITE}=1 cargo test --test program kubernetes` writes \
         it, and `git diff` shows the change:\n{rendered}",
        line.unwrap_or_else(|| wanted.lines().count().min(rendered.lines().count())) + 1
    );
}

/// The judges in Python, with the program under test and a certificate for its check.
#[derive(Debug)]
pub(super) struct Judge {
    folder: TempDir,
    arguments: Vec<String>,
    files: Vec<PathBuf>,
}

impl Judge {
    /// Makes a judge for a cluster that has these Secrets.
    pub(super) fn new(secrets: &[&str]) -> Self {
        let folder = TempDir::with_prefix("pulsegate-manifests-").expect("make a directory");
        let pki = Pki::make(folder.path());
        let mut arguments = vec![format!("--pulsegate={PULSEGATE}")];
        arguments.push(format!("--certificate={}", pki.certificate.display()));
        arguments.push(format!("--private-key={}", pki.private_key.display()));
        arguments.extend(secrets.iter().map(|secret| format!("--secret={secret}")));
        Self { folder, arguments, files: Vec::new() }
    }

    /// Adds an argument of `judge.py`.
    pub(super) fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds manifests that are applied together.
    pub(super) fn file(mut self, name: &str, manifests: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, manifests).expect("write the manifests");
        self.files.push(path);
        self
    }

    /// Runs a judge, which must find nothing; returns what it prints.
    #[track_caller]
    pub(super) fn run(&self, script: &str) -> String {
        let mut python = command(&root().join("target/deploy-venv/bin/python"));
        python.arg(root().join("tests/kubernetes").join(script)).args(&self.arguments).args(&self.files);
        // No files beside the sources.
        succeed(python.env("PYTHONDONTWRITEBYTECODE", "1"))
    }
}

/// Returns the `proxy.toml` in the first `ConfigMap` of the manifests.
#[track_caller]
pub(super) fn proxy_toml(manifests: &str) -> String {
    let (_, block) = manifests.split_once("\n  proxy.toml: |\n").expect("a ConfigMap");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n") + "\n"
}
