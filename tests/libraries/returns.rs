//! The reconnection of each page, for each possible code of a missed heartbeat.

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::PULSEGATE;
use crate::libraries::library::{ENDS, End, Library};
use crate::libraries::matrix::{Heartbeat, Session};

/// The operator of a proxy, with an admin socket of its own.
#[derive(Debug)]
pub(crate) struct Operator {
    dir: TempDir,
}

impl Operator {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::with_prefix("pulsegate-operator-").expect("make a temporary directory") }
    }

    /// Returns `config` with the admin API on this operator's socket.
    pub(crate) fn of(&self, config: Config) -> Config {
        let socket = self.dir.path().join("admin.sock").display().to_string();
        config.admin("health = \"off\"").admin(&format!("socket = {socket:?}"))
    }

    /// Closes every session with `code`, and with the reason of a missed heartbeat.
    pub(crate) async fn kill(&self, code: u16) {
        let mut command = Command::new(PULSEGATE);
        command.args(["kill", "--client", "127.0.0.0/8", "--yes", "--code", &code.to_string()]);
        command.args(["--reason", "heartbeat timeout", "--admin"]).arg(self.dir.path().join("admin.sock"));
        let output = wait_for("pulsegate kill", command.kill_on_drop(true).output()).await.expect("it starts");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Session {
    /// Ends the page's connection.
    async fn end(mut self, end: End) -> Self {
        match end {
            End::Close(code) => self.kill(code).await,
            End::NoClose => self.proxy = self.proxy.crash().await,
        }
        self
    }
}

/// Ends the page's connection with each of [`ENDS`] and asserts that it reconnects or does not. Prints the library's
/// row of the table, cell by cell.
pub(crate) async fn after_each_end(library: &Library) {
    let mut session = None;
    for (end, comes_back) in ENDS.into_iter().zip(library.comes_back) {
        let open = match session.take() {
            Some(session) => session,
            None => Session::open(library, Heartbeat::Protocol).await,
        };
        let opens = open.page.opens();
        let mut ended = open.end(end).await;
        ended.page.comes_back(opens, comes_back, &format!("{}, after {end}", library.title)).await;
        println!("{} | after {end} | {comes_back:?}", library.title);
        if comes_back.comes() {
            ended.echoes(&format!("back after {end}")).await;
            session = Some(ended);
        } else {
            ended.finish().await;
        }
    }
    if let Some(session) = session {
        session.finish().await;
    }
}

/// Tests the page of reconnecting-websocket in a browser, over HTTP/1.1 or HTTP/2.
async fn in_chromium(protocol: &str) {
    let app = NodeApp::start("libraries", "reconnecting/app.js", &[]).await;
    let operator = Operator::new();
    let mut proxy = Proxy::start(operator.of(Config::to(PULSEGATE, &app.url))).await;
    let mut browser = match protocol {
        "h1" => Browser::visit_by_http1(&proxy.https("/"), &proxy.pki.ca).await,
        _ => Browser::visit(&proxy.https("/"), &proxy.pki.ca).await,
    };
    browser.event("open", |_| true).await;
    let open = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!(open["network.protocol.version"], if protocol == "h1" { "1.1" } else { "2" }, "{open}");
    for (ended, end) in (1..).zip(ENDS) {
        match end {
            End::Close(code) => operator.kill(code).await,
            End::NoClose => proxy = proxy.crash().await,
        }
        let opens = || (browser.events("open").len(), browser.transcript());
        wait_until(&format!("after {end} the page is back"), opens, |(opens, _)| *opens == ended + 1).await;
        let close = browser.events("close").pop().expect("the page has seen its end");
        assert_eq!(close["code"], if let End::Close(code) = end { code } else { 1006 }, "{close}");
        println!("reconnecting-websocket in Chromium, {protocol} | after {end} | Yes");
        let text = format!("back after {end}");
        browser.write_line(&json!({ "send": text })).await;
        browser.event("message", |event| event["data"] == *text).await;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn s71_a_page_in_chromium_comes_back_over_http1() {
    in_chromium("h1").await;
}

#[tokio::test]
async fn s71_a_page_in_chromium_comes_back_over_http2() {
    in_chromium("h2").await;
}
