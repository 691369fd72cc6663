//! Every endpoint and every key of its answer.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use pulsegate_test_kit::client::{close_of, echo};
use pulsegate_test_kit::frame::{BINARY, FIN, Frame, PING, PONG};
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::proxy::Proxy;
use pulsegate_test_kit::wait::{wait_for, wait_until, wait_until_async};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;
use crate::admin::rig::{Rig, connections, keys};

/// Every key of a session.
const CONN: [&str; 21] = [
    "client",
    "close",
    "closed_at",
    "config_generation",
    "duration_s",
    "heartbeat",
    "id",
    "idle_s",
    "in",
    "last_seen_at",
    "opened_at",
    "out",
    "path",
    "protocol",
    "route",
    "sni",
    "state",
    "subprotocol",
    "tls",
    "trace_id",
    "user_agent",
];

const HEARTBEAT: [&str; 10] =
    ["interval_s", "max", "missed", "misses", "mode", "next_deadline_at", "profile", "rtt_min_s", "rtt_s", "timeout_s"];

const CLOSE: [&str; 7] = ["code", "detail", "initiator", "reason", "sentence", "text", "upstream_code"];

/// Asserts that a session has the keys that are documented, and no others.
#[track_caller]
pub(crate) fn is_whole(conn: &Value) {
    assert_eq!(keys(conn), CONN, "{conn}");
    assert_eq!(keys(&conn["heartbeat"]), HEARTBEAT, "{conn}");
    for way in ["in", "out"] {
        assert_eq!(keys(&conn[way]), ["buffered", "bytes", "msgs"], "{conn}");
    }
    assert_eq!(keys(&conn["tls"]), ["group", "version"], "{conn}");
    assert_eq!(conn["close"].is_null(), conn["state"] != "closed", "{conn}");
    if !conn["close"].is_null() {
        assert_eq!(keys(&conn["close"]), CLOSE, "{conn}");
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn the_program_describes_itself() {
    let rig = Rig::start().await;
    let info = rig.get("/v1/info").await;
    let known = ["admin_token", "dev", "listen", "now", "pid", "started_at", "upstreams", "version"];
    assert_eq!(keys(&info), known);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&info["dev"], &info["admin_token"]), (&false.into(), &false.into()));
    assert_eq!(info["listen"], rig.proxy.address.to_string());
    assert_eq!(info["upstreams"], json!([rig.app.url]));
    assert!(fs::read_link(format!("/proc/{}/exe", info["pid"])).is_ok_and(|exe| exe.ends_with("pulsegate")), "{info}");
    assert!((number(&info["now"]) - now()).abs() < 5.0 && info["started_at"].as_f64() < info["now"].as_f64());
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_session_shows_its_peers_and_its_state() {
    let mut rig = Rig::with(|config| {
        config.with("[heartbeat]\ninterval = \"30s\"\n[[route]]\npath = \"/quick/\"\nheartbeat = { interval = \"300ms\", timeout = \"60s\" }\n")
    })
    .await;
    let (mut client, mut app) = rig.session("/quick/one?token=secret").await;
    for _ in 0..3 {
        client.write_all(&Frame::client(FIN | BINARY, vec![7; 1000]).bytes()).await.expect("it is open");
    }
    client.flush().await.expect("it is open");
    for _ in 0..3 {
        wait_for("a message", Frame::read(&mut app)).await.expect("a message");
    }
    app.write_all(&Frame::server(FIN | BINARY, vec![7; 5000]).bytes()).await.expect("it is open");
    // One ping, and its answer.
    let ping = loop {
        let frame = wait_for("a ping", Frame::read(&mut client)).await.expect("it is open");
        if frame.opcode() == PING {
            break frame;
        }
    };
    client.write_all(&Frame::client(FIN | PONG, ping.payload).bytes()).await.expect("it is open");
    client.flush().await.expect("it is open");
    let id = rig.id("/quick/one").await;
    let one = format!("/v1/connections/{id}");
    let is_measured = |conn: &Value| !conn["heartbeat"]["rtt_s"].is_null();
    let conn = wait_until_async("the round trip is measured", async || rig.get(&one).await, is_measured).await;
    is_whole(&conn);
    assert_eq!(conn["state"], "open");
    assert_eq!((&conn["route"], &conn["path"]), (&"/quick/".into(), &"/quick/one".into()), "no query: {conn}");
    assert!(conn["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{conn}");
    assert_eq!((&conn["sni"], &conn["protocol"]), (&"localhost".into(), &"h1".into()));
    assert_eq!(conn["tls"]["version"], "1.3");
    for unknown in ["subprotocol", "trace_id", "user_agent", "closed_at", "close"] {
        assert!(conn[unknown].is_null(), "{unknown} in {conn}");
    }
    assert_eq!((&conn["in"]["msgs"], &conn["out"]["msgs"]), (&3.into(), &1.into()), "{conn}");
    assert!(number(&conn["in"]["bytes"]) > 3000.0 && number(&conn["out"]["bytes"]) > 5000.0, "{conn}");
    let heartbeat = &conn["heartbeat"];
    assert_eq!((&heartbeat["mode"], &heartbeat["profile"]), (&"protocol".into(), &Value::Null));
    assert_eq!((number(&heartbeat["interval_s"]), number(&heartbeat["timeout_s"])), (0.3, 60.0));
    assert_eq!((&heartbeat["misses"], &heartbeat["missed"], &heartbeat["max"]), (&0.into(), &0.into(), &1.into()));
    assert!(number(&heartbeat["rtt_min_s"]) <= number(&heartbeat["rtt_s"]), "{conn}");
    assert!(number(&heartbeat["next_deadline_at"]) > number(&conn["opened_at"]), "{conn}");
    assert_eq!(conn["config_generation"], 1);
    let age = now() - number(&conn["opened_at"]);
    assert!((0.0..30.0).contains(&age) && (age - number(&conn["duration_s"])).abs() < 5.0, "{conn}");
    assert!((number(&conn["last_seen_at"]) + number(&conn["idle_s"]) - now()).abs() < 5.0, "{conn}");

    let list = rig.get("/v1/connections").await;
    assert_eq!(keys(&list), ["connections", "generation", "next_cursor", "now", "total"]);
    assert_eq!((&list["total"], &list["generation"], &list["next_cursor"]), (&1.into(), &1.into(), &Value::Null));
    is_whole(&connections(&list)[0]);
    drop((client, app));
    rig.proxy.ws_closes(1).await;
    let closed = rig.get(&one).await;
    is_whole(&closed);
    assert_eq!(closed["state"], "closed");
    for unknown in ["last_seen_at", "idle_s"] {
        assert!(closed[unknown].is_null(), "{unknown} in {closed}");
    }
    assert!(number(&closed["closed_at"]) >= number(&closed["opened_at"]), "{closed}");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_second_drain_request_changes_nothing() {
    let rig = Rig::with(|config| config.drain("delay = \"0s\"").drain("window = \"200ms\"")).await;
    let before = rig.get("/v1/drain").await;
    assert_eq!(keys(&before), ["cancelled_at", "phase", "sessions", "since"]);
    assert!(before["cancelled_at"].is_null(), "{before}");
    assert_eq!((&before["phase"], &before["sessions"]), (&"serving".into(), &0.into()));
    let mut session = rig.proxy.websocket("/echo").await;
    let first = rig.post("/v1/drain", "{}").await;
    assert_eq!(
        (first.status, keys(&first.json)),
        (202, vec!["cancelled_at", "phase", "sessions", "since"]),
        "{first:?}"
    );
    assert_ne!(first.json["phase"], "serving");
    assert_eq!(rig.post("/v1/drain", "").await.status, 202, "again changes nothing");
    assert_eq!(close_of(&mut session).await, (1012, "service restart".to_owned()));
    drop(session);
    let is_drained = |drain: &Value| drain["phase"] == "drained";
    let after = wait_until_async("it is drained", async || rig.get("/v1/drain").await, is_drained).await;
    assert!(after["sessions"] == 0 && number(&after["since"]) >= number(&before["since"]), "{after}");
    assert_eq!(rig.proxy.logged("admin.drain").len(), 2);
    let late = rig.post("/v1/drain/cancel", "").await;
    late.refuses(409, "ports_closed", &["cannot be cancelled any more", "drain.delay"]);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn an_announced_drain_is_cancelled_unless_a_signal_asked_for_it() {
    let rig = Rig::with(|config| config.drain("delay = \"60s\"").drain("window = \"0s\"")).await;
    let nothing = rig.post("/v1/drain/cancel", "").await;
    assert_eq!((nothing.status, &nothing.json["phase"]), (200, &"serving".into()), "{nothing:?}");
    assert!(nothing.json["cancelled_at"].is_null(), "{nothing:?}");
    assert_eq!(rig.post("/v1/drain", "").await.json["phase"], "announced");
    let phases = || rig.proxy.logged("drain").iter().map(|line| line["phase"].clone()).collect::<Vec<_>>();
    // A drain that is cancelled before the log's task has seen it is not logged.
    wait_until("the line of the announcement", phases, |phases| *phases == ["announced"]).await;
    let cancelled = rig.post("/v1/drain/cancel", "{}").await;
    assert_eq!((cancelled.status, &cancelled.json["phase"]), (200, &"serving".into()), "{cancelled:?}");
    assert_eq!(cancelled.json["cancelled_at"], cancelled.json["since"]);
    wait_until("the line of the cancellation", phases, |phases| *phases == ["announced", "serving"]).await;
    let mut session = rig.proxy.websocket("/echo").await;
    echo(&mut session, "served as before".into()).await.expect("an echo");
    drop(session);
    rig.ask("GET", "/v1/drain/cancel", &[], "").await.refuses(405, "method", &["use POST"]);
    rig.post("/v1/drain/cancel", r#"{"now":true}"#).await.refuses(400, "field", &[]);

    assert_eq!(rig.post("/v1/drain", "").await.json["phase"], "announced");
    rig.proxy.terminate();
    wait_until("the signal", || rig.proxy.logged("signal").len(), |seen| *seen == 1).await;
    let refused = rig.post("/v1/drain/cancel", "").await;
    refused.refuses(409, "exiting", &["SIGTERM or SIGINT asked for the end"]);
    assert_eq!(rig.get("/v1/drain").await["phase"], "announced");
    rig.proxy.terminate();
}

#[tokio::test]
async fn a_reload_reports_its_result() {
    let dir = TempDir::new().expect("make a temporary directory");
    let socket = dir.path().join("admin.sock");
    let file = dir.path().join("proxy.toml");
    let pki = Pki::make(dir.path());
    let (app, sessions) = pulsegate_test_kit::fake_app::FakeApp::sessions().await;
    let admin = format!("socket = {:?}", socket.display().to_string());
    let config =
        pulsegate_test_kit::proxy::Config::to(PULSEGATE, &app.url).admin(&admin).admin("health = \"127.0.0.1:0\"");
    // A port that stays the same, because a reload reports another one.
    let write = |more: &str| fs::write(&file, config.clone().with(more).toml(([127, 0, 0, 1], 0).into(), &pki));
    write("").expect("write the configuration");
    let proxy = Proxy::follow(&file, config.clone(), pki.clone(), TempDir::new().expect("a directory")).await;
    let rig = Rig::around(proxy, app, dir, sessions);

    let before = rig.get("/v1/reload").await;
    assert_eq!(keys(&before), ["generation", "last_error", "last_success_at"]);
    assert_eq!((&before["generation"], &before["last_error"]), (&1.into(), &Value::Null));
    let reload = async || {
        let reply = rig.post("/v1/reload", "").await;
        assert_eq!(keys(&reply.json), ["error", "generation", "requires_restart", "result"], "{reply:?}");
        (reply.status, reply.json)
    };
    let (status, report) = reload().await;
    assert_eq!((status, &report["result"], &report["generation"]), (200, &"unchanged".into(), &1.into()), "{report}");
    write("[heartbeat]\ninterval = \"31s\"\n").expect("write the configuration");
    let (status, report) = reload().await;
    // The file watch may have been quicker.
    assert!(
        status == 200 && ["applied", "unchanged"].contains(&report["result"].as_str().unwrap_or_default()),
        "{report}"
    );
    assert_eq!((&report["generation"], &report["error"]), (&2.into(), &Value::Null), "{report}");
    write("[heartbeat]\ninterval = \"soon\"\n").expect("write the configuration");
    let (status, report) = reload().await;
    assert_eq!((status, &report["result"], &report["generation"]), (422, &"failed".into(), &2.into()), "{report}");
    let error = report["error"].as_str().unwrap_or_default();
    assert!(error.contains("heartbeat.interval") && error.contains("proxy.toml"), "{error}");
    let after = rig.get("/v1/reload").await;
    assert!(after["last_error"].as_str().is_some_and(|error| error.contains("heartbeat.interval")), "{after}");
    assert!(after["last_success_at"].is_number(), "{after}");
    assert_eq!(rig.get("/v1/connections").await["generation"], 2);
    assert_eq!(rig.get("/v1/config").await["config"]["heartbeat.interval"]["value"], "31s", "what is in force");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets_and_certificates_with_their_ends() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let dir = TempDir::new().expect("make a temporary directory");
    let token = dir.path().join("token");
    fs::write(&token, TOKEN).expect("write the token");
    let line = format!("token_file = {:?}", token.display().to_string());
    let rig = Rig::with(|config| config.admin(&line)).await;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let reply = rig.ask("GET", "/v1/config", &[&bearer], "").await;
    assert_eq!((reply.status, keys(&reply.json)), (200, vec!["config", "generation"]), "{reply:?}");
    let text = reply.json.to_string();
    assert!(!text.contains(TOKEN) && !text.contains("PRIVATE KEY"), "{text}");
    for (key, shown) in reply.json["config"].as_object().expect("an object") {
        // Routes and certificates are lists.
        if !shown.is_array() {
            assert_eq!(keys(shown), ["origin", "value"], "{key}");
        }
    }
    let upstream = &reply.json["config"]["upstream.url"];
    assert_eq!(upstream["value"], rig.app.url);
    assert!(upstream["origin"].as_str().is_some_and(|origin| origin.contains("proxy.toml:")), "{upstream}");
    assert_eq!(reply.json["config"]["heartbeat.interval"]["origin"], "default");

    let reply = rig.ask("GET", "/v1/certs", &[&bearer], "").await;
    assert_eq!((reply.status, keys(&reply.json)), (200, vec!["certificates"]), "{reply:?}");
    let certificates = reply.json["certificates"].as_array().expect("a list");
    assert_eq!(certificates.len(), 1);
    let known = ["file", "fingerprint_sha256", "for_names", "names", "not_after", "not_before"];
    assert_eq!(keys(&certificates[0]), known);
    let file = certificates[0]["file"].as_str().expect("a file");
    assert_eq!(fs::canonicalize(file).ok(), fs::canonicalize(&rig.proxy.pki.certificate).ok());
    assert!(certificates[0]["names"].as_array().is_some_and(|names| names.contains(&"localhost".into())));
    let digest = certificates[0]["fingerprint_sha256"].as_str().expect("hexadecimal");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    let (from, to) = (number(&certificates[0]["not_before"]), number(&certificates[0]["not_after"]));
    assert!(from < now() && now() < to, "{reply:?}");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn the_page_and_its_files_are_served_and_nothing_else_may_be_in_it() {
    let rig = Rig::start().await;
    for (path, kind) in [("/", "text/html"), ("/inspect.css", "text/css"), ("/inspect.js", "text/javascript")] {
        let reply = rig.ask("GET", path, &[], "").await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some(&*format!("{kind}; charset=utf-8")), "{path}");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'self'"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        rig.ask("POST", path, &[], "").await.refuses(405, "method", &["GET"]);
    }
    wait_until("nothing has gone wrong", || rig.proxy.logged("admin.lost").len(), |lost| *lost == 0).await;
    rig.proxy.finish().await;
}
