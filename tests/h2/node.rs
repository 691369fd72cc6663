//! Node's HTTP/2 client, and curl.

use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use tokio::process::Command;

use crate::PULSEGATE;

#[tokio::test]
async fn node_opens_websockets_over_streams_and_answers_their_pings() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(QUICK)).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/h2/client.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(proxy.https("")).arg("--ca").arg(&proxy.pki.ca);
    let client = Process::start("client.mjs", &mut command);
    let settings = client.event("settings", |_| true).await;
    assert_eq!((&settings["connect"], &settings["streams"]), (&true.into(), &200.into()), "{settings}");
    let get = client.event("get", |_| true).await;
    assert_eq!(get["status"], 200, "{get}");
    assert_eq!(get["length"], get["announced"], "{get}");
    for name in ["one", "two"] {
        let path = format!("/ws?name={name}");
        let response = client.event("response", |event| event["path"] == path).await;
        assert_eq!((&response["status"], &response["accept"]), (&200.into(), &serde_json::Value::Null), "{response}");
        let message = client.event("message", |event| event["path"] == path).await;
        assert_eq!(message["data"], format!("hello from {path}"));
        let close = client.event("close", |event| event["path"] == path).await;
        assert_eq!(close["code"], 1000, "the app's answer to the client's Close");
        let closed = client.event("closed", |event| event["path"] == path).await;
        assert_eq!((&closed["pings"], &closed["code"]), (&3.into(), &0.into()), "an orderly end: {closed}");
        assert_eq!(app.close_of(name).await.json["code"], 1000);
    }
    for line in proxy.ws_closes(2).await {
        assert_eq!(
            (&line["network.protocol.version"], &line["close.reason"]),
            (&"2".into(), &"normal".into()),
            "{line}"
        );
        assert!(line["rtt_last_s"].as_f64().is_some_and(|rtt| rtt > 0.0), "{line}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn curl_speaks_whichever_version_it_is_told() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", flag, "--cacert"]).arg(&proxy.pki.ca);
        command.args(["--write-out", "\n%{http_version} %{http_code}"]).arg(proxy.https("/"));
        let output = wait_for("curl ends", command.output()).await.expect("curl runs: apt-get install -y curl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.ends_with(&format!("\n{version} 200")), "{text} {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("<title>Echo</title>"), "{text}");
    }
    proxy.finish().await;
}
