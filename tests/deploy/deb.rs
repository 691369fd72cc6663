//! The deb in a bare root: dpkg installs, upgrades, removes and purges it, and its maintainer scripts run there.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use super::bare_root::BareRoot;
use super::made::{command, package, program, repository, run, succeed, text};

/// What dpkg has for a root whose only package is the one that the deb depends on.
const STATUS: &str = "\
Package: passwd
Status: install ok installed
Version: 1:4.13
Architecture: all
Maintainer: Debian
Description: useradd
";

/// A bare root with dpkg's database.
fn debian() -> BareRoot {
    let root = BareRoot::debian();
    root.write("var/lib/dpkg/status", STATUS, 0o644);
    root.write("var/lib/dpkg/info/passwd.list", "/.\n", 0o644);
    root.write("var/lib/dpkg/updates/.keep", "", 0o644);
    fs::remove_file(root.path("var/lib/dpkg/updates/.keep")).expect("an empty folder");
    // The packaged program is linked dynamically here.
    root.copy_libraries(program());
    root
}

fn dpkg(root: &BareRoot, action: &str) -> Command {
    let mut command = command("dpkg");
    command.arg(format!("--root={}", root.path("").display())).args(["--log=/dev/null", action]);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn install(root: &BareRoot) -> String {
    succeed(dpkg(root, "--install").arg(package("deb")))
}

fn mode(root: &BareRoot, path: &str) -> u32 {
    fs::metadata(root.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).mode() & 0o7777
}

#[test]
fn an_installation_creates_the_user_and_starts_nothing() {
    let root = debian();
    let printed = install(&root);
    assert!(printed.contains("is installed, and not started"), "{printed}");
    assert!(printed.contains("systemctl enable --now pulsegate"), "{printed}");
    assert_eq!(root.service_calls(), ["systemctl daemon-reload"], "nothing is started or enabled");
    root.has_the_user();

    for (path, expected) in [
        ("usr/bin/pulsegate", 0o755),
        ("etc/pulsegate/proxy.toml", 0o644),
        ("usr/lib/systemd/system/pulsegate.service", 0o644),
        ("usr/share/bash-completion/completions/pulsegate", 0o644),
        ("usr/share/fish/vendor_completions.d/pulsegate.fish", 0o644),
        ("usr/share/zsh/vendor-completions/_pulsegate", 0o644),
        ("usr/share/doc/pulsegate/copyright", 0o644),
    ] {
        assert_eq!(mode(&root, path), expected, "{path}");
    }
    let version = succeed(&mut root.inside(&["/usr/bin/pulsegate", "--version"]));
    assert_eq!(version, format!("pulsegate {}\n", env!("CARGO_PKG_VERSION")));
    let manual = succeed(command("gzip").args(["-dc"]).arg(root.path("usr/share/man/man1/pulsegate.1.gz")));
    assert!(manual.contains(".TH pulsegate 1") && manual.contains("PULSEGATE HEALTHCHECK"), "{manual:.400}");

    let documented = fs::read_to_string(repository().join("config/proxy.toml")).expect("it is there");
    assert_eq!(root.read("etc/pulsegate/proxy.toml"), documented);
    let check = run(&mut root.inside(&["/usr/bin/pulsegate", "check", "-c", "/etc/pulsegate/proxy.toml"]));
    let printed = text(&check.stdout);
    assert_eq!(check.status.code(), Some(78), "not configured yet: {check:?}");
    assert!(printed.contains("/etc/pulsegate/tls/tls.crt"), "{printed}");

    // The unit is that of the repository, with the program of the package.
    let unit = root.read("usr/lib/systemd/system/pulsegate.service");
    assert!(unit.contains("\nExecStart=/usr/bin/pulsegate run -c /etc/pulsegate/proxy.toml\n"), "{unit}");
    let written = fs::read_to_string(repository().join("deploy/systemd/pulsegate.service")).expect("it is there");
    let settings = |unit: &str| unit.lines().filter(|line| line.contains('=')).count();
    let commented = written.lines().filter(|line| line.starts_with('#') && line.contains('=')).count();
    assert_eq!(settings(&unit), settings(&written) - commented, "{unit}");
}

/// The folder of the default `tls.acme.storage` is the one that the unit makes for the service.
#[test]
fn certificates_are_kept_where_the_unit_has_a_folder_for_them() {
    let root = debian();
    install(&root);
    let unit = root.read("usr/lib/systemd/system/pulsegate.service");
    for setting in ["StateDirectory=pulsegate", "StateDirectoryMode=0700", "User=pulsegate"] {
        assert!(unit.lines().any(|line| line == setting), "no {setting} in {unit}");
    }
    // The start ends behind the storage: the port is taken. No authority is asked.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let start = |user: &str, code| {
        let words = ["/usr/bin/pulsegate", "run", "--domain", "app.example", "--upstream", "http://127.0.0.1:9"];
        let mut command = root.inside_as(user, &[&words[..], &["--listen", &port]].concat());
        let output = run(command.env("PULSEGATE__TLS__ACME__DIRECTORY", "https://127.0.0.1:9/dir"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        text(&output.stderr)
    };
    let storage = root.path("var/lib/pulsegate/acme/127.0.0.1-9-dir");
    // Every user of a machine can enter its root.
    fs::set_permissions(root.path(""), Permissions::from_mode(0o755)).expect("set a mode");
    let refused = start("pulsegate:pulsegate", 78);
    for words in ["(tls.acme.storage)", "let the user that pulsegate runs as write there"] {
        assert!(refused.contains(words), "no {words:?} in {refused}");
    }
    assert!(!root.path("var/lib/pulsegate").exists(), "{refused}");

    // As systemd makes it.
    let state = root.path("var/lib/pulsegate");
    fs::create_dir(&state).expect("make a folder");
    let users = root.read("etc/passwd");
    let line = users.lines().find(|line| line.starts_with("pulsegate:")).expect("the user");
    let [user, group] = [2, 3].map(|field| line.split(':').nth(field).and_then(|id| id.parse().ok()));
    chown(&state, user, group).expect("the tests run as root");
    fs::set_permissions(&state, Permissions::from_mode(0o700)).expect("set a mode");
    let check = |user: &str| {
        let words = ["/usr/bin/pulsegate", "check", "--domain", "app.example", "--upstream", "http://127.0.0.1:9"];
        let output =
            run(root.inside_as(user, &words).env("PULSEGATE__TLS__ACME__DIRECTORY", "https://127.0.0.1:9/dir"));
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        text(&output.stdout)
    };
    let refused = check("65534:65534");
    for words in
        ["cannot be read: Permission denied", "let the user that pulsegate runs as write in its folder", "1 error "]
    {
        assert!(refused.contains(words), "no {words:?} in {refused}");
    }
    for user in ["pulsegate:pulsegate", "root:root"] {
        let ended = start(user, 1);
        assert!(ended.contains(&format!("cannot listen on {port}")), "{user}: {ended}");
        assert!(storage.join("lock").is_file(), "{user}: {ended}");
        assert_eq!(mode(&root, "var/lib/pulsegate/acme/127.0.0.1-9-dir"), 0o700, "{user}");
        fs::remove_dir_all(root.path("var/lib/pulsegate/acme")).expect("remove a folder");
    }
}

#[test]
fn an_upgrade_keeps_the_configuration_and_restarts_what_runs() {
    let root = debian();
    install(&root);
    root.service_calls();
    root.write("etc/pulsegate/proxy.toml", "# edited\n", 0o644);
    let users = root.read("etc/passwd");

    // A unit that was installed by hand before.
    root.write("etc/systemd/system/pulsegate.service", "[Service]\n", 0o644);
    let output = run(dpkg(&root, "--install").arg(package("deb")));
    let (printed, warned) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && !printed.contains("not started"), "{printed}{warned}");
    assert!(warned.contains("warning: /etc/systemd/system/pulsegate.service"), "{warned}");
    assert_eq!(
        root.service_calls(),
        ["systemctl daemon-reload", "systemctl daemon-reload", "systemctl try-restart pulsegate.service"]
    );
    assert_eq!(root.read("etc/pulsegate/proxy.toml"), "# edited\n");
    assert_eq!(root.read("etc/passwd"), users);
}

#[test]
fn a_removal_keeps_the_configuration_and_a_purge_only_certificates() {
    let root = debian();
    install(&root);
    root.service_calls();
    root.write("etc/pulsegate/tls/tls.key", "a key", 0o640);

    succeed(dpkg(&root, "--remove").arg("pulsegate"));
    let calls =
        ["systemctl stop pulsegate.service", "systemctl --quiet disable pulsegate.service", "systemctl daemon-reload"];
    assert_eq!(root.service_calls(), calls);
    assert!(!root.path("usr/bin/pulsegate").exists());
    assert!(root.path("etc/pulsegate/proxy.toml").exists());

    succeed(dpkg(&root, "--purge").arg("pulsegate"));
    assert!(!root.path("etc/pulsegate/proxy.toml").exists());
    assert_eq!(root.read("etc/pulsegate/tls/tls.key"), "a key");
    assert!(root.read("etc/passwd").contains("\npulsegate:"), "files may belong to the user");
}

#[test]
fn a_purge_without_certificates_leaves_nothing_but_the_user() {
    let root = debian();
    let before = root.tree();
    install(&root);
    assert!(root.tree().len() > before.len() + 10);
    succeed(dpkg(&root, "--purge").arg("pulsegate"));
    let left: Vec<_> = root.tree().difference(&before).cloned().collect();
    // useradd and groupadd keep the files as they were, and passwords apart.
    let of_users = |path: &String| {
        ["passwd", "group", "shadow", "gshadow", "subuid", "subgid", ".pwd.lock"]
            .iter()
            .any(|name| path.trim_end_matches('-') == format!("etc/{name}"))
    };
    let left: Vec<_> = left.into_iter().filter(|path| !of_users(path)).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn dpkg_reads_the_fields_of_the_package() {
    let deb = package("deb");
    let field = |name: &str| succeed(command("dpkg-deb").arg("--field").arg(&deb).arg(name)).trim().to_owned();
    assert_eq!(field("Package"), "pulsegate");
    assert_eq!(field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    assert_eq!(field("Depends"), "passwd");
    assert_eq!(field("Architecture"), succeed(command("dpkg").arg("--print-architecture")).trim());
    let control = succeed(command("dpkg-deb").args(["--info"]).arg(&deb).arg("conffiles"));
    assert_eq!(control.trim(), "/etc/pulsegate/proxy.toml", "the only configuration file");
}
