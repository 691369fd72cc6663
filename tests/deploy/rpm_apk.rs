//! The rpm and the apk package: their files with modes, and their scripts, which run in a bare root.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::bare_root::BareRoot;
use super::made::{build_to, command, files, names, package, program, refuse, repository, sha256, succeed};

/// The files of both, as `ls` shows their modes.
const FILES: &[(&str, &str)] = &[
    ("/usr/bin/pulsegate", "-rwxr-xr-x"),
    ("/etc/pulsegate", "drwxr-xr-x"),
    ("/etc/pulsegate/proxy.toml", "-rw-r--r--"),
    ("/etc/pulsegate/tls", "drwxr-x---"),
    ("/usr/share/man/man1/pulsegate.1.gz", "-rw-r--r--"),
    ("/usr/share/bash-completion/completions/pulsegate", "-rw-r--r--"),
    ("/usr/share/fish/vendor_completions.d/pulsegate.fish", "-rw-r--r--"),
    ("/usr/share/zsh/site-functions/_pulsegate", "-rw-r--r--"),
    ("/usr/share/doc/pulsegate", "drwxr-xr-x"),
    ("/usr/share/doc/pulsegate/copyright", "-rw-r--r--"),
    ("/usr/share/doc/pulsegate/CHANGELOG.md", "-rw-r--r--"),
];

/// Returns the files of both packages and one more, as `mode path`.
fn expected(more: (&str, &str)) -> BTreeSet<String> {
    FILES.iter().chain([&more]).map(|(path, mode)| format!("{mode} {path}")).collect()
}

fn rpm_query(format: &str) -> String {
    succeed(command("rpm").args(["--query", "--nosignature", "--queryformat", format, "--package"]).arg(package("rpm")))
}

#[test]
fn the_rpm_has_these_files() {
    let found = rpm_query("[%{FILEMODES:perms} %{FILENAMES}\n]");
    let found: BTreeSet<_> = found.lines().map(str::to_owned).collect();
    assert_eq!(found, expected(("/usr/lib/systemd/system/pulsegate.service", "-rw-r--r--")));
    let owners: BTreeSet<_> = rpm_query("[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]").lines().map(str::to_owned).collect();
    assert_eq!(owners, BTreeSet::from(["root:root".to_owned()]));
    let flagged = rpm_query("[%{FILEFLAGS:fflags} %{FILENAMES}\n]");
    let flagged: Vec<_> = flagged.lines().filter(|line| !line.starts_with(' ')).collect();
    // c: a configuration file; n: an edited one is not replaced.
    assert_eq!(flagged, ["cn /etc/pulsegate/proxy.toml"]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(rpm_query("%{NAME} %{VERSION} %{LICENSE}"), format!("pulsegate {version} MIT OR Apache-2.0"));
}

/// Returns an rpm command for a root. Debian's rpm asks for a flag before it installs anything.
fn rpm(root: &BareRoot, action: &str) -> Command {
    let mut command = command("rpm");
    command.arg(format!("--root={}", root.path("").display())).args([
        "--dbpath=/var/lib/rpm",
        "--force-debian",
        "--nodeps",
    ]);
    command.arg(action);
    command
}

#[test]
fn the_rpm_is_installed_upgraded_and_removed() {
    let root = BareRoot::debian();
    let before = root.tree();
    let printed = succeed(rpm(&root, "--install").arg("--nosignature").arg(package("rpm")));
    assert!(printed.contains("is installed, and not started"), "{printed}");
    assert_eq!(root.service_calls(), ["systemctl daemon-reload"]);
    root.has_the_user();

    root.write("etc/pulsegate/proxy.toml", "# edited\n", 0o644);
    succeed(rpm(&root, "--upgrade").args(["--force", "--nosignature"]).arg(package("rpm")));
    let calls = root.service_calls();
    assert!(calls.contains(&"systemctl try-restart pulsegate.service".to_owned()), "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("stop") || call.contains("able")), "{calls:?}");
    assert_eq!(root.read("etc/pulsegate/proxy.toml"), "# edited\n");
    root.has_the_user();

    succeed(rpm(&root, "--erase").arg("pulsegate"));
    let calls =
        ["systemctl stop pulsegate.service", "systemctl --quiet disable pulsegate.service", "systemctl daemon-reload"];
    assert_eq!(root.service_calls(), calls);
    let left: Vec<_> = root.tree().difference(&before).filter(|path| path.contains("pulsegate")).cloned().collect();
    assert_eq!(left, ["etc/pulsegate", "etc/pulsegate/proxy.toml.rpmsave"]);
}

#[test]
fn the_apk_has_these_files() {
    let listed = succeed(
        command("tar").args(["--list", "--gzip", "--verbose", "--numeric-owner", "--file"]).arg(package("apk")),
    );
    let mut found = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5]);
        // Names with a point at the beginning are those of apk itself.
        let path = path.trim_end_matches('/');
        let is_listed = FILES.iter().any(|(file, _)| file.trim_start_matches('/') == path);
        if path.starts_with('.') || mode.starts_with('d') && !is_listed {
            continue;
        }
        assert_eq!(owner, "0/0", "{line}");
        found.insert(format!("{mode} /{path}"));
    }
    assert_eq!(found, expected(("/etc/init.d/pulsegate", "-rwxr-xr-x")));
}

