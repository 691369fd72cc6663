//! A client that is stopped, as on a laptop whose lid is closed, and continues long after its session's end: it reads
//! the pending Close, and reconnects.

use std::path::Path;
use std::time::{Duration, Instant};

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::{Process, send};
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_until;
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::libraries::matrix::Page;
use crate::libraries::reconnecting::RECONNECTING_WEBSOCKET;

/// The time for which a client is stopped. The bound of [`QUICK`] and `close_grace` have passed long before.
const STOPPED: Duration = Duration::from_secs(8);

async fn start() -> (NodeApp, Proxy) {
    let app = NodeApp::start("libraries", "reconnecting/app.js", &[]).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    (app, proxy)
}

/// The Close that is pending when a client wakes.
const CLOSE: (u64, &str) = (1012, "heartbeat timeout");

/// Stops and wakes the connected `client` by `stop` and `wake`; asserts that it sees one of the ends that it `may_see`,
/// and reconnects.
async fn sleeps(
    client: &Process,
    protocol: &str,
    may_see: &[(u64, &str)],
    (app, proxy): (NodeApp, Proxy),
    stop: impl FnOnce(),
    wake: impl FnOnce(),
) {
    client.event("open", |_| true).await;
    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(open["network.protocol.version"], if protocol == "h1" { "1.1" } else { "2" }, "{open}");
    // An answered ping, so that the connection is fully established.
    app.event("beat", |_| true).await;

    let since = Instant::now();
    stop();
    let at_app = app.event("close", |_| true).await;
    assert_eq!((&at_app["code"], &at_app["reason"]), (&4408.into(), &"heartbeat timeout".into()));
    let close = proxy.ws_close(|_| true).await.json;
    assert_eq!((&close["close.reason"], &close["close.code"]), (&"heartbeat_timeout".into(), &1012.into()), "{close}");
    sleep(STOPPED.saturating_sub(since.elapsed())).await;
    wake();

    let seen = client.event("close", |_| true).await;
    let seen = (seen["code"].as_u64().unwrap_or(0), seen["reason"].as_str().unwrap_or("").to_owned());
    assert!(
        may_see.iter().any(|(code, reason)| (*code, *reason) == (seen.0, &seen.1)),
        "{seen:?}; {}",
        client.transcript()
    );
    let opens = || (client.events("open").len(), client.transcript());
    wait_until("the client is back", opens, |(opens, _)| *opens == 2).await;
    wait_until("its session is open", || proxy.logged("ws.open").len(), |opens| *opens == 2).await;
    proxy.finish().await;
}

#[tokio::test]
async fn s71_ws_in_node_reads_the_close_and_comes_back() {
    let (app, proxy) = start().await;
    let page = Page::start(&RECONNECTING_WEBSOCKET, &proxy);
    sleeps(&page, "h1", &[CLOSE], (app, proxy), || page.stop(), || page.resume()).await;
}

#[tokio::test]
async fn s71_websockets_in_python_reads_the_close_and_comes_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/libraries-venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./tests/install", python.display());
    let (app, proxy) = start().await;
    let mut command = Command::new(python);
    command.arg(root.join("tests/libraries/stopped/client.py")).arg(proxy.wss("/")).arg(&proxy.pki.ca);
    let client = Process::start("client.py", &mut command);
    client.event("message", |event| event["data"] == "hello").await;
    sleeps(&client, "h1", &[CLOSE], (app, proxy), || client.stop(), || client.resume()).await;
}

/// Tests Chromium, whose sockets are in a process of their own.
async fn chromium(protocol: &str, may_see: &[(u64, &str)], session: (NodeApp, Proxy), mut browser: Browser) {
    browser.event("open", |_| true).await;
    browser.write_line(&json!({ "send": "hello" })).await;
    browser.event("message", |event| event["data"] == "hello").await;
    let network_service = browser.network_service();
    let signal = |signal| move || send(network_service, signal);
    sleeps(&browser, protocol, may_see, session, signal(Signal::STOP), signal(Signal::CONT)).await;
}

#[tokio::test]
async fn s71_chromium_reads_the_close_and_comes_back_over_http2() {
    let (app, proxy) = start().await;
    let browser = Browser::visit(&proxy.https("/"), &proxy.pki.ca).await;
    chromium("h2", &[CLOSE], (app, proxy), browser).await;
}

/// Chromium answers the ping before it answers the Close, and reports 1006 if a write within the closing handshake
/// fails. On loopback, where a segment takes no time, the kernel has answered the first write to the closed socket with
/// a reset before the second; over a network both are in transit by then.
#[tokio::test]
async fn s71_chromium_comes_back_over_http1() {
    let (app, proxy) = start().await;
    let browser = Browser::visit_by_http1(&proxy.https("/"), &proxy.pki.ca).await;
    chromium("h1", &[CLOSE, (1006, "")], (app, proxy), browser).await;
}
