//! Configurations that cannot be used: the one in force stays, and the reason is one log line, for each trigger of a
//! reload.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::PULSEGATE;
use crate::e2e::reload::{Pair, start};

/// The files of a proxy with an admin socket.
struct Administered {
    dir: TempDir,
}

impl Administered {
    fn new() -> Self {
        Self { dir: TempDir::with_prefix("pulsegate-").expect("a folder") }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    fn token(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn lines(&self, config: Config) -> Config {
        config.admin("health = \"off\"").admin(&format!("socket = \"{}\"", self.socket().display()))
    }

    /// Requests `line`, for example `GET /v1/info`, with `token`.
    async fn ask(&self, line: &str, token: Option<&str>) -> (u16, Value) {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}Content-Length: 0\r\n\r\n");
        let exchange = async {
            let mut stream = UnixStream::connect(self.socket()).await.expect("the proxy listens");
            stream.write_all(request.as_bytes()).await.expect("the request is taken");
            Response::read(&mut stream).await.unwrap_or_else(|| panic!("no answer to {line}"))
        };
        let answer = wait_for("an answer of the administration", exchange).await;
        let json = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error} in {:?}", answer.body));
        (answer.status, json)
    }
}

/// Replaces the content of `file` with `text`, atomically.
fn replace(file: &Path, text: impl AsRef<[u8]>) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("write");
    fs::rename(&new, file).expect("rename");
}

/// Removes `file`, be it a file or a directory.
fn clear(file: &Path) {
    let is_gone = fs::remove_file(file).is_ok() || fs::remove_dir(file).is_ok();
    assert!(is_gone || !file.exists(), "{} stays", file.display());
}

/// Returns the next failure of `trigger`, after the first `seen`.
async fn failure(proxy: &Proxy, trigger: &str, seen: usize) -> Value {
    let is_one = |line: &OutputLine| line.json["message"] == "config.reload_failed" && line.json["trigger"] == trigger;
    wait_until(&format!("a failure by {trigger}"), || proxy.count(is_one), |count| *count > seen).await;
    let mut lines = proxy.lines().into_iter().filter(is_one).map(|line| line.json);
    lines.nth(seen).expect("it was counted")
}

/// The files of a configuration, valid at first.
struct Files {
    config: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    sound: Vec<(PathBuf, Vec<u8>)>,
    text: String,
    /// Of another authority.
    other: Pair,
}

