//! `deploy/release` in a clone of this repository: its dry run, its effect, and its refusals.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::root;

/// Returns a clone with the content of the working tree, committed, and with a `.ci/run` that exits with `status`.
fn clone(status: u8) -> TempDir {
    let dir = TempDir::with_prefix("pulsegate-release-").expect("make a temporary directory");
    let here = root().to_str().expect("a path that is text");
    git(dir.path(), &["clone", "--quiet", here, "."]);
    let changed = git(root(), &["ls-files", "--modified", "--others", "--exclude-standard"]);
    for path in changed.lines() {
        let target = dir.path().join(path);
        if root().join(path).exists() {
            fs::create_dir_all(target.parent().expect("in the clone")).expect("make a directory");
            fs::copy(root().join(path), target).expect("copy a file");
        } else {
            fs::remove_file(target).expect("remove a file");
        }
    }
    fs::write(dir.path().join(".ci/run"), format!("#!/bin/sh\nexit {status}\n")).expect("write a file");
    git(dir.path(), &["add", "--all"]);
    git(dir.path(), &["commit", "--quiet", "--message", "What is to be released"]);
    dir
}

fn command(program: impl AsRef<std::ffi::OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    let person = [("NAME", "Somebody"), ("EMAIL", "somebody@app.example")];
    for (what, value) in person {
        command.env(format!("GIT_AUTHOR_{what}"), value).env(format!("GIT_COMMITTER_{what}"), value);
    }
    command.current_dir(dir);
    command
}

#[track_caller]
fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = command("git", dir).args(arguments).output().expect("git runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn release(dir: &Path, arguments: &[&str]) -> Output {
    command(dir.join("deploy/release"), dir).args(arguments).output().expect("deploy/release runs")
}

#[track_caller]
fn refuses(dir: &Path, arguments: &[&str], why: &str) {
    let output = release(dir, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {output:?}");
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_release_is_made_in_a_clone() {
    let dir = clone(0);
    let dir = dir.path();
    let head = git(dir, &["rev-parse", "HEAD"]);

    let output = release(dir, &["9.8.7", "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for step in ["run .ci/run", "version 9.8.7 over", "## [9.8.7] - ", "tag it v9.8.7"] {
        assert!(said.contains(step), "no {step:?} in {said}");
    }
    assert_eq!((git(dir, &["rev-parse", "HEAD"]), git(dir, &["status", "--porcelain"])), (head, String::new()));

    let output = release(dir, &["9.8.7"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("git push origin HEAD v9.8.7"), "{output:?}");
    assert_eq!(git(dir, &["status", "--porcelain"]), "");
    assert_eq!(git(dir, &["log", "-1", "--format=%s"]), "Release 9.8.7\n");
    assert_eq!(git(dir, &["rev-parse", "v9.8.7^{commit}"]), git(dir, &["rev-parse", "HEAD"]));
    assert!(read(dir, "Cargo.toml").contains("\nname = \"pulsegate\"\nversion = \"9.8.7\"\n"));
    for lock in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        assert!(read(dir, lock).contains("\nname = \"pulsegate\"\nversion = \"9.8.7\"\n"), "{lock}");
    }
    for file in ["README.md", "deploy/kubernetes/component/sidecar.yaml", "deploy/helm/pulsegate/values.yaml"] {
        assert!(read(dir, file).contains("/pulsegate:9.8.7"), "{file}");
    }
    let library = read(dir, "deploy/helm/pulsegate/Chart.yaml");
    assert!(library.contains("\nversion: 9.8.7\n") && library.contains("\nappVersion: 9.8.7\n"), "{library}");
    let example = read(dir, "deploy/helm/express-example/Chart.yaml");
    assert!(example.contains("\nversion: 9.8.7\n") && example.contains("\n    version: 9.8.7\n"), "{example}");
    assert!(read(dir, "README.md").contains("/pulsegate-9.8.7-linux-x64.tgz"));
    let old = read(root(), "CHANGELOG.md");
    let (before, entries) = old.split_once("## [Unreleased]\n").expect("a heading");
    let new = read(dir, "CHANGELOG.md");
    let rest = new.strip_prefix(before).expect("the same beginning");
    let rest = rest.strip_prefix("## [Unreleased]\n\n## [9.8.7] - 2").expect("both headings");
    assert_eq!(rest.split_once('\n').expect("more").1, entries);

    // No change is unreleased now.
    refuses(dir, &["9.8.8"], "has nothing under");
}

#[test]
fn what_cannot_be_released_is_refused() {
    let dir = clone(1);
    let dir = dir.path();
    refuses(dir, &[], "no version");
    refuses(dir, &["1.0"], "1.0 is no version");
    refuses(dir, &["0.0.1"], "name a later one");
    refuses(dir, &["9.8.7"], ".ci/run has failed");
    git(dir, &["tag", "v9.8.6"]);
    refuses(dir, &["9.8.6", "--dry-run"], "exists already");
    fs::write(dir.join("notes"), "").expect("write a file");
    refuses(dir, &["9.8.7", "--dry-run"], "not clean");
    assert_eq!(git(dir, &["status", "--porcelain"]), "?? notes\n");
}
