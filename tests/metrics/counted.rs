//! A run with sessions of every kind, and their counts.

use std::collections::BTreeSet;
use std::time::Duration;

use pulsegate_test_kit::client::{Neighbour, Tls, close_of, echo, next_message, upgrade_head};
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::proxy::{Proxy, QUICK};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::metrics::exposition::Exposition;
use crate::metrics::scrape::{assert_as_documented, assert_promtool_agrees, metrics, observed, text, until};
use crate::metrics::table::documented;

const ROUTES: &[&str] = &["/", "/closed/"];
const CLOSED: &str = "[[route]]\npath = \"/closed/\"\n[route.origins]\nallow = [\"https://app.example\"]\n";

/// Starts an app that echoes on `/echo`, holds WebSockets on `/hold`, refuses them on `/refused`, breaks off on
/// `/broken`, and answers everything else with 200.
async fn app() -> FakeApp {
    FakeApp::start(|request: RequestHead, mut stream: TcpStream| async move {
        match request.path() {
            "/hold" => {
                stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
                hold(stream).await;
            }
            "/refused" => answer(&mut stream, "403 Forbidden").await,
            "/broken" => {}
            _ => answer(&mut stream, "200 OK").await,
        }
    })
    .await
}

async fn answer(stream: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// Sends one request on a connection of its own.
async fn request(proxy: &Proxy, head: &str) -> u16 {
    let mut stream = proxy.tls().await;
    proxy.ask(&mut stream, format!("{head}\r\n").as_bytes()).await.status
}

#[tokio::test]
async fn every_sort_of_session_and_request_is_counted_as_what_it_is() {
    let app = app().await;
    let proxy = Proxy::start(observed(&app.url).with(QUICK).with(CLOSED)).await;

    talks_and_leaves(&proxy).await;
    falls_silent(&proxy).await;
    asks_in_vain(&proxy).await;
    assert_eq!(request(&proxy, "GET /hello?token=secret HTTP/1.1\r\nHost: localhost\r\n").await, 200);
    assert_eq!(request(&proxy, "GET /closed/x HTTP/1.1\r\nHost: localhost\r\n").await, 200);
    assert_eq!(request(&proxy, "POST /broken HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n").await, 502);
    speaks_no_tls(&proxy).await;

    let text = {
        until(&proxy, "all is over", |metrics| metrics.sum("pulsegate_connections_active", &[]) == 0).await;
        text(&proxy).await
    };
    let metrics = Exposition::read(&text);
    sessions_are_counted(&metrics);
    heartbeats_are_counted(&metrics);
    upgrades_are_counted(&metrics);
    requests_and_handshakes_are_counted(&metrics);
    assert_as_documented(&metrics, ROUTES);
    let written = metrics.samples().map(|sample| &*sample.name).collect::<BTreeSet<_>>();
    let documented = documented();
    let missing: Vec<_> = documented.iter().filter(|row| !written.iter().any(|name| row.is_of(name))).collect();
    assert!(missing.is_empty(), "a run of every sort does not show {missing:?}:\n{text}");
    assert!(!text.contains("secret") && !text.contains("hello"), "{text}");
    assert_promtool_agrees(&proxy).await;
    proxy.finish().await;
}

/// Runs a session that answers pings, sends 5 + 7 bytes, and closes.
async fn talks_and_leaves(proxy: &Proxy) {
    let mut websocket = proxy.websocket("/echo").await;
    // The 101 reaches the client a moment before its session begins.
    let active = |metrics: &Exposition| metrics.count("pulsegate_websockets_active", &[("route", "/")]) == 1;
    let during = until(proxy, "one session is active", active).await;
    assert_eq!(during.count("pulsegate_draining", &[]), 0);
    echo(&mut websocket, Message::text("hello")).await.expect("it echoes");
    echo(&mut websocket, Message::binary(vec![0; 7])).await.expect("it echoes");
    let answers = next_message(&mut websocket);
    tokio::select! {
        message = answers => panic!("an unexpected message: {message:?}"),
        _ = until(proxy, "a pong", |metrics| metrics.count("pulsegate_heartbeat_pongs_total", &[("route", "/")]) > 0) => {}
    }
    websocket.close(Some(CloseFrame { code: 4321.into(), reason: "".into() })).await.expect("it takes the Close");
    assert_eq!(close_of(&mut websocket).await.0, 4321);
    proxy.ws_close(|line| line["close.reason"] == "normal").await;
}

/// Runs a session whose client receives pings and sends nothing.
async fn falls_silent(proxy: &Proxy) {
    let silent = proxy.upgraded("/hold").await;
    proxy.ws_close(|line| line["close.reason"] == "heartbeat_timeout").await;
    drop(silent);
}

/// Sends upgrades that the proxy refuses, that the app refuses, and that the app breaks off.
async fn asks_in_vain(proxy: &Proxy) {
    let old = upgrade_head("/echo").replace("Version: 13", "Version: 8");
    assert_eq!(request(proxy, &old).await, 426);
    let foreign = format!("{}Origin: https://evil.example\r\n", upgrade_head("/closed/x"));
    assert_eq!(request(proxy, &foreign).await, 403);
    assert_eq!(request(proxy, &upgrade_head("/refused")).await, 403);
    assert_eq!(request(proxy, &upgrade_head("/broken")).await, 502);
}

/// Opens connections to the TLS port that fail the handshake.
async fn speaks_no_tls(proxy: &Proxy) {
    let mut http = proxy.tcp().await;
    http.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is taken");
    assert_eq!(wait_for("an answer", Response::read(&mut http)).await.expect("an answer").status, 400);
    let mut noise = proxy.tcp().await;
    noise.write_all(&[0xff; 64]).await.expect("it is taken");
    let gone = |metrics: &Exposition| metrics.sum("pulsegate_tls_handshakes_total", &[("outcome", "not_tls")]) == 1;
    until(proxy, "the noise is counted", gone).await;
}

fn sessions_are_counted(metrics: &Exposition) {
    let closed = |labels| metrics.sum("pulsegate_websockets_closed_total", labels);
    assert_eq!(closed(&[("initiator", "client"), ("reason", "normal"), ("code", "4xxx"), ("route", "/")]), 1);
    assert_eq!(closed(&[("initiator", "proxy"), ("reason", "heartbeat_timeout"), ("route", "/")]), 1);
    assert_eq!(metrics.count("pulsegate_websockets_active", &[("route", "/")]), 0);
    assert_eq!(metrics.count("pulsegate_websocket_duration_seconds_count", &[("route", "/")]), 2);
    for direction in ["in", "out"] {
        let labels = &[("direction", direction)];
        assert_eq!(metrics.count("pulsegate_messages_total", labels), 2);
        assert_eq!(metrics.count("pulsegate_payload_bytes_total", labels), 12, "no header, no ping, no Close");
        assert_eq!(metrics.count("pulsegate_buffered_bytes", labels), 0);
        assert_eq!(metrics.count("pulsegate_backpressure_pauses_total", labels), 0);
    }
}

fn heartbeats_are_counted(metrics: &Exposition) {
    let count = |name: &str| metrics.count(&format!("pulsegate_heartbeat_{name}"), &[("route", "/")]);
    let (sent, answered) = (count("pings_total"), count("pongs_total"));
    assert!(answered >= 1 && sent > answered, "{sent} pings, {answered} pongs: one client answered, one did not");
    assert_eq!(count("rtt_seconds_count"), answered, "every pong has a round trip");
    assert_eq!((count("missed_total") >= 1, count("timeouts_total")), (true, 1));
    assert_eq!(metrics.count("pulsegate_heartbeat_pings_total", &[("route", "/closed/")]), 0);
}

fn upgrades_are_counted(metrics: &Exposition) {
    let upgrades =
        |route, outcome| metrics.count("pulsegate_upgrades_total", &[("route", route), ("outcome", outcome)]);
    assert_eq!(upgrades("/", "opened"), 2);
    assert_eq!(upgrades("/", "rejected"), 1);
    assert_eq!(upgrades("/closed/", "rejected"), 1);
    assert_eq!(upgrades("/", "upstream_refused"), 1);
    assert_eq!(upgrades("/", "upstream_failed"), 1);
    assert_eq!(metrics.count("pulsegate_upgrade_duration_seconds_count", &[("route", "/")]), 2);
    for reason in ["version", "origin", "upstream_refused", "upstream_closed"] {
        assert_eq!(metrics.count("pulsegate_upgrade_rejections_total", &[("reason", reason)]), 1, "{reason}");
    }
    assert_eq!(metrics.sum("pulsegate_upgrade_rejections_total", &[]), 4);
}

fn requests_and_handshakes_are_counted(metrics: &Exposition) {
    let requests = |route, method, code| {
        metrics.count("pulsegate_http_requests_total", &[("route", route), ("method", method), ("code", code)])
    };
    let all = (requests("/", "GET", "200"), requests("/", "POST", "502"), requests("/closed/", "GET", "200"));
    assert_eq!(all, (1, 1, 1));
    assert_eq!(metrics.sum("pulsegate_http_requests_total", &[]), 3, "upgrades are not among them");
    let took =
        |metric: &str, route| metrics.count(&format!("pulsegate_{metric}_duration_seconds_count"), &[("route", route)]);
    assert_eq!((took("http_request", "/"), took("http_request", "/closed/")), (2, 1));
    assert_eq!((took("upstream_response", "/"), took("upstream_response", "/closed/")), (1, 1), "one got no answer");
    let connects = metrics.count("pulsegate_upstream_connect_duration_seconds_count", &[]);
    assert_eq!(connects, 7, "two sessions, two upgrades that came to the app, three requests");
    assert_eq!(metrics.sum("pulsegate_upstream_connect_errors_total", &[]), 0);
    assert_eq!(metrics.count("pulsegate_upstream_errors_total", &[("reason", "closed")]), 2);
    let handshakes = |outcome| metrics.sum("pulsegate_tls_handshakes_total", &[("outcome", outcome)]);
    assert_eq!((handshakes("ok"), handshakes("plain_http"), handshakes("not_tls")), (9, 1, 1));
    let hybrid = &[("outcome", "ok"), ("version", "1.3"), ("group", "X25519MLKEM768")];
    assert_eq!(metrics.count("pulsegate_tls_handshakes_total", hybrid), 9);
    assert_eq!(metrics.count("pulsegate_tls_handshake_duration_seconds_count", &[]), 9);
}

#[tokio::test]
async fn an_absent_app_is_distinguished_from_one_that_fails() {
    let mut app = app().await;
    let proxy = Proxy::start(observed(&app.url)).await;
    app.go_down().await;
    assert_eq!(request(&proxy, "GET / HTTP/1.1\r\nHost: localhost\r\n").await, 502);
    let metrics = metrics(&proxy).await;
    assert_eq!(metrics.count("pulsegate_upstream_connect_errors_total", &[("reason", "refused")]), 1);
    assert_eq!(metrics.count("pulsegate_upstream_errors_total", &[("reason", "refused")]), 1);
    assert_eq!(metrics.count("pulsegate_upstream_connect_duration_seconds_count", &[]), 0);
    proxy.finish().await;
}

#[tokio::test]
async fn a_drain_has_a_metric_while_it_lasts() {
    let app = app().await;
    let proxy = Proxy::start(observed(&app.url).drain("delay = \"5s\"").drain("window = \"0s\"")).await;
    proxy.terminate();
    let metrics = until(&proxy, "the drain", |metrics| metrics.count("pulsegate_draining", &[]) == 1).await;
    assert_eq!(metrics.count("pulsegate_config_last_reload_successful", &[]), 1);
    let mut proxy = proxy;
    let status = proxy.exit_within(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", proxy.transcript());
}

#[tokio::test]
async fn what_a_slow_client_does_not_take_is_counted_as_held_and_as_a_pause() {
    let app = FakeApp::start(|request: RequestHead, mut stream: TcpStream| async move {
        stream.write_all(request.accept().as_bytes()).await.expect("answer the upgrade");
        // One message that no socket buffers hold: 64 MiB.
        let mut message = vec![0x82, 127];
        message.extend((64_u64 << 20).to_be_bytes());
        message.resize(message.len() + (64 << 20), 0);
        let _ = stream.write_all(&message).await;
        hold(stream).await;
    })
    .await;
    let proxy = Proxy::start(observed(&app.url)).await;
    let mut slow = proxy.upgraded("/flood").await;
    let is_held = |metrics: &Exposition| metrics.count("pulsegate_buffered_bytes", &[("direction", "out")]) > 0;
    let metrics = until(&proxy, "bytes are held", is_held).await;
    assert!(metrics.count("pulsegate_backpressure_pauses_total", &[("direction", "out")]) >= 1);
    assert_eq!(metrics.count("pulsegate_backpressure_pauses_total", &[("direction", "in")]), 0);
    slow.shutdown().await.expect("it may go");
    drop(slow);
    until(&proxy, "nothing is held", |metrics| !is_held(metrics)).await;
    proxy.finish().await;
}

/// Asserts that a session that ends by `lose` is counted once as `client_lost`.
async fn is_lost(proxy: &Proxy, count: u64, lose: impl AsyncFnOnce(Tls)) {
    lose(proxy.upgraded("/hold").await).await;
    let labels = &[("initiator", "client"), ("reason", "client_lost"), ("code", "1006"), ("route", "/")];
    until(proxy, &format!("{count} lost clients"), |metrics| {
        metrics.sum("pulsegate_websockets_closed_total", labels) == count
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_without_a_close_is_lost_and_comes_back() {
    let app = app().await;
    let proxy = Proxy::start(observed(&app.url).with(CLOSED)).await;
    let reconnects = |metrics: &Exposition| metrics.count("pulsegate_reconnects_total", &[("route", "/")]);
    is_lost(&proxy, 1, async |stream: Tls| {
        stream.get_ref().0.set_zero_linger().expect("it is open");
        drop(stream);
    })
    .await;
    assert_eq!(reconnects(&metrics(&proxy).await), 0, "no client was there before");
    is_lost(&proxy, 2, async |mut stream: Tls| stream.shutdown().await.expect("it is open")).await;
    is_lost(&proxy, 3, async |stream: Tls| drop(stream)).await;
    assert_eq!(reconnects(&metrics(&proxy).await), 2);
    // Another program at the same address.
    let mut other = proxy.tls().await;
    let head = format!("{}User-Agent: another\r\n\r\n", upgrade_head("/hold"));
    assert_eq!(proxy.ask(&mut other, head.as_bytes()).await.status, 101);
    let opened = |metrics: &Exposition| metrics.count("pulsegate_websockets_active", &[("route", "/")]) == 1;
    assert_eq!(reconnects(&until(&proxy, "a session", opened).await), 2);
    let normal = metrics(&proxy).await.sum("pulsegate_websockets_closed_total", &[("reason", "normal")]);
    assert_eq!(normal, 0, "{}", proxy.transcript());
    drop(other);
    proxy.finish().await;
}

#[tokio::test]
async fn the_apps_own_round_trip_is_measured_on_its_sessions() {
    let app = app().await;
    let watch = "interval = \"200ms\"\ntimeout = \"10s\"";
    let proxy = Proxy::start(observed(&app.url).upstream(watch).with("[heartbeat]\nmode = \"off\"\n")).await;
    let websocket = Neighbour::join(&proxy, "/echo").await;
    let rtt = |metrics: &Exposition| metrics.count("pulsegate_upstream_rtt_seconds_count", &[("route", "/")]);
    until(&proxy, "two pongs of the app", |metrics| rtt(metrics) >= 2).await;
    drop(websocket);
    proxy.finish().await;
}

#[tokio::test]
async fn the_process_is_described_as_its_kernel_sees_it() {
    let app = app().await;
    let proxy = Proxy::start(observed(&app.url)).await;
    let read = async || {
        let metrics = metrics(&proxy).await;
        move |name: &str| -> f64 {
            let sample = metrics.samples().find(|sample| sample.name == name);
            sample.unwrap_or_else(|| panic!("no {name}")).value.parse().expect("a number")
        }
    };
    let value = read().await;
    let resident = value("process_resident_memory_bytes");
    assert!((1e6..1e10).contains(&resident), "{resident} bytes");
    assert!(value("process_virtual_memory_bytes") > resident);
    let open = value("process_open_fds");
    assert!(open > 5.0 && open < value("process_max_fds"), "{open}");
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(proxy.tls().await);
    }
    let more = read().await("process_open_fds");
    // Other descriptors open and close: the connection of a scrape, a file of a check.
    assert!((open + 15.0..open + 40.0).contains(&more), "{open}, and {more} with 20 clients");
    drop(clients);
    assert!(value("process_threads") >= 3.0);
    assert!(value("process_cpu_seconds_total") > 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((0.0..120.0).contains(&age), "{age}");
    proxy.finish().await;
}
