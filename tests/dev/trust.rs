//! `--trust` and `--untrust`, with Debian's tool in a root of its own, and with NSS databases of a home of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pulsegate::tls::client::Trust;
use pulsegate_test_kit::browser::start_turn;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::{Finished, OutputStream, Process};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::process::Command;

use super::Dev;
use crate::PULSEGATE;
use crate::operate::terminal::Terminal;

/// The program of the system that changes NSS databases.
const CERTUTIL: &str = "/usr/bin/certutil";

/// A system and a user's home, both of which `--trust` may change.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// Makes one like Debian, with its real tool.
    fn debian() -> Self {
        let machine = Self::with_tool(
            "etc/ssl/certs",
            "update-ca-certificates",
            "exec /usr/sbin/update-ca-certificates --localcertsdir \"$root/usr/local/share/ca-certificates\" \
             --certsdir \"$root/usr/share/ca-certificates\" --certsconf \"$root/etc/ca-certificates.conf\" \
             --etccertsdir \"$root/etc/ssl/certs\" --hooksdir \"$root/etc/ca-certificates/update.d\" \"$@\"",
        );
        for folder in ["usr/share/ca-certificates", "etc/ca-certificates/update.d"] {
            fs::create_dir_all(machine.root().join(folder)).expect("made");
        }
        fs::write(machine.root().join("etc/ca-certificates.conf"), "# none\n").expect("written");
        // The tool leaves the bundle as it was if no authority is left at all.
        let other =
            CertificateParams::default().self_signed(&KeyPair::generate().expect("a key")).expect("signed").pem();
        fs::create_dir_all(machine.anchor().with_file_name("")).expect("made");
        fs::write(machine.anchor().with_file_name("other.crt"), other).expect("written");
        machine
    }

    /// Makes one with this folder and this tool, a script that finds the root in `$root`.
    fn with_tool(folder: &str, tool: &str, script: &str) -> Self {
        let machine = Self { folder: TempDir::new().expect("make a temporary directory") };
        fs::create_dir_all(machine.root().join("usr/sbin")).expect("made");
        fs::create_dir_all(machine.root().join(folder)).expect("made");
        fs::create_dir_all(machine.home()).expect("made");
        machine.add_tool(tool, script);
        machine
    }

    fn add_tool(&self, tool: &str, script: &str) {
        let path = self.root().join("usr/sbin").join(tool);
        fs::write(&path, format!("#!/bin/sh\nroot='{}'\n{script}\n", self.root().display())).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
    }

    /// Makes an NSS database in this folder below the home, and adds the tool for it.
    async fn add_database(&self, folder: &str) -> PathBuf {
        let folder = self.home().join(folder);
        fs::create_dir_all(&folder).expect("made");
        let mut command = Command::new(CERTUTIL);
        command.args(["-N", "--empty-password", "-d"]).arg(format!("sql:{}", folder.display()));
        Process::run("certutil", &mut command).await.succeeded();
        let tool = self.root().join("usr/sbin/certutil");
        if !tool.exists() {
            symlink(CERTUTIL, tool).expect("linked");
        }
        folder
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn anchor(&self) -> PathBuf {
        self.root().join("usr/local/share/ca-certificates/pulsegate-dev.crt")
    }

    fn bundle(&self) -> PathBuf {
        self.root().join("etc/ssl/certs/ca-certificates.crt")
    }

    /// The files of the kept authority, key first.
    fn kept(&self) -> [PathBuf; 2] {
        ["dev-ca.pem", "dev-ca.crt"].map(|name| self.home().join(".local/share/pulsegate").join(name))
    }

    /// Returns `pulsegate dev` with these arguments, for this machine.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PULSEGATE);
        command.args(["dev", "--trust-root"]).arg(self.root()).args(arguments);
        command.env("HOME", self.home()).env_remove("XDG_DATA_HOME");
        command
    }

    async fn dev(&self, arguments: &[&str]) -> Dev {
        let ports = ["--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"];
        Dev::from(self.command(&[&ports, arguments].concat())).await
    }

    async fn untrust(&self) -> Finished {
        let mut command = Command::new(PULSEGATE);
        command.args(["dev", "--untrust", "--trust-root"]).arg(self.root());
        command.env("HOME", self.home()).env_remove("XDG_DATA_HOME");
        Process::run("pulsegate dev --untrust", &mut command).await
    }

    /// Visits `url` in Chromium, which trusts what the databases of this home say; returns how that ended.
    async fn visit(&self, url: &str) -> String {
        let script = project("browser").with_file_name("dev").join("visit.js");
        let _start = start_turn().await;
        let mut command = Command::new("node");
        command.arg(script).arg(url).env("HOME", self.home()).env_remove("XDG_DATA_HOME");
        command.env_remove("XDG_CONFIG_HOME");
        let finished = Process::run("visit.js", &mut command).await;
        finished.succeeded().out.clone()
    }

    /// Fails unless nothing of `--trust` is on this machine.
    fn is_untouched(&self) {
        for path in self.kept().iter().chain([&self.anchor()]) {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_system_and_the_browsers_trust_the_ca_until_it_is_removed() {
    let machine = Machine::debian();
    let chromium = machine.add_database(".pki/nssdb").await;
    let firefox = machine.add_database(".mozilla/firefox/a1.default").await;
    let dev = machine.dev(&["--trust", "--yes"]).await;
    for place in [&machine.anchor(), &chromium, &firefox] {
        let line = format!("  installed  {}, ", place.display());
        assert!(dev.guide.contains(&line), "no {line:?} in {}", dev.guide);
    }
    assert!(dev.guide.contains("  trust      kept; ") && dev.guide.contains(" dev --untrust removes it\n"));
    let kept = machine.kept();
    assert_eq!((&dev.authority, mode(&kept[0]), mode(&kept[1])), (&kept[1], 0o600, 0o644));
    let bundle = Trust::File(machine.bundle());
    for name in ["localhost", "127.0.0.1", "::1", "app.localhost", "a.b.localhost"] {
        dev.connect(&bundle, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    dev.connect(&bundle, "example.com").await.expect_err("another name");
    let mut verify = Command::new(CERTUTIL);
    verify.args(["-V", "-u", "L", "-n", "pulsegate dev CA", "-d"]).arg(format!("sql:{}", firefox.display()));
    Process::run("certutil", &mut verify).await.succeeded();
    for host in ["localhost", "app.localhost"] {
        let visited = machine.visit(&format!("https://{host}:{}/", dev.port)).await;
        assert!(visited.contains("\"status\":200"), "{visited}");
    }
    dev.end().await;

    // A later run uses it without a word, and leaves it there.
    let later = machine.dev(&[]).await;
    assert!(later.guide.contains(&format!("  CA         {}, until 20", kept[1].display())), "{}", later.guide);
    later.connect(&bundle, "localhost").await.expect("trusted still");
    later.end().await;
    // Installing it again changes nothing, and asks nothing.
    let again = machine.dev(&["--trust"]).await;
    assert!(again.guide.starts_with("The CA is installed already.\n"), "{}", again.guide);
    again.end().await;

    let removed = machine.untrust().await;
    assert_eq!(removed.succeeded().out.matches("  removed  ").count(), 4, "{removed:#?}");
    machine.is_untouched();
    let other = fs::read_to_string(machine.anchor().with_file_name("other.crt")).expect("it stays");
    assert_eq!(fs::read_to_string(machine.bundle()).expect("there"), other, "the other authority alone");
    let links = fs::read_dir(machine.root().join("etc/ssl/certs")).expect("there").flatten();
    let dangling: Vec<_> = links.map(|entry| entry.path()).filter(|path| !path.exists()).collect();
    assert!(dangling.is_empty(), "{dangling:?}");
    let nothing = machine.untrust().await;
    assert_eq!(nothing.succeeded().out, "No CA of pulsegate dev is installed.\n");
    let dev = machine.dev(&[]).await;
    assert!(dev.guide.contains(", for this run only\n"), "{}", dev.guide);
    let visited = machine.visit(&format!("https://localhost:{}/", dev.port)).await;
    assert!(visited.contains("ERR_CERT_AUTHORITY_INVALID"), "{visited}");
    dev.end().await;
}

#[tokio::test]
async fn nothing_is_installed_without_consent() {
    let machine = Machine::debian();
    let refused = Process::run("pulsegate dev", &mut machine.command(&["--trust"])).await;
    refused.failed(1, &["nothing was changed: standard input is no terminal", "--yes agrees in advance"]);
    assert!(refused.out.contains(&format!("  installs   {}, by update-ca-certificates\n", machine.anchor().display())));
    let by_sudo = Process::run("pulsegate dev", machine.command(&["--trust"]).env("SUDO_USER", "ann")).await;
    assert!(by_sudo.out.contains("later runs of ann do not get it. Without sudo they do"), "{by_sudo:#?}");
    machine.is_untouched();

    let (root, home) = (machine.root(), machine.home());
    let words = ["dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--trust", "--trust-root"];
    let words: Vec<&str> = words.into_iter().chain(root.to_str()).collect();
    for (answer, outcome) in [
        (&b"n\n"[..], "Nothing was changed."),
        (b"y\xff\n", "The answer is no text in UTF-8, and counts as no."),
        (b"y\n", "  installed  "),
    ] {
        let mut terminal = Terminal::start_with(&words, &[("HOME", &home), ("XDG_DATA_HOME", &home)]);
        terminal.shows("Continue? [y/N] ").await;
        terminal.types(answer).await;
        terminal.shows(outcome).await;
        terminal.shows("Ctrl-C ends it").await;
        terminal.types(b"\x03").await;
        terminal.shows("exit 0").await;
    }
    assert!(machine.anchor().exists() && home.join("pulsegate/dev-ca.pem").exists());
}

#[tokio::test]
async fn a_tool_that_fails_leaves_nothing_behind() {
    let machine = Machine::with_tool("etc/ssl/certs", "update-ca-certificates", "echo no space left >&2; exit 4");
    let failed = Process::run("pulsegate dev", &mut machine.command(&["--trust", "--yes"])).await;
    let expected = "the CA is not trusted everywhere: `update-ca-certificates` exited with 4: no space left; ";
    failed.failed(1, &[expected, "run it yourself"]);
    machine.is_untouched();

    // A CA that cannot be removed is kept, for the next attempt.
    machine.add_tool("update-ca-certificates", "");
    machine.dev(&["--trust", "--yes"]).await.end().await;
    machine.add_tool("update-ca-certificates", "exit 1");
    machine.untrust().await.failed(1, &["the CA is still trusted, and kept in ", "then repeat the command"]);
    assert!(machine.kept()[0].exists());
    machine.add_tool("update-ca-certificates", "");
    // The certificate is gone from the folder, and the key now, too.
    machine.untrust().await.succeeded();
    machine.is_untouched();
}

#[tokio::test]
async fn a_removal_that_failed_is_repeated_with_the_tool() {
    let machine = Machine::debian();
    let tool = machine.root().join("usr/sbin/update-ca-certificates");
    let real = fs::read_to_string(&tool).expect("there");
    machine.dev(&["--trust", "--yes"]).await.end().await;
    let ours = fs::read_to_string(&machine.kept()[1]).expect("kept");
    let is_trusted = || fs::read_to_string(machine.bundle()).expect("there").contains(&ours);
    machine.add_tool("update-ca-certificates", "exit 1");
    machine.untrust().await.failed(1, &["the CA is still trusted, and kept in "]);
    assert!(is_trusted() && !machine.anchor().exists(), "the tool has done nothing");
    machine.untrust().await.failed(1, &["the CA is still trusted, and kept in "]);
    fs::write(&tool, real).expect("written");
    machine.untrust().await.succeeded();
    assert!(!is_trusted());
    machine.is_untouched();
}

#[tokio::test]
async fn an_installation_that_was_interrupted_is_repeated() {
    let machine = Machine::debian();
    let tool = machine.root().join("usr/sbin/update-ca-certificates");
    let real = fs::read_to_string(&tool).expect("there");
    machine.add_tool("update-ca-certificates", "kill -KILL $PPID");
    let killed = Process::run("pulsegate dev", &mut machine.command(&["--trust", "--yes"])).await;
    assert_eq!(killed.code, None, "{killed:#?}");
    assert!(machine.anchor().exists() && machine.kept()[0].exists(), "it was interrupted in the midst");
    fs::write(&tool, real).expect("written");
    let dev = machine.dev(&["--trust", "--yes"]).await;
    assert!(dev.guide.contains("  installed  "), "{}", dev.guide);
    dev.connect(&Trust::File(machine.bundle()), "localhost").await.expect("trusted");
    dev.end().await;
}

#[tokio::test]
async fn of_two_at_once_the_second_one_uses_the_ca_of_the_first() {
    let machine = Machine::debian();
    let tool = machine.root().join("usr/sbin/update-ca-certificates");
    let real = fs::read_to_string(&tool).expect("there");
    let exec = real.lines().last().expect("the command");
    // The first one is held in the tool until the second one has said that it waits.
    Process::run("mkfifo", Command::new("mkfifo").arg(machine.root().join("gate"))).await.succeeded();
    machine.add_tool("update-ca-certificates", &format!("read -r line < \"$root/gate\"\n{exec}"));
    let ports = ["--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--trust", "--yes"];
    let start = || Process::start_without_input("pulsegate dev", &mut machine.command(&ports));
    let first = start();
    let (anchor, is_there) = (machine.anchor(), |there: &bool| *there);
    wait_until("the certificate of the first one", || anchor.exists(), is_there).await;
    let second = start();
    second.line("the wait", |line| line.text.starts_with("Waiting for another `pulsegate dev`")).await;
    let gate = machine.root().join("gate");
    wait_for("the tool", tokio::task::spawn_blocking(move || fs::write(gate, "go\n")))
        .await
        .expect("no panic")
        .expect("written");
    for process in [&first, &second] {
        process.line("the guide", |line| line.text.contains("Ctrl-C ends it")).await;
    }
    assert!(second.text_of(OutputStream::Stdout).contains("The CA is installed already."));
    let ours = fs::read_to_string(&machine.kept()[1]).expect("kept");
    assert!(fs::read_to_string(machine.bundle()).expect("there").contains(&ours));
    for process in [first, second] {
        process.interrupt();
        assert_eq!(process.finish().await.code, Some(0));
    }
    let files = fs::read_dir(machine.kept()[0].with_file_name("")).expect("there").count();
    assert_eq!(files, 2, "no lock is left");
}

#[tokio::test]
async fn without_sudo_the_file_of_the_advice_stays_and_its_commands_work() {
    let machine = Machine::debian();
    std::os::unix::fs::chown(machine.home(), Some(65_534), Some(65_534)).expect("run the tests as root");
    let dev = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args([PULSEGATE, "dev", "--trust-root"]).arg(machine.root()).args(arguments);
        command.env("HOME", machine.home()).env_remove("XDG_DATA_HOME");
        command
    };
    let refused = Process::run("pulsegate dev", &mut dev(&["--trust", "--yes"])).await;
    let certificate = &machine.kept()[1];
    let advice = format!(
        "is not writable for you, and there is no sudo or doas here; as root, run: install -D -m 644 {} {} && \
         update-ca-certificates",
        certificate.display(),
        machine.anchor().display()
    );
    refused.failed(1, &[&advice]);
    let ours = fs::read_to_string(certificate).expect("the file of the advice is there");
    // What root runs, with the tool of this root.
    let commands = advice.split_once("run: ").expect("they follow").1;
    let path = format!("{}:/usr/bin:/bin", machine.root().join("usr/sbin").display());
    let mut shell = Command::new("sh");
    Process::run("sh", shell.args(["-c", commands]).env("PATH", path)).await.succeeded();
    assert!(fs::read_to_string(machine.bundle()).expect("there").contains(&ours));
    let ports = ["--trust", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0"];
    let trusted = Dev::from(dev(&ports)).await;
    assert!(trusted.guide.starts_with("The CA is installed already.\n"), "{}", trusted.guide);
    trusted.end().await;
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_replaced() {
    let machine = Machine::debian();
    let trust = ["--trust", "--yes"];
    let pipe = async |path: &Path| {
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        Process::run("mkfifo", Command::new("mkfifo").arg(path)).await.succeeded();
    };
    // The anchor of the system, and each kept file: nothing else is written.
    let [secret, certificate] = machine.kept();
    for path in [machine.anchor(), secret.clone(), certificate] {
        pipe(&path).await;
        let refused = Process::run("pulsegate dev", &mut machine.command(&trust)).await;
        refused.failed(1, &[&path.display().to_string(), "it is a named pipe, not a regular file", "remove it"]);
        machine.untrust().await.failed(1, &["it is a named pipe, not a regular file"]);
        assert!(fs::symlink_metadata(&path).is_ok(), "{} is gone", path.display());
        fs::remove_file(&path).expect("removed");
        machine.is_untouched();
    }
    // A run without --trust does not wait for the pipe's other end either.
    pipe(&secret).await;
    let dev = machine.dev(&[]).await;
    assert!(dev.guide.contains("it is a named pipe, not a regular file"), "{}", dev.guide);
    dev.end().await;
    fs::remove_file(&secret).expect("removed");

    let out = machine.home().join("out");
    for target in ["precious", "nothing"] {
        symlink(machine.home().join(target), &out).expect("linked");
        let wanted = out.to_string_lossy();
        let refused =
            Process::run("pulsegate dev", &mut machine.command(&["--trust", "--yes", "--ca-out", &wanted])).await;
        refused.failed(1, &["out: it is a symbolic link, not a regular file; name a file", "--ca-out"]);
        assert!(fs::symlink_metadata(&out).is_ok_and(|out| out.is_symlink()));
        fs::remove_file(&out).expect("removed");
    }
    pipe(&out).await;
    let refused = Process::run("pulsegate dev", &mut machine.command(&["--ca-out", &out.to_string_lossy()])).await;
    refused.failed(1, &["out: it is a named pipe, not a regular file"]);
    machine.is_untouched();
}

#[tokio::test]
async fn without_a_folder_or_a_place_for_the_ca_the_way_out_is_named() {
    let machine = Machine::debian();
    let trust = ["--trust", "--yes"];
    let homeless = Process::run("pulsegate dev", machine.command(&trust).env_remove("HOME")).await;
    homeless.failed(1, &["there is no folder for the CA: neither HOME nor XDG_DATA_HOME", "leave out --trust"]);
    // No user can write below it, root neither.
    let unwritable = Process::run("pulsegate dev", machine.command(&trust).env("XDG_DATA_HOME", "/proc/self")).await;
    unwritable.failed(1, &["cannot create /proc/self/pulsegate: ", "; set XDG_DATA_HOME to "]);
    machine.is_untouched();

    let unknown = Machine::with_tool("etc", "unknown", "");
    let refused = Process::run("pulsegate dev", &mut unknown.command(&trust)).await;
    refused.failed(1, &["no list of trusted authorities was found", "--ca-out FILE"]);
    unknown.add_database(".pki/nssdb").await;
    fs::remove_file(unknown.root().join("usr/sbin/certutil")).expect("removed");
    let refused = Process::run("pulsegate dev", &mut unknown.command(&trust)).await;
    refused.failed(1, &["for these install certutil"]);
    unknown.is_untouched();
    // A key that others can read is not used, and the run says why.
    let careless = Machine::debian();
    careless.dev(&trust).await.end().await;
    fs::set_permissions(&careless.kept()[0], fs::Permissions::from_mode(0o644)).expect("changed");
    let dev = careless.dev(&[]).await;
    assert!(
        dev.guide.contains(", for this run only\n")
            && dev.guide.contains("is readable by others (mode 644); replace it")
    );
    dev.end().await;
}

#[tokio::test]
async fn on_macos_the_login_keychain_gets_the_ca() {
    let machine = Machine::with_tool(
        "Library/Keychains",
        "security",
        "echo \"$@\" >> \"$root/calls\"\n[ \"$1\" != verify-cert ]",
    );
    let dev = machine.dev(&["--trust", "--yes"]).await;
    let certificate = machine.kept()[1].display().to_string();
    dev.end().await;
    let keychain = machine.home().join("Library/Keychains/login.keychain-db");
    let calls = || fs::read_to_string(machine.root().join("calls")).expect("called");
    let expected = format!("add-trusted-cert -r trustRoot -k {} {certificate}\n", keychain.display());
    assert_eq!(calls(), expected);
    machine.untrust().await.succeeded();
    assert_eq!(calls(), format!("{expected}remove-trusted-cert {certificate}\n"));
    machine.is_untouched();
}
