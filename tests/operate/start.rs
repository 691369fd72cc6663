//! Starts of a proxy: from flags and variables alone, from standard input, and those that fail, with their errors.

use std::fs;
use std::path::PathBuf;

use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::{Finished, OutputLine, OutputStream, Process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::operate::program::{command, finish, run};

/// A folder without a configuration, with a certificate and its key.
struct Place {
    dir: TempDir,
    pki: Pki,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().expect("make a temporary directory");
        let pki = Pki::make(dir.path());
        Self { dir, pki }
    }

    /// Returns the program in this folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.current_dir(self.dir.path());
        command
    }

    /// Returns the flags that a proxy needs without a file, with ports of its own.
    fn flags(&self) -> Vec<String> {
        let flags = ["--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1", "--certificate"];
        let files = [
            self.pki.certificate.display().to_string(),
            "--private-key".into(),
            self.pki.private_key.display().to_string(),
        ];
        flags.into_iter().map(str::to_owned).chain(files).collect()
    }

    /// Runs the proxy until it listens, and then ends it; returns the lines of its log up to then.
    async fn serves(&self, mut command: Command, input: Option<&str>) -> Vec<Value> {
        for off in ["PULSEGATE__ADMIN__HEALTH", "PULSEGATE__ADMIN__SOCKET"] {
            command.env(off, "off");
        }
        let mut process = Process::start("pulsegate", command.env("PULSEGATE__DRAIN__DELAY", "0s"));
        process.write_input(input.unwrap_or_default()).await;
        let is_log = |line: &OutputLine| line.stream == OutputStream::Stderr;
        process.line("it listens", |line| is_log(line) && line.json["message"] == "listening").await;
        let mut lines = Vec::new();
        for line in process.lines().into_iter().filter(is_log) {
            assert!(line.json.is_object(), "{} is no JSON; it wrote:\n{}", line.text, process.transcript());
            let is_listening = line.json["message"] == "listening";
            lines.push(line.json);
            if is_listening {
                break;
            }
        }
        process.terminate();
        let finished = process.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        lines
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
        fs::write(&path, text).expect("write it");
        path
    }

    /// Returns a configuration whose log is JSON, with more `sections`.
    fn config(&self, sections: &str) -> String {
        let [certificate, private_key] = [&self.pki.certificate, &self.pki.private_key].map(|file| file.display());
        format!(
            "[tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{private_key}\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n{sections}"
        )
    }

    async fn runs(&self, sections: &str) -> Finished {
        let file = self.write("proxy.toml", &self.config(sections)).display().to_string();
        finish(self.command(&["run", "-c", &file])).await
    }
}

