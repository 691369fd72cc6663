//! WebSocket upgrades: the refusals, the request to the app, and the use of its answer.

use std::time::{Duration, Instant};

use pulsegate::config::UpstreamTarget;
use pulsegate::relay::SessionOrder;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::support::{App, Head, LogPage, Proxy, Wire, alter_app};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Returns a valid handshake for `/chat/room` with more fields.
pub fn handshake(fields: &str) -> String {
    format!(
        "GET /chat/room?token=secret HTTP/1.1\r\nHost: app.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// Returns a valid 101 with more fields.
pub fn switching(fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{fields}\r\n"
    )
}

/// Sends a handshake, and returns both ends when it has reached the app.
async fn asked(proxy: &Proxy, app: &App, request: &str) -> (Wire<DuplexStream>, Wire<TcpStream>, Head) {
    let mut client = proxy.connect();
    client.send(request).await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    (client, upstream, head)
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_before_the_app_hears_of_it() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let valid = handshake("");
    for (request, status, reason) in [
        (valid.replace("GET", "POST"), "400 Bad Request", "bad_request"),
        (valid.replace("Connection: Upgrade", "Connection: keep-alive"), "400 Bad Request", "bad_request"),
        (valid.replace("Host: app.example\r\n", ""), "400 Bad Request", "bad_request"),
        (valid.replace("Version: 13", "Version: 12"), "426 Upgrade Required", "version"),
        (valid.replace("Sec-WebSocket-Version: 13\r\n", ""), "426 Upgrade Required", "version"),
        (valid.replace(KEY, "c2hvcnQ="), "400 Bad Request", "bad_request"),
        (valid.replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), "400 Bad Request", "bad_request"),
        (handshake("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "400 Bad Request", "bad_request"),
        (handshake("Content-Length: 5\r\n") + "hello", "400 Bad Request", "bad_request"),
        (handshake("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400 Bad Request", "bad_request"),
    ] {
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(&request).await;
        let head = client.head().await;
        // An HTTP/1.0 client is answered in its own version.
        assert_eq!(head.line.split_once(' ').unwrap().1, status, "{request}");
        let version = (reason == "version").then_some("13");
        assert_eq!(head.get("sec-websocket-version"), version, "{request}");
        client.expect(format!("{status}: {reason}\n")).await;
        let line = log.line("ws.reject").await;
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["http.response.status_code"], status[..3].parse::<u16>().unwrap(), "{line}");
        assert!(line["detail"].is_string(), "{line}");
    }
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn the_cause_of_a_refusal_is_in_its_line() {
    let gone = App::start().await.target();
    let UpstreamTarget::Tcp { port, .. } = &gone else { panic!("an app listens on a port") };
    let refused = format!("cannot connect to the upstream at 127.0.0.1:{port}: Connection refused (os error 111)");
    let proxy = Proxy::with(gone.clone(), |_| {});
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(handshake("")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    let line = log.line("ws.reject").await;
    assert_eq!((&line["level"], &line["error"]), (&"WARN".into(), &refused.into()), "{line}");
    assert!(line.get("detail").is_none() && line["request_id"].is_string(), "{line}");

    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for (answer, status, level, error) in [
        (switching("").replace("Sec-WebSocket-Accept", "X-Accept"), 502, "WARN", true),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(), 503, "WARN", false),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned(), 401, "INFO", false),
    ] {
        let log = LogPage::open();
        let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake("")).await;
        upstream.send(answer).await;
        client.head().await;
        let line = log.line("ws.reject").await;
        assert_eq!((&line["http.response.status_code"], &line["level"]), (&status.into(), &level.into()), "{line}");
        assert_eq!(line["error"].is_string(), error, "{line}");
    }
}

#[tokio::test]
async fn the_connection_goes_on_after_a_refusal() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(handshake("").replace("Version: 13", "Version: 12")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 426 Upgrade Required");
    client.expect("426 Upgrade Required: version\n").await;
    client.send(handshake("")).await;
    app.accept().await.head().await;
}

#[tokio::test]
async fn the_app_is_asked_what_the_client_asked() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let request = handshake(
        "Origin: https://app.example\r\nSec-WebSocket-Protocol: soap, chat\r\nCookie: a=1\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nX-Pulsegate-Connection-Id: 7\r\n",
    );
    let (_client, _upstream, head) = asked(&proxy, &app, &request).await;
    assert_eq!(head.line, "GET /chat/room?token=secret HTTP/1.1");
    for (field, value) in [
        ("host", "app.example"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-protocol", "soap, chat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("origin", "https://app.example"),
        ("cookie", "a=1"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "192.0.2.7"),
        ("x-pulsegate-connection-id", "0000000100000001"),
    ] {
        assert_eq!(head.get(field), Some(value), "{field}");
    }
}

#[tokio::test]
async fn an_upgrade_over_http_1_0_is_a_plain_request() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let request = handshake("").replace("HTTP/1.1", "HTTP/1.0");
    let (mut client, mut upstream, head) = asked(&proxy, &app, &request).await;
    assert_eq!((head.get("upgrade"), head.get("connection")), (None, None), "{head:?}");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await;
    assert_eq!(client.head().await.line, "HTTP/1.0 200 OK");
    client.expect("plain").await;
}

