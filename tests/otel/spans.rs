//! The attributes of a span, and its parent.

use std::collections::BTreeMap;

use pulsegate_test_kit::client::upgrade_head;
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;
use crate::collector::{Collector, Span};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Starts an app that accepts WebSockets on `/ws…`, refuses them on `/refused…`, and breaks off on all others; reports
/// every request.
async fn app() -> (FakeApp, mpsc::UnboundedReceiver<RequestHead>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let app = FakeApp::start(move |request: RequestHead, mut stream: TcpStream| {
        let _ = sender.send(request.clone());
        async move {
            if request.path().starts_with("/ws") {
                stream.write_all(request.accept().as_bytes()).await.expect("the answer is taken");
                hold(stream).await;
            } else if request.path().starts_with("/refused") {
                let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.expect("the answer is taken");
            }
        }
    })
    .await;
    (app, requests)
}

async fn start(app: &FakeApp, collector: &Collector) -> Proxy {
    let route = "[[route]]\npath = \"/ws/\"\nhost = \"localhost\"\n";
    Proxy::start(Config::to(PULSEGATE, &app.url).with(&collector.section()).with(route)).await
}

/// Requests a WebSocket with these additional headers; returns the status.
async fn ask(proxy: &Proxy, path: &str, headers: &str) -> u16 {
    let mut stream = proxy.tls().await;
    let head = format!("{}{headers}\r\n", upgrade_head(path));
    proxy.ask(&mut stream, head.as_bytes()).await.status
}

/// Returns the attributes without those whose value differs in every run.
fn stable(span: &Span) -> BTreeMap<String, Value> {
    let mut attributes = span.attributes.clone();
    for anew in ["client.port", "pulsegate.connection.id"] {
        assert!(attributes.remove(anew).is_some(), "no {anew} in {span:?}");
    }
    attributes
}

#[tokio::test]
async fn a_session_is_one_span_between_the_clients_and_the_apps() {
    let (collector, (app, mut requests)) = (Collector::start().await, app().await);
    let proxy = start(&app, &collector).await;
    let headers = format!(
        "traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: one=1\r\ntracestate: two=2\r\nUser-Agent: test\r\n"
    );
    assert_eq!(ask(&proxy, "/ws/chat?token=secret", &headers).await, 101);
    let span = collector.span_of("/ws/chat").await;
    assert_eq!((&*span.trace_id, &*span.parent_span_id), (TRACE, PARENT));
    assert_eq!((&*span.name, span.kind, span.status), ("GET /ws/", Some(2), None));
    assert!(span.end > span.start && span.start > 1_600_000_000_000_000_000, "{span:?}");
    let expected = json!({
        "client.address": "127.0.0.1",
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "http.route": "/ws/",
        "network.protocol.version": "1.1",
        "pulsegate.route": "localhost/ws/",
        "server.address": "localhost",
        "url.path": "/ws/chat",
        "url.scheme": "https",
        "user_agent.original": "test",
    });
    assert_eq!(json!(stable(&span)), expected);
    assert_eq!(span.resource["service.name"], "pulsegate");
    assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));

    let request = wait_for("the app's request", requests.recv()).await.expect("a request");
    let ours = format!("00-{TRACE}-{}-01", span.id);
    assert_eq!(request.header("traceparent"), Some(&*ours), "the app's spans belong under ours");
    assert_eq!(request.head.matches("traceparent").count(), 1, "{}", request.head);
    assert!(request.head.contains("one=1") && request.head.contains("two=2"), "{}", request.head);
    let opened = proxy.line("a ws.open", |line| line.json["message"] == "ws.open").await.json;
    assert_eq!((&opened["trace_id"], &opened["conn_id"]), (&json!(TRACE), &span.attributes["pulsegate.connection.id"]));
    proxy.finish().await;
}

#[tokio::test]
async fn a_session_without_a_trace_begins_one() {
    let (collector, (app, mut requests)) = (Collector::start().await, app().await);
    let proxy = start(&app, &collector).await;
    // Neither of them names a span (W3C Trace Context §3.2).
    let two = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n").repeat(2);
    for (path, headers) in [("/ws1", "traceparent: 00-0-0-01\r\ntracestate: stale=1\r\n"), ("/ws2", &*two)] {
        assert_eq!(ask(&proxy, path, headers).await, 101);
        let span = collector.span_of(path).await;
        assert!(span.parent_span_id.is_empty() && span.trace_id != TRACE, "{span:?}");
        let request = wait_for("the app's request", requests.recv()).await.expect("a request");
        let ours = format!("00-{}-{}-01", span.trace_id, span.id);
        assert_eq!(request.header("traceparent"), Some(&*ours));
        assert_eq!(request.header("tracestate"), None, "it belongs to no trace");
        let is_its = |line: &Value| line["url.path"] == path && line["trace_id"] == span.trace_id;
        proxy.line("its ws.open", |line| line.json["message"] == "ws.open" && is_its(&line.json)).await;
    }
    proxy.finish().await;
}

