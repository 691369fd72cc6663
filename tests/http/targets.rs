//! Targets as clients send them, and as the app gets them.

use std::time::Duration;

use crate::support::{App, Head, LogPage, Proxy};

/// Bytes that RFC 3986 leaves out of URIs, and Node, nginx and HAProxy pass.
const ODD: [&str; 5] = [
    r#"/items?filter={"room":1}"#,
    "/items?a=<b>&c=|^`{}",
    "/<items>`{}|^\"",
    r#"/"items"?"#,
    r#"/chat/"room"?token=<secret>"#,
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Returns the head that the app receives for `line` and these fields, and the log line for it.
async fn forwarded(line: &str, fields: &str) -> (Head, serde_json::Value) {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(format!("{line} HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n")).await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK", "{line}");
    client.expect("ok").await;
    drop(client);
    (head, log.line("http.access").await)
}

#[tokio::test]
async fn what_servers_pass_passes_unchanged() {
    for target in ODD {
        let (head, line) = forwarded(&format!("GET {target}"), "").await;
        assert_eq!(head.line, format!("GET {target} HTTP/1.1"));
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        assert_eq!(line["url.path"], path, "{line}");
        let route = if path.starts_with("/chat/") { "/chat/" } else { "/" };
        assert_eq!(line["http.route"], route, "{line}");
    }
}

#[tokio::test]
async fn an_absolute_target_is_odd_in_its_path_alone() {
    let (head, _) = forwarded(r#"GET http://app.example/"a"?<b>"#, "").await;
    assert_eq!(head.line, r#"GET /"a"?<b> HTTP/1.1"#);
    let (head, _) = forwarded("GET http://app.example?<b>", "").await;
    assert_eq!(head.line, "GET /?<b> HTTP/1.1");
    refused(r#"GET http://"app".example/"#).await;
}

#[tokio::test]
async fn every_request_of_a_connection_keeps_its_target() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    // All at once: they wait in the proxy for one another.
    let targets = [r#"/1?"a""#, "/2?a", r#"/3?"b"&c"#, "/4", r#"/5"<>"?"#];
    let get = |target: &&str| format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n\r\n");
    client.send(targets.iter().map(get).collect::<String>()).await;
    let mut upstream = app.accept().await;
    for target in targets {
        // All on one connection to the app, which is pooled.
        assert_eq!(upstream.head().await.line, format!("GET {target} HTTP/1.1"));
        upstream.send(OK).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
        client.expect("ok").await;
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_keeps_its_target() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    client.head().await;
    client.expect("ok").await;
    client.send("GET /?\"again\" HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    assert_eq!(upstream.head().await.line, "GET /?\"again\" HTTP/1.1");
    // The pooled connection closes at the very moment it is used.
    drop(upstream);
    let mut fresh = app.accept().await;
    assert_eq!(fresh.head().await.line, "GET /?\"again\" HTTP/1.1");
    fresh.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_body_behind_an_odd_target_arrives_as_it_is() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let body = "POST /?_a_ HTTP/1.1\r\n\"<>`".repeat(10_000);
    let length = body.len();
    let head = format!("POST /?\"a\" HTTP/1.1\r\nHost: app.example\r\nContent-Length: {length}\r\n\r\n");
    let mut upstream = {
        let sending = client.send(format!("{head}{body}"));
        let receiving = async {
            let mut upstream = app.accept().await;
            assert_eq!(upstream.head().await.line, "POST /?\"a\" HTTP/1.1");
            upstream.expect(&body).await;
            upstream
        };
        tokio::join!(sending, receiving).1
    };
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_upgrade_keeps_its_target() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let target = r#"/chat/"a"?filter={"room":1}"#;
    // A frame right behind the request waits until the session is open.
    client.send(format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n")).await;
    client.send(b"\x82\x81\0\0\0\0\"").await;
    let mut upstream = app.accept().await;
    assert_eq!(upstream.head().await.line, format!("GET {target} HTTP/1.1"));
    assert!(upstream.is_silent_for(Duration::from_millis(50)).await, "nothing is sent before the 101");
    let accept = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    upstream.send(format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 101 Switching Protocols");
    upstream.expect(b"\x82\x81\0\0\0\0\"").await;
    let line = log.line("ws.open").await;
    assert_eq!((&line["url.path"], &line["http.route"]), (&r#"/chat/"a""#.into(), &"/chat/".into()), "{line}");
}

#[tokio::test]
async fn requests_behind_a_refused_upgrade_are_served() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for upgrade in ["Upgrade: websocket\r\nConnection: upgrade\r\n", "Upgrade: h2c\r\nConnection: upgrade\r\n"] {
        let mut client = proxy.connect();
        let get = |target, fields| format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n");
        client.send(format!("{}{}", get("/1?\"", upgrade), get("/2?\"", ""))).await;
        if upgrade.contains("h2c") {
            let mut upstream = app.accept().await;
            assert_eq!(upstream.head().await.line, "GET /1?\" HTTP/1.1");
            upstream.send(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
            client.expect("ok").await;
        } else {
            let head = client.head().await;
            assert_eq!(head.line, "HTTP/1.1 426 Upgrade Required");
            client.expect("426 Upgrade Required: version\n").await;
        }
        let mut upstream = app.accept().await;
        assert_eq!(upstream.head().await.line, "GET /2?\" HTTP/1.1");
        upstream.send(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
        client.expect("ok").await;
    }
}

/// Asserts that a request with this line is answered with 400, and is not forwarded.
async fn refused(line: &str) {
    for upgrade in [
        "",
        "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let mut client = proxy.connect();
        client.send(format!("{line} HTTP/1.1\r\nHost: app.example\r\n{upgrade}\r\n")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 400 Bad Request", "{line}");
        assert!(!app.is_dialled_within(Duration::from_millis(50)).await, "{line} went on to the app");
    }
}

#[tokio::test]
async fn targets_of_another_form_are_refused() {
    for line in
        ["GET /x#y", "GET /x?a#y", "GET /\"#", "GET http://app.example/#", "GET *", "GET app.example:80", "GET x"]
    {
        refused(line).await;
    }
}

#[tokio::test]
async fn options_of_the_server_as_a_whole_are_for_the_asterisk() {
    for (target, expected) in [
        ("https://app.example", "*"),
        ("https://app.example:8443", "*"),
        ("*", "*"),
        ("https://app.example/", "/"),
        ("https://app.example?a", "/?a"),
        ("/a", "/a"),
    ] {
        let (head, _) = forwarded(&format!("OPTIONS {target}"), "").await;
        assert_eq!(head.line, format!("OPTIONS {expected} HTTP/1.1"), "{target}");
    }
}
