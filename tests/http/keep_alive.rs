//! A client's connection between two requests.

use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::pool::{GET, OK, answered, warm};
use crate::support::{App, LogPage, Proxy, Wire};

/// Longer than a connection stays with the library that serves it.
const PARKED: Duration = Duration::from_millis(500);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Starts a proxy before `app` with a timeout of a tenth of a second for heads.
fn impatient(app: &App) -> Proxy {
    Proxy::with(app.target(), |settings| settings.limits.header_read = 100 * MILLISECOND)
}

/// Returns a client whose first request was answered, and the app's end of that.
async fn kept(proxy: &Proxy, app: &App) -> (Wire<DuplexStream>, Wire<TcpStream>) {
    let mut client = proxy.connect();
    let upstream = warm(app, &mut client).await;
    (client, upstream)
}

#[tokio::test]
async fn it_is_kept_for_longer_than_a_head_may_take() {
    let app = App::start().await;
    let proxy = impatient(&app);
    let (mut client, mut upstream) = kept(&proxy, &app).await;
    for _ in 0..3 {
        assert!(client.is_silent_for(PARKED).await);
        client.send(GET).await;
        answered(&mut upstream, &mut client).await;
    }
    drop(client);
    proxy.ended().await;
}

#[tokio::test]
async fn it_is_closed_in_silence_after_keep_alive() {
    let app = App::start().await;
    for keep_alive in [50, 400] {
        let proxy = Proxy::with(app.target(), |settings| settings.limits.keep_alive = keep_alive * MILLISECOND);
        let (mut client, _upstream) = kept(&proxy, &app).await;
        let since = Instant::now();
        assert_eq!(client.rest().await, "");
        let passed = since.elapsed();
        assert!(passed + 10 * MILLISECOND >= keep_alive * MILLISECOND, "{passed:?} of {keep_alive} ms");
    }
}

#[tokio::test]
async fn the_next_head_has_its_own_time_wherever_it_begins() {
    for pause in [Duration::ZERO, PARKED] {
        let app = App::start().await;
        let proxy = impatient(&app);
        let log = LogPage::open();
        let (mut client, _upstream) = kept(&proxy, &app).await;
        tokio::time::sleep(pause).await;
        client.send("GET / HTTP/1.1\r\nHos").await;
        assert_eq!(client.head().await.line, "HTTP/1.1 408 Request Timeout", "after {pause:?}");
        assert_eq!(client.rest().await, "The head of the request took too long.\n");
        assert_eq!(log.line("http.reject").await["reason"], "header_timeout");
    }
}

#[tokio::test]
async fn the_next_request_may_arrive_byte_by_byte() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut client, mut upstream) = kept(&proxy, &app).await;
    assert!(client.is_silent_for(PARKED).await);
    for byte in GET.as_bytes() {
        client.send([*byte]).await;
        tokio::time::sleep(2 * MILLISECOND).await;
    }
    answered(&mut upstream, &mut client).await;
}

#[tokio::test]
async fn the_beginning_of_a_request_behind_another_is_not_lost() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(format!("{GET}GET /half HT")).await;
    let mut upstream = app.accept().await;
    answered(&mut upstream, &mut client).await;
    assert!(client.is_silent_for(PARKED).await);
    client.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(upstream.head().await.line, "GET /half HTTP/1.1");
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    client.expect("ok").await;
}

#[tokio::test]
async fn empty_lines_behind_a_request_begin_none() {
    let app = App::start().await;
    let proxy = impatient(&app);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n").await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.expect("x").await;
    upstream.send(OK).await;
    client.head().await;
    client.expect("ok").await;
    assert!(client.is_silent_for(PARKED).await);
    client.send(GET).await;
    answered(&mut upstream, &mut client).await;
}

#[tokio::test]
async fn an_upload_that_outlasts_its_response_is_not_idle() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| {
        settings.limits.header_read = 200 * MILLISECOND;
        settings.limits.keep_alive = 100 * MILLISECOND;
    });
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    client.head().await;
    client.expect("ok").await;
    for byte in ["a", "b", "c", "d", "e", "f"] {
        assert!(client.is_silent_for(150 * MILLISECOND).await, "before {byte}");
        client.send(byte).await;
        upstream.expect(byte).await;
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_drain_closes_it_and_a_request_that_comes_before_is_answered() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.drain.window = Duration::from_secs(30));
    let (mut client, mut upstream) = kept(&proxy, &app).await;
    let (mut idle, _upstream) = kept_beside(&proxy, &app, &mut client, &mut upstream).await;
    assert!(client.is_silent_for(PARKED).await);
    proxy.draining.cancel();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.head().await.get("connection"), Some("close"));
    client.expect("ok").await;
    assert_eq!((client.rest().await, idle.rest().await), (String::new(), String::new()));
    proxy.ended().await;
}

/// As [`kept`] while the app's only connection is in use, so that this one has its own.
async fn kept_beside(
    proxy: &Proxy,
    app: &App,
    busy: &mut Wire<DuplexStream>,
    upstream: &mut Wire<TcpStream>,
) -> (Wire<DuplexStream>, Wire<TcpStream>) {
    busy.send(GET).await;
    upstream.head().await;
    let other = kept(proxy, app).await;
    upstream.send(OK).await;
    busy.head().await;
    busy.expect("ok").await;
    other
}