#[tokio::test]
async fn a_trace_that_is_not_recorded_passes_untouched() {
    let (collector, (app, mut requests)) = (Collector::start().await, app().await);
    let proxy = start(&app, &collector).await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(ask(&proxy, "/ws/quiet", &format!("traceparent: {unsampled}\r\n")).await, 101);
    let request = wait_for("the app's request", requests.recv()).await.expect("a request");
    assert_eq!(request.header("traceparent"), Some(&*unsampled));
    assert_eq!(ask(&proxy, "/ws/told", "").await, 101);
    collector.span_of("/ws/told").await;
    assert_eq!(collector.spans().len(), 1, "{:?}", collector.spans());
    proxy.finish().await;
}

#[tokio::test]
async fn refusals_say_whose_they_are() {
    let (collector, (app, _requests)) = (Collector::start().await, app().await);
    let proxy = start(&app, &collector).await;
    let mut stream = proxy.tls().await;
    let old = format!("{}\r\n", upgrade_head("/old").replace("Version: 13", "Version: 8"));
    assert_eq!(proxy.ask(&mut stream, old.as_bytes()).await.status, 426);
    assert_eq!(ask(&proxy, "/ws/%2e%2e/x", "").await, 400);
    assert_eq!(ask(&proxy, "/refused", "").await, 403);
    assert_eq!(ask(&proxy, "/broken", "").await, 502);
    let mut impatient = proxy.tls().await;
    let made_up = upgrade_head("/made-up").replace("GET", "BREW");
    assert_eq!(proxy.ask(&mut impatient, format!("{made_up}\r\n").as_bytes()).await.status, 400);
    for (path, name, status, error, is_to_blame) in [
        ("/old", "GET /", 426, "version", false),
        ("/ws/%2e%2e/x", "GET /", 400, "path", false),
        ("/refused", "GET /", 403, "upstream_refused", false),
        ("/broken", "GET /", 502, "upstream_closed", true),
        ("/made-up", "HTTP /", 400, "bad_request", false),
    ] {
        let span = collector.span_of(path).await;
        assert_eq!(span.attributes["http.response.status_code"], status, "{span:?}");
        assert_eq!((&span.attributes["error.type"], &*span.name), (&json!(error), name), "{span:?}");
        assert_eq!(span.status == Some(2), is_to_blame, "{span:?}");
        let has_come_to_the_app = ["/refused", "/broken"].contains(&path);
        assert_eq!(span.attributes.contains_key("pulsegate.connection.id"), has_come_to_the_app, "{span:?}");
    }
    assert_eq!(collector.span_of("/made-up").await.attributes["http.request.method"], "_OTHER");
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_has_its_span_too() {
    let collector = Collector::start().await;
    let (sender, mut asked) = mpsc::unbounded_channel();
    let app = FakeApp::start(move |_, stream: TcpStream| {
        let _ = sender.send(());
        hold(stream)
    })
    .await;
    let proxy = start(&app, &collector).await;
    let mut stream = proxy.tls().await;
    stream.write_all(format!("{}\r\n", upgrade_head("/left")).as_bytes()).await.expect("it is taken");
    stream.flush().await.expect("it is taken");
    wait_for("the app is asked", asked.recv()).await.expect("a request");
    drop(stream);
    let span = collector.span_of("/left").await;
    assert_eq!(span.attributes["error.type"], "abandoned");
    assert!(!span.attributes.contains_key("http.response.status_code") && span.status.is_none(), "{span:?}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_websocket_over_http2_is_a_span_like_any_other() {
    let (collector, (app, _requests)) = (Collector::start().await, app().await);
    let proxy = start(&app, &collector).await;
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, proxy.tcp().await);
    let tls = wait_for("the TLS handshake", handshake).await.expect("the certificate is trusted");
    let (mut streams, connection) = h2::client::handshake(tls).await.expect("the preface goes out");
    tokio::spawn(connection);
    let connect = async {
        while !streams.is_extended_connect_protocol_enabled() {
            streams = streams.clone().ready().await.expect("the connection lives");
            tokio::task::yield_now().await;
        }
    };
    wait_for("the proxy's settings", connect).await;
    let mut request = http::Request::connect("https://localhost/ws/h2").body(()).expect("a request");
    request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, _stream) = streams.send_request(request, false).expect("a stream");
    assert_eq!(wait_for("the answer", answer).await.expect("an answer").status(), 200);
    let span = collector.span_of("/ws/h2").await;
    let said = ["http.request.method", "http.response.status_code", "network.protocol.version"];
    assert_eq!(said.map(|name| span.attributes[name].clone()), [json!("CONNECT"), json!(200), json!("2")]);
    proxy.finish().await;
}