#[tokio::test]
async fn names_of_the_handshake_are_written_as_client_and_app_wrote_them() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut client, mut upstream, head) = asked(&proxy, &app, &handshake("X-cAsE: 1\r\n")).await;
    for name in ["Host", "Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "X-cAsE"] {
        assert!(head.names.iter().any(|written| written == name), "{name}: {head:?}");
    }
    upstream.send(switching("X-aPP: 1\r\n")).await;
    let head = client.head().await;
    for name in ["Upgrade", "Connection", "Sec-WebSocket-Accept", "X-aPP"] {
        assert!(head.names.iter().any(|written| written == name), "{name}: {head:?}");
    }
}

#[tokio::test]
async fn a_subprotocol_that_was_not_offered_is_left_to_the_client() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for (offer, answer) in [
        ("", "Sec-WebSocket-Protocol: chat\r\n"),
        ("Sec-WebSocket-Protocol: soap\r\n", "Sec-WebSocket-Protocol: chat\r\n"),
        ("Sec-WebSocket-Protocol: soap\r\n", "Sec-WebSocket-Protocol: \r\n"),
    ] {
        let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake(offer)).await;
        upstream.send(switching(answer)).await;
        let head = client.head().await;
        assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols", "{offer:?} {answer:?}");
        let expected = answer.split_once(": ").unwrap().1.trim();
        assert_eq!(head.get("sec-websocket-protocol"), Some(expected), "{head:?}");
    }
}

#[tokio::test]
async fn nothing_follows_the_request_until_the_app_has_agreed() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let request = handshake("") + "\u{1}early";
    let (mut client, mut upstream, _) = asked(&proxy, &app, &request).await;
    assert!(upstream.is_silent_for(Duration::from_millis(100)).await);
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 403 Forbidden");
    assert_eq!(upstream.rest().await, "", "and nothing after a refusal");
}

#[tokio::test]
async fn the_apps_refusal_is_relayed_with_its_body_as_it_comes() {
    for status in ["401 Unauthorized", "404 Not Found", "200 OK"] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let log = LogPage::open();
        let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake("")).await;
        upstream
            .send(format!(
                "HTTP/1.1 {status}\r\nWWW-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.line, format!("HTTP/1.1 {status}"));
        assert_eq!(head.get("www-authenticate"), Some("Basic"));
        client.expect("2\r\nno\r\n").await;
        upstream.send("3\r\nway\r\n0\r\n\r\n").await;
        client.expect("3\r\nway\r\n0\r\n\r\n").await;
        assert_eq!(upstream.rest().await, "", "its connection is not kept");
        let line = log.line("ws.reject").await;
        assert_eq!(line["reason"], "upstream_refused", "{line}");
        assert!(proxy.registry.is_empty());
    }
}

#[tokio::test]
async fn a_refusal_in_a_coding_that_was_not_asked_for_is_a_502() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for coding in ["gzip, chunked", "gzip", "chunked, gzip", "chunked, chunked"] {
        let log = LogPage::open();
        let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake("")).await;
        let refusal = format!("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        upstream.send(refusal).await;
        drop(upstream);
        assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway", "{coding}");
        let line = log.line("ws.reject").await;
        let reason = line["reason"].as_str().expect("a word");
        assert!(["upstream_invalid", "upstream_closed"].contains(&reason), "{line}");
    }
}