/// Returns the lines of standard error, each an object.
fn objects(run: &Finished) -> Vec<Value> {
    run.err.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {run:#?}"))).collect()
}

#[tokio::test]
async fn flags_alone_make_a_proxy() {
    let place = Place::new();
    let flags = place.flags();
    let arguments: Vec<&str> = ["run"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let lines = place.serves(place.command(&arguments), None).await;
    let listening = lines.last().expect("a line");
    assert_eq!(listening["upstream"], "http://127.0.0.1:1");
    let check: Vec<&str> = ["check"].into_iter().chain(arguments[1..].iter().copied()).collect();
    let checked = finish(place.command(&check)).await;
    assert!(checked.succeeded().out.starts_with("environment and flags is valid.\n"), "{checked:#?}");
    // A file that is named must exist all the same.
    let named: Vec<&str> = arguments.iter().copied().chain(["-c", "none.toml"]).collect();
    let refused = finish(place.command(&named)).await;
    refused.failed(78, &["cannot read none.toml", "= help: name the file with -c"]);
    // A file at the default path is read.
    place.write("config/proxy.toml", "[heartbeat]\ninterval = 7\n");
    let refused = finish(place.command(&arguments)).await;
    refused.failed(78, &["config/proxy.toml:2:12"]);
}

#[tokio::test]
async fn variables_alone_make_a_proxy_and_those_that_are_not_read_are_named() {
    let place = Place::new();
    let mut command = place.command(&["run"]);
    command.envs([
        ("PULSEGATE__LISTEN__ADDRESS", "127.0.0.1:0"),
        ("PULSEGATE__UPSTREAM__URL", "http://127.0.0.1:1"),
        ("PULSEGATE_LISTEN", "127.0.0.1:7"),
        ("PULSEGATE_PORT", "tcp://10.0.0.1:8443"),
        ("RUST_LOG", "trace"),
    ]);
    command
        .env("PULSEGATE__TLS__CERTIFICATE", &place.pki.certificate)
        .env("PULSEGATE__TLS__PRIVATE_KEY", &place.pki.private_key);
    let lines = place.serves(command, None).await;
    let unread = lines.iter().filter(|line| line["message"] == "config.variable_not_read");
    let unread: Vec<_> = unread.map(|line| (&line["level"], &line["variable"])).collect();
    assert_eq!(unread, [(&"WARN".into(), &"PULSEGATE_LISTEN".into()), (&"WARN".into(), &"RUST_LOG".into())]);
    assert!(lines.iter().any(|line| line["mend"].as_str().is_some_and(|mend| mend.contains("PULSEGATE__LOG__LEVEL"))));
}

#[tokio::test]
async fn too_few_flags_are_answered_with_those_that_are_missing() {
    let place = Place::new();
    let some = finish(place.command(&["run", "--listen", "127.0.0.1:0"])).await;
    some.failed(78, &["`upstream.url` is missing", "or --upstream", "or --private-key", "--> environment and flags\n"]);
    let none = finish(place.command(&["run"])).await;
    none.failed(78, &["cannot read config/proxy.toml", "--listen, --upstream, --certificate and --private-key"]);
}

#[tokio::test]
async fn standard_input_is_a_configuration() {
    let place = Place::new();
    let config = place.config("[listen]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n");
    place.serves(place.command(&["run", "-c", "-"]), Some(&config)).await;
    for (arguments, code, words) in [
        (&["check", "-c", "-"][..], 78, "standard input:2:12"),
        (&["check", "-c", "-", "--format", "json"], 78, "\"file\": \"standard input\""),
        (&["config", "show", "-c", "-"], 78, "standard input:2:12"),
    ] {
        let mut command = place.command(arguments);
        let mut process = Process::start("pulsegate", &mut command);
        process.write_input("[heartbeat]\ninterval = \"soon\"\n").await;
        let run = process.finish().await;
        assert_eq!(run.code, Some(code), "{run:#?}");
        assert!(run.out.contains(words) || run.err.contains(words), "no {words} in {run:#?}");
    }
}

#[tokio::test]
async fn fatal_errors_are_lines_of_a_json_log() {
    let place = Place::new();
    let json = "[log]\nformat = \"json\"\n";
    let invalid = place.runs(&format!("{json}[listen]\naddress = \"127.0.0.1:99999\"\nport = 1\n")).await;
    assert_eq!(invalid.code, Some(78), "{invalid:#?}");
    let lines = objects(&invalid);
    let reported: Vec<_> = lines.iter().map(|line| (&line["level"], &line["message"], &line["line"])).collect();
    let (error, invalid) = (Value::from("ERROR"), Value::from("config.invalid"));
    assert_eq!(reported, [(&error, &invalid, &9.into()), (&error, &invalid, &10.into())]);
    assert_eq!(lines[0]["help"], "99999 is no port: ports go up to 65535");
    // An address that is never assigned to a host (RFC 5737).
    let off = "[admin]\nhealth = \"off\"\nsocket = \"off\"\n";
    let unstarted = place.runs(&format!("{json}{off}[listen]\naddress = \"192.0.2.1:1\"\n")).await;
    assert_eq!(unstarted.code, Some(1), "{unstarted:#?}");
    let last = objects(&unstarted).pop().expect("a line");
    assert_eq!((&last["level"], &last["message"]), (&error, &"fatal".into()), "{last}");
    let text = last["error"].as_str().unwrap_or_default();
    assert!(text.starts_with("cannot listen on 192.0.2.1:1 (listen.address): "), "{text}");
    // From a flag, where the file cannot be read at all.
    let unread = finish(place.command(&["run", "-c", "none.toml", "--log-format", "json"])).await;
    assert_eq!((unread.code, objects(&unread).len()), (Some(78), 1), "{unread:#?}");
}

#[tokio::test]
async fn ports_and_sockets_that_cannot_be_opened_come_with_a_remedy() {
    let place = Place::new();
    let listen = "[listen]\naddress = \"127.0.0.1:0\"\n";
    let missing =
        place.runs(&format!("{listen}[admin]\nhealth = \"off\"\nsocket = \"/nowhere/here/admin.sock\"\n")).await;
    missing.failed(1, &["; make its folder /nowhere/here, or set admin.socket = \"off\""]);
    let elsewhere = place.runs(&format!("{listen}[admin]\nhealth = \"192.0.2.1:1\"\nsocket = \"off\"\n")).await;
    elsewhere.failed(1, &["(admin.health): ", "; use an address of this machine"]);
    let owner = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = owner.local_addr().expect("bound");
    let twice = place
        .runs(&format!(
            "[listen]\naddress = \"127.0.0.1:0\"\nredirect = \"{taken}\"\n[admin]\nhealth = \"off\"\nsocket = \"off\"\n"
        ))
        .await;
    twice.failed(1, &["(listen.redirect): ", "; end the program that has the port (ss -ltnp names it)"]);
    drop(owner);
}

#[tokio::test]
async fn words_of_other_programs_are_answered_with_ours() {
    for (line, words) in [
        (&["start"][..], "the command is `pulsegate run`"),
        (&["serve"], "the command is `pulsegate run`"),
        (&["validate"], "the command is `pulsegate check`"),
        (&["stop"], "the command is `pulsegate drain`"),
        (&["run", "--port", "8443"], "the flag is --listen ADDRESS:PORT, as in --listen 0.0.0.0:8443"),
        (&["run", "--port=8443"], "the flag is --listen ADDRESS:PORT"),
        (&["--port", "8443"], "the command comes first: pulsegate run --listen"),
        (&["run", "--to", "3000"], "the flag is --upstream URL"),
        (&["run", "--cert", "a"], "the flag is --certificate FILE"),
        (&["check", "--key", "a"], "the flag is --private-key FILE"),
        (&["dev", "--port", "3"], "the flag is --listen 127.0.0.1:PORT"),
        (&["dev", "--upstream", "3"], "--to"),
    ] {
        run(line).await.failed(2, &[words]);
    }
    let unknown = run(&["run", "--zzzzzz"]).await;
    assert!(unknown.code == Some(2) && !unknown.err.contains("tip:"), "{unknown:#?}");
}
