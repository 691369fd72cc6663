//! Upstream connections between requests.

use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::support::{App, Proxy, Wire};

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends a first request and answers it, so that its connection is pooled.
pub async fn warm(app: &App, client: &mut Wire<DuplexStream>) -> Wire<TcpStream> {
    client.send(GET).await;
    let mut upstream = app.accept().await;
    answered(&mut upstream, client).await;
    upstream
}

pub async fn answered(upstream: &mut Wire<TcpStream>, client: &mut Wire<DuplexStream>) {
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    client.expect("ok").await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut one, mut other) = (proxy.connect(), proxy.connect());
    let mut upstream = warm(&app, &mut one).await;
    other.send(GET).await;
    answered(&mut upstream, &mut other).await;
    one.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    one.head().await;
    one.expect("2\r\nok\r\n0\r\n\r\n").await;
    one.send(GET).await;
    answered(&mut upstream, &mut one).await;
}

#[tokio::test]
async fn two_requests_at_once_take_two_connections() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut one, mut other) = (proxy.connect(), proxy.connect());
    one.send(GET).await;
    let mut first = app.accept().await;
    other.send(GET).await;
    let mut second = app.accept().await;
    answered(&mut second, &mut other).await;
    answered(&mut first, &mut one).await;
}

#[tokio::test]
async fn a_get_lost_to_the_apps_idle_timeout_is_sent_once_more() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let mut upstream = warm(&app, &mut client).await;
    client.send(GET).await;
    upstream.head().await;
    drop(upstream);
    let mut fresh = app.accept().await;
    answered(&mut fresh, &mut client).await;
}

#[tokio::test]
async fn it_is_sent_once_more_and_no_more() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let mut upstream = warm(&app, &mut client).await;
    client.send(GET).await;
    upstream.head().await;
    drop(upstream);
    let mut fresh = app.accept().await;
    fresh.head().await;
    drop(fresh);
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    client.expect("502 Bad Gateway: closed\n").await;
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn what_may_have_taken_effect_is_not_repeated() {
    let body = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    for (request, answer) in [(POST, ""), (body, ""), (GET, "HTTP/1.1 20")] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let mut client = proxy.connect();
        let mut upstream = warm(&app, &mut client).await;
        client.send(request).await;
        upstream.head().await;
        if request == body {
            upstream.expect("x").await;
        }
        upstream.send(answer).await;
        drop(upstream);
        assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway", "{request:?} {answer:?}");
        assert!(!app.is_dialled_within(Duration::from_millis(50)).await, "{request:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_first_connection_that_closes_is_the_apps_answer() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(GET).await;
    app.accept().await.head().await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_connection_that_the_app_closed_is_not_used() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    drop(warm(&app, &mut client).await);
    // A POST would fail if it were sent there.
    client.send(POST).await;
    answered(&mut app.accept().await, &mut client).await;
}

#[tokio::test]
async fn the_apps_keep_alive_timeout_is_undercut() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    for (announced, kept) in [(1, Duration::ZERO), (2, Duration::from_secs(1))] {
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        let response = format!("HTTP/1.1 200 OK\r\nKeep-Alive: timeout={announced}\r\nContent-Length: 2\r\n\r\nok");
        upstream.send(response).await;
        client.head().await;
        client.expect("ok").await;
        let begun = Instant::now();
        assert_eq!(upstream.rest().await, "", "the proxy closes first");
        let idle = begun.elapsed();
        // Half of its timeout is reserved for the app's own clock.
        assert!(idle + Duration::from_millis(100) > kept, "closed after {idle:?} of {announced} s");
        assert!(idle < kept + Duration::from_millis(900), "closed after {idle:?} of {announced} s");
    }
}

#[tokio::test]
async fn a_drain_closes_what_is_idle() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let mut upstream = warm(&app, &mut client).await;
    drop(client);
    let begun = Instant::now();
    proxy.draining.cancel();
    assert_eq!(upstream.rest().await, "");
    assert!(begun.elapsed() < Duration::from_secs(3), "not by its idle timeout");
    proxy.ended().await;
}
