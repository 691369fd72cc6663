//! `deploy/artifacts`: the files of a release, their checksums, the list of libraries, and what cargo-binstall downloads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use toml_edit::DocumentMut;

use super::made::{command, names, program, refuse, repository, sha256, succeed};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn artifacts(arguments: &[&str]) -> Command {
    let mut command = command(repository().join("deploy/artifacts"));
    command.args(arguments);
    command
}

/// Makes the artifacts of the program under test.
fn make(folder: &Path) -> Vec<String> {
    let (program, out) = (program().to_str().expect("text"), folder.to_str().expect("text"));
    succeed(&mut artifacts(&["--program", program, "--allow-dynamic", "--out", out]));
    names(folder)
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[test]
fn a_release_has_every_file_with_its_checksum() {
    let folder = TempDir::with_prefix("pulsegate-artifacts-").expect("make a temporary directory");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let made = make(&first);
    let (of_npm, mut others): (Vec<_>, Vec<_>) =
        made.into_iter().partition(|name| name.split('.').next_back() == Some("tgz"));
    assert_eq!(of_npm.is_empty(), !repository().join("deploy/npm/pack").exists(), "{of_npm:?}");
    let (debian, target) = (succeed(command("dpkg").arg("--print-architecture")), target());
    let mut expected = [
        "SHA256SUMS".to_owned(),
        format!("pulsegate-{VERSION}-1.{}.rpm", std::env::consts::ARCH),
        format!("pulsegate-{VERSION}-{target}.cdx.json"),
        format!("pulsegate-{VERSION}-{target}.tar.gz"),
        format!("pulsegate_{VERSION}-1_{}.deb", debian.trim()),
        format!("pulsegate_{VERSION}-r1_{}.apk", std::env::consts::ARCH),
    ];
    expected.sort();
    others.sort();
    assert_eq!(others, expected);

    let sums = fs::read_to_string(first.join("SHA256SUMS")).expect("it is made");
    assert_eq!(sums.lines().count(), names(&first).len() - 1, "every file but itself: {sums}");
    succeed(command("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&first));

    archive_runs(&first.join(format!("pulsegate-{VERSION}-{target}.tar.gz")), folder.path());
    sbom_lists_the_libraries(&first.join(format!("pulsegate-{VERSION}-{target}.cdx.json")));

    the_stopwatch_measures_them(&first);

    // An empty folder is taken, and nothing of the work is left beside it.
    fs::create_dir(&second).expect("make a folder");
    make(&second);
    let hidden: Vec<_> = names(folder.path()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, Vec::<String>::new());
    for name in names(&first) {
        assert_eq!(sha256(&first.join(&name)), sha256(&second.join(&name)), "{name} differs the second time");
    }

    let (program, out) = (program().to_str().expect("text"), first.to_str().expect("text"));
    refuse(&mut artifacts(&["--program", program, "--allow-dynamic", "--out", out]), 1, "is not empty");
}

/// Fails unless the program of the archive runs from the path that cargo-binstall computes from Cargo.toml.
fn archive_runs(archive: &Path, folder: &Path) {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("it is there");
    let manifest: DocumentMut = manifest.parse().expect("TOML");
    let binstall = &manifest["package"]["metadata"]["binstall"];
    let filled = |template: &str, target: &str| {
        let words =
            [("{ name }", "pulsegate"), ("{ version }", VERSION), ("{ target }", target), ("{ bin }", "pulsegate")];
        words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
    };
    let template =
        |table: &toml_edit::Item, key: &str| table[key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned();
    let url = filled(&template(binstall, "pkg-url"), &target());
    let name = archive.file_name().and_then(|name| name.to_str()).expect("text");
    assert_eq!(url, format!("{{ repo }}/releases/download/v{VERSION}/{name}"));
    assert_eq!(template(binstall, "pkg-fmt"), "tgz");
    // A static program serves systems with musl too.
    for arch in ["x86_64", "aarch64"] {
        let musl = &binstall["overrides"][&format!("{arch}-unknown-linux-musl")];
        let gnu = format!("{arch}-unknown-linux-gnu");
        assert_eq!(template(musl, "pkg-url"), template(binstall, "pkg-url").replace("{ target }", &gnu));
        assert_eq!(template(musl, "bin-dir"), template(binstall, "bin-dir").replace("{ target }", &gnu));
    }

    succeed(command("tar").args(["--extract", "--gzip", "--directory"]).arg(folder).arg("--file").arg(archive));
    let binary = folder.join(filled(&template(binstall, "bin-dir"), &target()));
    assert_eq!(succeed(command(&binary).arg("--version")), format!("pulsegate {VERSION}\n"));
    let beside = names(binary.parent().expect("a folder"));
    let files = "CHANGELOG.md LICENSE-APACHE LICENSE-MIT README.md completions proxy.toml pulsegate pulsegate.1 pulsegate.service";
    assert_eq!(beside, files.split(' ').collect::<Vec<_>>());
}

/// Fails unless the stopwatch sees a heartbeat of the archive and of the npm packages.
fn the_stopwatch_measures_them(artifacts: &Path) {
    let stopwatch = repository().join("tests/load/stopwatch");
    let table = succeed(command(&stopwatch).args(["--only", "archive,npx,npx-registry", "--artifacts"]).arg(artifacts));
    let rows: Vec<Vec<&str>> = table.lines().skip(2).map(|row| row.split('|').map(str::trim).collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    for row in rows {
        let seconds = |cell: &str| cell.strip_suffix(" s").and_then(|number| number.parse::<f64>().ok());
        let (serves, heartbeat) = (seconds(row[2]), seconds(row[3]));
        assert!(serves.is_some() && serves < heartbeat && row[4].ends_with(" MB"), "{table}");
    }
    refuse(command(&stopwatch).args(["--only", "brew"]), 2, "unknown way brew");
    refuse(command(&stopwatch).args(["--artifacts", "/nonexistent"]), 1, "`deploy/artifacts` makes them");
}

/// Fails unless the list has exactly the libraries that cargo links into the program, with versions and licences.
fn sbom_lists_the_libraries(file: &Path) {
    let sbom: Value = serde_json::from_str(&fs::read_to_string(file).expect("it is made")).expect("JSON");
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&Value::from("CycloneDX"), &Value::from("1.5")));
    assert_eq!(sbom["metadata"]["component"]["name"], "pulsegate");
    assert_eq!(sbom["metadata"]["component"]["version"], VERSION);
    let components = sbom["components"].as_array().expect("a list");
    for component in components {
        assert!(component["licenses"][0].is_object(), "no licence: {component}");
        assert_eq!(component["hashes"][0]["alg"], "SHA-256", "{component}");
    }
    let listed: BTreeSet<_> = components
        .iter()
        .map(|component| [&component["name"], &component["version"]].map(|text| text.as_str().expect("text")).join(" "))
        .collect();
    let mut tree = Command::new(env!("CARGO"));
    tree.args([
        "tree",
        "--locked",
        "--package",
        "pulsegate",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    tree.args(["--target", &target()]).current_dir(repository());
    let linked = succeed(&mut tree);
    let linked = linked.lines().map(|line| line.trim_end_matches(" (*)").split(" (").next().unwrap_or(line));
    let linked: BTreeSet<_> =
        linked.map(|line| line.replacen(" v", " ", 1)).filter(|name| !name.starts_with("pulsegate ")).collect();
    assert!(linked.len() > 50, "{linked:?}");
    let missing: Vec<_> = linked.difference(&listed).collect();
    assert!(missing.is_empty(), "linked and not listed: {missing:?}");
    for tool in ["proptest", "turmoil", "insta"] {
        assert!(!listed.iter().any(|name| name.starts_with(&format!("{tool} "))), "{tool} is for tests only");
    }
    let text = sbom.to_string();
    assert!(!text.contains("/tmp/") && !text.contains(".artifacts-"), "no path of this machine");
}

#[test]
fn what_cannot_be_made_is_refused_before_the_build() {
    let folder = TempDir::with_prefix("pulsegate-artifacts-").expect("make a temporary directory");
    let out: PathBuf = folder.path().join("out");
    let out = out.to_str().expect("text");
    refuse(&mut artifacts(&["--fast"]), 2, "unknown argument --fast");
    refuse(&mut artifacts(&["--out"]), 2, "--out without a folder");
    refuse(&mut artifacts(&["--program", "/nonexistent", "--out", out]), 1, "no executable file");
    let program = program().to_str().expect("text");
    refuse(&mut artifacts(&["--program", program, "--out", out]), 1, "linked dynamically");
    assert!(!Path::new(out).exists());
    let help = succeed(&mut artifacts(&["--help"]));
    assert!(help.contains("SHA256SUMS") && help.contains("--program FILE"), "{help}");
}
