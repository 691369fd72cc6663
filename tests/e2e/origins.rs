//! The origins that may open WebSockets, with a real browser, which sends the true origin of its pages.

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};

use crate::PULSEGATE;

#[tokio::test]
async fn a_page_of_the_same_host_gets_in() {
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with("[origins]\nallow = [\"same-host\"]\n")).await;
    let browser = Browser::visit(&proxy.https("/?name=own"), &proxy.pki.ca).await;
    browser.event("open", |_| true).await;
    app.event("open", |event| event["name"] == "own").await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_and_the_app_receives_nothing() {
    let app = NodeApp::bare().await;
    let proxy =
        Proxy::start(Config::to(PULSEGATE, &app.url).with("[origins]\nallow = [\"https://app.example\"]\n")).await;
    let browser = Browser::visit(&proxy.https("/?name=strange"), &proxy.pki.ca).await;
    let close = browser.event("close", |_| true).await;
    assert_eq!(close["code"], 1006, "{close}");
    let line = proxy.line("a ws.reject", |line| line.json["message"] == "ws.reject").await.json;
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"origin".into(), &403.into()), "{line}");
    let origin = format!("https://localhost:{}", proxy.address.port());
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains(&origin)), "{line}");
    assert!(app.events("open").is_empty(), "{}", app.transcript());
    proxy.finish().await;
}

#[tokio::test]
async fn each_host_and_path_has_pages_of_its_own() {
    const ROUTES: &str = "\
[origins]
allow = [\"same-host\"]
[[route]]
path = \"/\"
host = \"*.widget.example\"
origins.allow = [\"https://*.shop.example\", \"https://blog.example:8443\"]
[[route]]
path = \"/ws\"
host = \"admin.example\"
origins.allow = []
";
    let app = NodeApp::bare().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(ROUTES)).await;
    for (host, origin, status) in [
        ("localhost", "https://localhost", 101),
        ("localhost", "https://a.shop.example", 403),
        ("eu.widget.example", "https://a.shop.example", 101),
        ("eu.widget.example:443", "https://BLOG.example:8443", 101),
        ("eu.widget.example", "https://eu.widget.example", 403),
        ("widget.example", "https://a.shop.example", 403),
        ("admin.example", "https://admin.example", 403),
    ] {
        let head = upgrade_head("/ws").replacen("Host: localhost", &format!("Host: {host}"), 1);
        let mut stream = proxy.tls().await;
        let answer = proxy.ask(&mut stream, format!("{head}Origin: {origin}\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.status, status, "{origin} at {host}: {answer:?}");
    }
    proxy.finish().await;
}
