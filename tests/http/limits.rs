//! Requests that are malformed, or too large.

use std::time::{Duration, Instant};

use crate::support::{App, LogPage, Proxy};

#[tokio::test]
async fn garbage_gets_400_and_a_line() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 400 Bad Request");
    assert_eq!(client.rest().await, "");
    let line = log.line("http.reject").await;
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"malformed".into(), &400.into()));
}

#[tokio::test]
async fn a_head_too_large_gets_431_though_the_client_is_still_sending() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect_through(1024);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(100_000));
    // With a buffer of a kilobyte on the way, sending succeeds only if the proxy reads all of it.
    client.send(head).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 431 Request Header Fields Too Large");
    assert_eq!(log.line("http.reject").await["reason"], "too_large");
}

#[tokio::test]
async fn too_many_fields_get_431() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100))).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 431 Request Header Fields Too Large");
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.limits.header_read = Duration::from_millis(50));
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost:").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 408 Request Timeout");
    assert_eq!(client.rest().await, "The head of the request took too long.\n");
    assert_eq!(log.line("http.reject").await["reason"], "header_timeout");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_without_a_word() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.limits.header_read = Duration::from_millis(50));
    let mut client = proxy.connect();
    assert_eq!(client.rest().await, "", "browsers open connections ahead of time; that is no offence");
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_refused_with_a_word() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: :8443\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "400 Bad Request", "host"),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "400 Bad Request", "host"),
        ("GET http://user:word@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request", "host"),
        ("GET https://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", "400 Bad Request", "host"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "400 Bad Request", "host"),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 Bad Request", "host"),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501 Not Implemented",
            "transfer_encoding",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405 Method Not Allowed", "connect"),
    ] {
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(request).await;
        assert_eq!(client.head().await.line, format!("HTTP/1.1 {status}"), "{request:?}");
        client.expect(format!("{status}: {reason}\n")).await;
        let line = log.line("http.access").await;
        assert_eq!((&line["reason"], &line["complete"]), (&reason.into(), &true.into()), "{line}");
    }
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_uploading() {
    let gone = App::start().await.target();
    let proxy = Proxy::with(gone, |_| {});
    let mut client = proxy.connect_through(1024);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
    client.send(vec![b'x'; 300_000]).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test]
async fn a_host_may_be_an_address_and_have_a_port() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for host in ["a", "my_app.internal:3000", "127.0.0.1:65535", "[::1]:8443", "[2001:db8::1]", "a.example.", "a:"] {
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(app.accept().await.head().await.get("host"), Some(host));
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off_with_408() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.limits.header_read = Duration::from_millis(50));
    for framing in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n"] {
        let log = LogPage::open();
        let begun = Instant::now();
        let mut client = proxy.connect();
        client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        // Single bytes do not extend the time.
        for _ in 0..3 {
            client.send("x").await;
            assert!(client.is_silent_for(Duration::from_millis(20)).await);
        }
        assert_eq!(client.head().await.line, "HTTP/1.1 408 Request Timeout", "{framing:?}");
        assert!(begun.elapsed() >= Duration::from_millis(290), "after {:?} already", begun.elapsed());
        assert!(client.rest().await.ends_with("408 Request Timeout: body_timeout\n"));
        upstream.rest().await;
        let line = log.line("http.access").await;
        assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"body_timeout".into(), &408.into()));
    }
    assert!(
        proxy.counts(r#"pulsegate_http_requests_total{route="/",method="POST",code="408"} 2"#),
        "{}",
        proxy.metrics.encode()
    );
    assert_eq!(proxy.metrics.totals().upstream_errors, 0, "the app is not to blame");
}

#[tokio::test]
async fn a_body_that_the_app_does_not_take_is_nobodys_fault() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.limits.header_read = Duration::from_millis(50));
    let mut client = proxy.connect_through(1024);
    let body = vec![b'x'; 16_000_000];
    let upload = async {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        client.send(&body).await;
    };
    let take = async {
        let mut upstream = app.accept().await;
        upstream.head().await;
        // Longer than the client's timeout: its bytes fill every buffer on the way meanwhile.
        tokio::time::sleep(Duration::from_millis(600)).await;
        upstream.expect(&body).await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        upstream
    };
    let _upstream = tokio::join!(upload, take);
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}