#[tokio::test]
async fn a_101_that_does_not_fit_is_a_502() {
    let offer = handshake("Sec-WebSocket-Protocol: chat\r\n");
    for answer in [
        switching("").replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        switching("").replace(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n"), ""),
        switching("").replace("Upgrade: websocket", "Upgrade: h2c"),
        switching("").replace("Connection: Upgrade\r\n", ""),
        switching("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let log = LogPage::open();
        let (mut client, mut upstream, _) = asked(&proxy, &app, &offer).await;
        upstream.send(&answer).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway", "{answer}");
        client.expect("502 Bad Gateway: upstream_invalid\n").await;
        assert_eq!(upstream.rest().await, "");
        assert_eq!(log.line("ws.reject").await["reason"], "upstream_invalid", "{answer}");
        assert!(proxy.registry.is_empty());
    }
}

#[tokio::test]
async fn an_app_that_is_down_or_hangs_or_hangs_up() {
    let app = App::start().await;
    let gone = App::start().await.target();
    let down = Proxy::with(gone, |_| {});
    let mut client = down.connect();
    client.send(handshake("")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    client.expect("502 Bad Gateway: upstream_unreachable\n").await;

    let hasty = Proxy::with(app.target(), |settings| {
        alter_app(settings, |app| app.response_timeout = Duration::from_millis(50));
    });
    let (mut client, mut upstream, _) = asked(&hasty, &app, &handshake("")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 504 Gateway Timeout");
    client.expect("504 Gateway Timeout: upstream_timeout\n").await;
    assert_eq!(upstream.rest().await, "");

    let proxy = Proxy::before(&app);
    let (mut client, upstream, _) = asked(&proxy, &app, &handshake("")).await;
    drop(upstream);
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    client.expect("502 Bad Gateway: upstream_closed\n").await;
}

#[tokio::test]
async fn a_draining_proxy_refuses() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let request = handshake("");
    // With so small a buffer, the first part is sent only when the proxy has begun to read.
    let mut client = proxy.connect_through(16);
    client.send(&request[..60]).await;
    proxy.draining.cancel();
    client.send(&request[60..]).await;
    let head = client.head().await;
    assert_eq!(head.line, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(head.get("retry-after"), Some("1"));
    assert!(client.rest().await.starts_with("503 Service Unavailable: draining\n"));
}

#[tokio::test]
async fn a_refusal_that_is_being_written_when_the_drain_reaches_its_connection_is_whole() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.drain.window = Duration::from_millis(100));
    let mut client = proxy.connect_through(16);
    let request = handshake("");
    client.send(&request[..60]).await;
    proxy.draining.cancel();
    client.send(&request[60..]).await;
    // The window is over while all but the first bytes wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(client.rest().await, "503 Service Unavailable: draining\n");
}

#[tokio::test]
async fn a_draining_proxy_answers_what_comes_on_a_kept_connection() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.drain.window = Duration::from_secs(60));
    let (mut asks, mut upgrades, mut idle) = (proxy.connect(), proxy.connect(), proxy.connect());
    let mut upstream = None;
    for client in [&mut asks, &mut upgrades] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        if upstream.is_none() {
            upstream = Some(app.accept().await);
        }
        let upstream = upstream.as_mut().unwrap();
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.head().await.get("connection"), None, "it is kept");
        client.expect("ok").await;
    }
    proxy.draining.cancel();
    let began = Instant::now();

    upgrades.send(handshake("")).await;
    let head = upgrades.head().await;
    assert_eq!((&*head.line, head.get("retry-after")), ("HTTP/1.1 503 Service Unavailable", Some("1")));
    assert_eq!(head.get("connection"), Some("close"));
    assert!(upgrades.rest().await.starts_with("503 Service Unavailable: draining\n"));
    assert!(proxy.counts("pulsegate_upgrade_rejections_total{reason=\"draining\"} 1"), "{}", proxy.metrics.encode());

    asks.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut fresh = app.accept().await;
    fresh.head().await;
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(asks.head().await.get("connection"), Some("close"));
    assert_eq!(asks.rest().await, "ok");

    assert_eq!(idle.rest().await, "", "one that says nothing is not waited for until the window ends");
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    proxy.ended().await;
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_a_plain_request() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    let (mut client, mut upstream, head) = asked(&proxy, &app, request).await;
    assert_eq!((head.get("upgrade"), head.get("connection"), head.get("http2-settings")), (None, None, None));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    client.expect("ok").await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_leaves_nothing_behind() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (client, mut upstream, _) = asked(&proxy, &app, &handshake("")).await;
    drop(client);
    assert_eq!(upstream.rest().await, "");
    assert!(proxy.registry.is_empty());
    proxy.ended().await;
}