/// A change of the files, and the texts that the line must contain.
type Case = (&'static str, fn(&Files), &'static [&'static str]);

const CASES: &[Case] = &[
    ("missing", |files| clear(&files.config), &["proxy.toml", "No such file"]),
    ("empty", |files| replace(&files.config, ""), &["proxy.toml", "certificate", "upstream"]),
    (
        "half-written",
        |files| replace(&files.config, &files.text[..files.text.find("private_key").expect("it is there") + 20]),
        &["proxy.toml:"],
    ),
    ("a syntax error", |files| replace(&files.config, files.text.replace("[log]", "[log")), &["proxy.toml:"]),
    ("an unknown key", |files| replace(&files.config, files.text.replace("level =", "levle =")), &["levle", "level"]),
    ("a wrong value", |files| replace(&files.config, files.text.replace("\"info\"", "\"loud\"")), &["log.level"]),
    (
        "unreadable, a folder",
        |files| {
            clear(&files.config);
            fs::create_dir(&files.config).expect("a folder");
        },
        &["proxy.toml", "Is a directory"],
    ),
    (
        "a key of another",
        |files| replace(&files.key, &files.other.private_key),
        &["does not belong to the certificate"],
    ),
    (
        "half a certificate",
        |files| replace(&files.certificate, &files.other.certificate[..100]),
        &["server.pem", "END CERTIFICATE"],
    ),
    ("no certificate", |files| clear(&files.certificate), &["server.pem", "cannot be read"]),
];

/// Not for root, which can read every file.
const UNREADABLE: Case = (
    "unreadable",
    |files| fs::set_permissions(&files.config, fs::Permissions::from_mode(0o000)).expect("chmod"),
    &["proxy.toml", "Permission denied"],
);

#[tokio::test]
async fn an_unusable_file_changes_nothing_and_its_reason_is_one_line_for_every_trigger() {
    let app = FakeApp::answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let admin = Administered::new();
    let (proxy, config, text) = start(&admin.lines(Config::to(PULSEGATE, &app.url))).await;
    let (certificate, key) = (proxy.pki.certificate.clone(), proxy.pki.private_key.clone());
    let sound = [&config, &certificate, &key].map(|path| (path.clone(), fs::read(path).expect("read"))).to_vec();
    let files = Files { config, certificate, key, sound, text, other: Pair::make() };
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let mut cases = CASES.to_vec();
    if !rustix::process::geteuid().is_root() {
        cases.push(UNREADABLE);
    }
    for (turn, (what, spoil, says)) in cases.into_iter().enumerate() {
        spoil(&files);
        let report = failure(&proxy, "file", turn).await;
        let error = report["error"].as_str().expect("a reason");
        assert!(!error.contains('\n') && says.iter().all(|part| error.contains(part)), "{what}: {error}");
        assert_eq!(report["generation"], 1, "{what}: {report}");
        proxy.hang_up();
        assert_eq!(failure(&proxy, "signal", turn).await["error"], report["error"], "{what}: by a signal");
        let (status, answer) = admin.ask("POST /v1/reload", None).await;
        assert_eq!((status, &answer["result"]), (422, &"failed".into()), "{what}: {answer}");
        assert_eq!((&answer["error"], &answer["generation"]), (&report["error"], &1.into()), "{what}: {answer}");
        assert_eq!(failure(&proxy, "admin", turn).await["error"], report["error"], "{what}: when asked to");
        assert_eq!(admin.ask("GET /v1/reload", None).await.1["last_error"], report["error"], "{what}");

        drop(proxy.websocket("/echo").await);
        neighbour.echoes().await;
        for (path, bytes) in &files.sound {
            if !fs::read(path).is_ok_and(|found| found == *bytes) {
                clear(path);
                replace(path, bytes);
            }
        }
        let (status, answer) = admin.ask("POST /v1/reload", None).await;
        // The valid configuration never changed.
        assert_eq!(
            (status, &answer["generation"], &answer["error"]),
            (200, &1.into(), &Value::Null),
            "{what}: {answer}"
        );
        let (_, answer) = admin.ask("GET /v1/reload", None).await;
        assert_eq!((&answer["last_error"], &answer["generation"]), (&Value::Null, &1.into()), "{what}: {answer}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_token_that_is_replaced_is_asked_for_from_then_on() {
    let admin = Administered::new();
    let (old, new) = (Some("the-old-token-0123456789"), Some("the-new-token-0123456789"));
    replace(&admin.token(), "the-old-token-0123456789\n");
    let config = admin
        .lines(Config::to(PULSEGATE, "http://127.0.0.1:9"))
        .admin(&format!("token_file = \"{}\"", admin.token().display()));
    let proxy = Proxy::start(config).await;
    assert_eq!(admin.ask("GET /v1/info", new).await.0, 401);
    replace(&admin.token(), "short");
    let (status, answer) = admin.ask("POST /v1/reload", old).await;
    assert_eq!((status, &answer["result"]), (422, &"failed".into()), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("token")), "{answer}");
    assert_eq!(admin.ask("GET /v1/info", old).await.0, 200, "an unusable file leaves the old token valid");

    replace(&admin.token(), "the-new-token-0123456789\n");
    let (status, answer) = admin.ask("POST /v1/reload", old).await;
    assert_eq!((status, &answer["generation"]), (200, &2.into()), "{answer}");
    assert_eq!(admin.ask("GET /v1/info", old).await.0, 401);
    let (status, answer) = admin.ask("POST /v1/reload", new).await;
    assert_eq!((status, &answer["result"]), (200, &"unchanged".into()), "{answer}");
    assert_eq!(proxy.count(|line| line.text.contains("-token-0123456789")), 0, "{}", proxy.transcript());
    proxy.finish().await;
}