#[test]
fn the_scripts_of_the_apk_run_with_busybox() {
    let root = BareRoot::busybox();
    succeed(
        command("tar")
            .args(["--extract", "--gzip", "--directory"])
            .arg(root.path(""))
            .arg("--file")
            .arg(package("apk")),
    );
    let information = root.read(".PKGINFO");
    let version = format!("pkgver = {}-r1", env!("CARGO_PKG_VERSION"));
    assert!(information.lines().any(|line| line == version), "{information}");

    let printed = succeed(&mut root.inside(&["/.post-install", "0.1.0-r1"]));
    assert!(printed.contains("rc-update add pulsegate && rc-service pulsegate start"), "{printed}");
    assert_eq!(root.service_calls(), Vec::<String>::new(), "nothing is started or enabled");
    root.has_the_user();

    // OpenRC makes the folders of the service's user, as systemd does with RuntimeDirectory and StateDirectory.
    let start = ". /etc/init.d/pulsegate && command=true && start_pre";
    succeed(&mut root.inside(&["/usr/bin/sh", "-euc", start]));
    let folders: Vec<_> = root.service_calls().into_iter().filter(|call| call.contains("--directory")).collect();
    let made =
        |mode: &str, path: &str| format!("checkpath --directory --mode {mode} --owner pulsegate:pulsegate {path}");
    assert_eq!(folders, [made("0755", "/run/pulsegate"), made("0700", "/var/lib/pulsegate")]);

    assert_eq!(succeed(&mut root.inside(&["/.post-upgrade", "0.1.1-r1", "0.1.0-r1"])), "");
    assert_eq!(root.service_calls(), ["rc-service --ifexists --ifstarted pulsegate restart"]);
    root.has_the_user();

    succeed(&mut root.inside(&["/.pre-deinstall", "0.1.1-r1"]));
    let calls = ["rc-service --ifexists --ifstarted pulsegate stop", "rc-update --quiet delete pulsegate"];
    assert_eq!(root.service_calls(), calls);
    succeed(&mut root.inside(&["/.post-deinstall", "0.1.1-r1"]));
}

#[test]
fn the_same_program_makes_the_same_packages() {
    let folder = TempDir::with_prefix("pulsegate-packages-").expect("make a temporary directory");
    let printed = succeed(&mut build_to(folder.path()));
    assert_eq!(printed.lines().count(), 3, "{printed}");
    for again in files(folder.path()) {
        let ending = again.extension().and_then(|ending| ending.to_str()).expect("an ending");
        let first = package(ending);
        assert_eq!(first.file_name(), again.file_name());
        assert_eq!(sha256(&first), sha256(&again), "{ending}");
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let folder = TempDir::with_prefix("pulsegate-packages-").expect("make a temporary directory");
    let out = folder.path().join("out");
    let build = |arguments: &[&str]| {
        let mut command = command(repository().join("deploy/packages/build"));
        command.args(arguments).arg("--out").arg(&out);
        command
    };
    let program = program().to_str().expect("text");
    refuse(&mut build(&[]), 2, "no program");
    refuse(&mut build(&["--fast"]), 2, "unknown option --fast");
    refuse(&mut build(&["a", "b"]), 2, "two programs, a and b");
    refuse(&mut build(&["/nonexistent"]), 1, "`cargo build --release` makes one");
    refuse(&mut build(&["deploy/release"]), 1, "no Linux program for x86-64 or ARM64");
    refuse(&mut build(&["/bin/true"]), 1, "build the program from this tree");
    refuse(&mut build(&[program]), 1, "linked dynamically");
    assert!(!out.exists(), "{:?}", names(&out));
    let help = succeed(command(repository().join("deploy/packages/build")).arg("--help"));
    assert!(help.contains("--allow-dynamic"), "{help}");
    let script = fs::read_to_string(repository().join("deploy/packages/requirements.txt")).expect("it is there");
    assert!(script.contains("--hash=sha256:"), "{script}");
}