#[tokio::test]
async fn a_session_begins_with_the_apps_answer() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let request = handshake("Sec-WebSocket-Protocol: soap, chat\r\nUser-Agent: probe/1\r\n");
    let (mut client, mut upstream, _) = asked(&proxy, &app, &request).await;
    upstream
        .send(switching("Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n"))
        .await;
    let head = client.head().await;
    assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols");
    let expected = [
        ("connection", "Upgrade"),
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "chat"),
        ("set-cookie", "a, b"),
        ("upgrade", "websocket"),
    ];
    assert_eq!(head.without(&["date"]), expected.map(|(name, value)| (name, value.to_owned())).into());
    let line = log.line("ws.open").await;
    for (field, value) in [
        ("level", "INFO"),
        ("conn_id", "0000000100000001"),
        ("client.address", crate::support::CLIENT_ADDRESS),
        ("http.route", "/chat/"),
        ("url.path", "/chat/room"),
        ("user_agent.original", "probe/1"),
        ("tls.protocol.version", "1.3"),
        ("tls.group", "X25519MLKEM768"),
        ("subprotocol", "chat"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");
    assert_eq!(proxy.registry.len(), 1);
}

/// Returns a text frame as a client sends it, masked with a key of zeros (RFC 6455 §5.3).
fn masked(text: &str) -> Vec<u8> {
    let length = 0x80 | u8::try_from(text.len()).unwrap();
    [&[0x81, length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// Returns a text frame as a server sends it.
fn plain(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Returns a Close as a client sends it, masked with a key of zeros.
fn close(code: u16) -> Vec<u8> {
    [&[0x88, 0x82, 0, 0, 0, 0], &code.to_be_bytes()[..]].concat()
}

#[tokio::test]
async fn what_comes_too_early_is_not_lost() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    // The client does not wait for its 101, and the app sends right behind its own.
    let request = [handshake("").as_bytes(), &masked("first")].concat();
    let mut client = proxy.connect();
    client.send(request).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send([switching("").as_bytes(), &plain("welcome")].concat()).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 101 Switching Protocols");
    client.expect(plain("welcome")).await;
    upstream.expect(masked("first")).await;
    client.send(masked("second")).await;
    upstream.expect(masked("second")).await;
    upstream.send(plain("reply")).await;
    client.expect(plain("reply")).await;
}

#[tokio::test]
async fn the_end_of_a_session_is_told_once_and_nothing_remains() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake("User-Agent: probe/1\r\n")).await;
    upstream.send(switching("")).await;
    client.head().await;
    client.send([masked("bye"), close(4001)].concat()).await;
    upstream.expect([masked("bye"), close(4001)].concat()).await;
    upstream.send([0x88, 2, 0x0f, 0xa1]).await;
    client.expect([0x88, 2, 0x0f, 0xa1]).await;
    drop((client, upstream));
    let line = log.line("ws.close").await;
    for (field, value) in [
        ("conn_id", "0000000100000001"),
        ("client.address", crate::support::CLIENT_ADDRESS),
        ("http.route", "/chat/"),
        ("url.path", "/chat/room"),
        ("user_agent.original", "probe/1"),
        ("tls.protocol.version", "1.3"),
        ("close.initiator", "client"),
        ("close.reason", "normal"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(line["client.port"], crate::support::CLIENT_PORT);
    assert_eq!((&line["close.code"], &line["upstream.close_code"]), (&4001.into(), &4001.into()), "{line}");
    assert_eq!((&line["bytes_in"], &line["msgs_in"]), (&17.into(), &1.into()), "{line}");
    assert_eq!((&line["bytes_out"], &line["msgs_out"]), (&4.into(), &0.into()), "{line}");
    assert!(line["duration_s"].is_f64(), "{line}");
    assert!(proxy.registry.is_empty());
    proxy.ended().await;
}

#[tokio::test]
async fn a_session_that_the_drain_overtakes_is_found_and_told() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut client, mut upstream, _) = asked(&proxy, &app, &handshake("")).await;
    proxy.draining.cancel();
    upstream.send(switching("")).await;
    let head = client.head().await;
    assert_eq!((&*head.line, head.get("connection")), ("HTTP/1.1 101 Switching Protocols", Some("Upgrade")));
    // The session runs until the drain closes it, which requires that the drain finds it.
    client.send([0x82, 0x80, 0, 0, 0, 0]).await;
    upstream.expect([0x82, 0x80, 0, 0, 0, 0]).await;
    let sessions = proxy.registry.all();
    assert_eq!(sessions.len(), 1);
    sessions[0].give(SessionOrder::Drain { code: 1001 });
    client.expect([0x88, 12, 0x03, 0xe9]).await;
    client.expect("going away").await;
    drop((client, upstream));
    proxy.ended().await;
}

#[tokio::test]
async fn an_extension_claims_its_bits_and_no_other() {
    for (accepted, frame, relayed) in [
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", [0xc1, 1, b'x'], true),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", [0xa1, 1, b'x'], false),
        ("Sec-WebSocket-Extensions: x-own\r\n", [0xa1, 1, b'x'], true),
        ("", [0xc1, 1, b'x'], false),
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let offer = handshake("Sec-WebSocket-Extensions: permessage-deflate, x-own\r\n");
        let (mut client, mut upstream, _) = asked(&proxy, &app, &offer).await;
        upstream.send([switching(accepted).as_bytes(), &frame].concat()).await;
        client.head().await;
        if relayed {
            client.expect(frame).await;
        } else {
            client.expect([0x88]).await;
        }
    }
}
