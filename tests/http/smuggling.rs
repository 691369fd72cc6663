//! Requests that two parsers might split in different places (RFC 9112 §11.2). Each is refused, or forwarded in one
//! unambiguous form: the app reads as one request what the proxy read as one.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{App, LogPage, Proxy};

/// The bytes behind a request, which a parser that misses its true end takes for another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n";

/// Asserts that `head` is answered with `expected`, and that neither it nor `rest` is forwarded.
async fn refused(head: &str, rest: &str, expected: &str) {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(format!("{head}\r\n{rest}")).await;
    let answer = client.head().await;
    assert_eq!(answer.line, format!("HTTP/1.1 {expected}"), "{head:?}");
    let status: u16 = expected[..3].parse().unwrap();
    // A malformed request has a line of its own.
    let line = if status == 400 { log.line("http.reject").await } else { log.line("http.access").await };
    assert_eq!(line["http.response.status_code"], status, "{line}");
    assert!(line["reason"].is_string(), "{line}");
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await, "{head:?} went on to the app");
}

#[tokio::test]
async fn framing_that_can_be_read_in_two_ways_is_refused() {
    let post = "POST / HTTP/1.1\r\nHost: app.example\r\n";
    for fields in [
        // Two lengths, on one line or two.
        "Content-Length: 3\r\nContent-Length: 0\r\n",
        "Content-Length: 3, 0\r\n",
        // Lengths that some parsers accept as numbers.
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3 0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        // A field that some parsers take for another one.
        "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n",
        " Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Transfer\u{b}Encoding: chunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: \u{b}chunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked\0\r\nContent-Length: 3\r\n",
        // A value over two lines (obs-fold, RFC 9112 §5.2).
        "Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n",
        "X-Folded: a\r\n b\r\nContent-Length: 3\r\n",
        // A coding that is not chunked in the end has no end of its own (RFC 9112 §6.3).
        "Transfer-Encoding: chunked, identity\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: gzip\r\n",
        // No name, and no field at all.
        ": chunked\r\n",
        "Transfer-Encoding\r\n",
    ] {
        refused(&format!("{post}{fields}"), &format!("abc{SMUGGLED}"), "400 Bad Request").await;
    }
}

#[tokio::test]
async fn codings_that_nobody_would_undo_are_refused() {
    for fields in ["Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"]
    {
        let head = format!("POST / HTTP/1.1\r\nHost: app.example\r\n{fields}");
        refused(&head, "0\r\n\r\n", "501 Not Implemented").await;
    }
}

#[tokio::test]
async fn an_http_1_0_request_has_no_chunks() {
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}"), "400 Bad Request")
        .await;
}

#[tokio::test]
async fn request_lines_of_another_kind_are_refused() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET / HTTP/2.0",
        "GET / HTTP/1.2",
        "GET /\tHTTP/1.1",
        "GE T / HTTP/1.1",
        "GET / http/1.1",
    ] {
        refused(&format!("{line}\r\nHost: app.example\r\n"), SMUGGLED, "400 Bad Request").await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_end_the_request() {
    for body in [
        "3\nabc\n0\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n",
        "3 3\r\nabc\r\n",
        "ffffffffffffffff1\r\na",
        "3\r\nabcd\r\n0\r\n\r\n",
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let mut client = proxy.connect();
        let head = "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n";
        client.send(format!("{head}\r\n{body}{SMUGGLED}")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 400 Bad Request", "{body:?}");
        // The app may have received the beginning.
        if let Ok(mut upstream) = timeout(Duration::from_millis(50), app.accept()).await {
            let came = upstream.rest().await;
            assert!(!came.contains("smuggled") && !came.ends_with("0\r\n\r\n"), "{body:?} became {came:?}");
        }
        assert!(!app.is_dialled_within(Duration::from_millis(50)).await, "{body:?}");
    }
}

#[tokio::test]
async fn a_line_of_a_head_that_ends_in_two_ways_is_refused() {
    for (line, fields) in [
        // A bare CR ends a line for some parsers.
        ("GET / HTTP/1.1\rX-Hidden: 1", ""),
        ("GET /\r HTTP/1.1", ""),
        ("GET\r/ HTTP/1.1", ""),
        ("GET / HTTP/1.1\r", ""),
        ("POST / HTTP/1.1", "X: a\rTransfer-Encoding: chunked\r\n"),
        ("POST / HTTP/1.1", "X: a\r\r\nContent-Length: 3\r\n"),
        ("POST / HTTP/1.1", "X: a\r\r\n\r\n"),
        ("POST / HTTP/1.1", "\rContent-Length: 3\r\n"),
        ("POST / HTTP/1.1", "Content-Length: 3\r\n\r"),
        ("POST / HTTP/1.1", "Content-Length\r: 3\r\n"),
        // A bare LF ends the line, before a continuation line for other parsers (obs-fold).
        ("POST / HTTP/1.1", "Transfer-Encoding:\n chunked\r\nContent-Length: 3\r\n"),
        ("POST / HTTP/1.1", "X: a\n\tb\nContent-Length: 3\r\n"),
        ("POST / HTTP/1.1", "\tX: a\r\nContent-Length: 3\r\n"),
        ("POST / HTTP/1.1", "X: a\r\n \r\nContent-Length: 3\r\n"),
        // Other line ends, and bytes that hide those behind them.
        ("POST / HTTP/1.1", "X: a\u{b}Transfer-Encoding: chunked\r\n"),
        ("POST / HTTP/1.1", "X: a\0Transfer-Encoding: chunked\r\n"),
        ("GET /\n HTTP/1.1", ""),
        ("GET /", ""),
    ] {
        let head = format!("{line}\r\nHost: app.example\r\n{fields}");
        refused(&head, &format!("abc{SMUGGLED}"), "400 Bad Request").await;
    }
}

#[tokio::test]
async fn a_line_of_a_chunked_body_that_ends_in_two_ways_is_refused() {
    for body in [
        // The empty line behind the last chunk, and trailers.
        "0\r\n\n",
        "0\r\n\r\r\n",
        "0\r\n\rX",
        "0\r\nX-T: 1\n\r\n",
        "0\r\nX-T: 1\n\n",
        "0\r\nX-T: 1\r\n\n",
        "0\r\nX-T: 1\r\r\n\r\n",
        "0\r\nX-T: 1\rX-U: 2\r\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        // Sizes and extensions.
        "0\n\r\n",
        "0\n\n",
        "0\r\r\n\r\n",
        "0 \n\r\n",
        "0;a\n\r\n",
        "0;a=\"\n\"\r\n\r\n",
        "0;a\rb\r\n\r\n",
        // The end of a chunk.
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
    ] {
        for size in [1, 4096] {
            let app = App::start().await;
            let proxy = Proxy::before(&app);
            let mut client = proxy.connect();
            let head = "POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n";
            for piece in format!("{head}\r\n{body}{SMUGGLED}").as_bytes().chunks(size) {
                client.send(piece).await;
            }
            let answer = client.head().await;
            assert_eq!(answer.line, "HTTP/1.1 400 Bad Request", "{body:?}");
            let rest = client.rest().await;
            assert!(!rest.contains("HTTP/1.1"), "{body:?}: the connection went on: {rest:?}");
            if let Ok(mut upstream) = timeout(Duration::from_millis(50), app.accept()).await {
                let came = upstream.rest().await;
                assert!(!came.contains("smuggled") && !came.ends_with("0\r\n\r\n"), "{body:?} became {came:?}");
            }
            assert!(!app.is_dialled_within(Duration::from_millis(50)).await, "{body:?}");
        }
    }
}

#[tokio::test]
async fn lengths_that_not_every_reader_can_hold_are_refused() {
    for length in ["9223372036854775808", "18446744073709551613", "18446744073709551615", "18446744073709551616"] {
        let head = format!("POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: {length}\r\n");
        refused(&head, SMUGGLED, "400 Bad Request").await;
    }
}

/// The body of one request at the app, and its framing.
struct Framing {
    length: Option<&'static str>,
    coding: Option<&'static str>,
    body: &'static str,
}

#[tokio::test]
async fn what_is_let_through_goes_on_in_one_form() {
    let chunked = |body| Framing { length: None, coding: Some("chunked"), body };
    let length = |length, body| Framing { length: Some(length), coding: None, body };
    for (fields, body, expected) in [
        // A length beside chunks is dropped (RFC 9112 §6.3), in either order.
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            chunked("3\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            chunked("3\r\nabc\r\n0\r\n\r\n"),
        ),
        // A repeated length is one length.
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "abc", length("3", "abc")),
        ("Transfer-Encoding: CHUNKED \r\n", "3\r\nabc\r\n0\r\n\r\n", chunked("3\r\nabc\r\n0\r\n\r\n")),
        // Extensions of chunks end here (RFC 9112 §7.1.1).
        ("Transfer-Encoding: chunked\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n", chunked("3\r\nabc\r\n0\r\n\r\n")),
        // Lines may end in a bare LF (RFC 9112 §2.2), and do not when they are forwarded.
        ("Content-Length: 3\nX-Bare: 1\n", "abc", length("3", "abc")),
        // A framing field is not hop by hop because Connection names it.
        ("Connection: content-length\r\nContent-Length: 3\r\n", "abc", length("3", "abc")),
        (
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            chunked("3\r\nabc\r\n0\r\n\r\n"),
        ),
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n{body}{SMUGGLED}")).await;
        let mut upstream = app.accept().await;
        let head = upstream.head().await;
        assert_eq!(head.line, "POST / HTTP/1.1", "{fields:?}");
        assert_eq!(head.get("content-length"), expected.length, "{fields:?}");
        assert_eq!(head.get("transfer-encoding"), expected.coding, "{fields:?}");
        upstream.expect(expected.body).await;
        // The rest is a request of its own to the proxy too, sent to the app only after the answer to this one.
        assert!(upstream.is_silent_for(Duration::from_millis(50)).await, "{fields:?}");
    }
}

#[tokio::test]
async fn what_protects_the_app_cannot_be_nominated_away() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let nominated = "host, x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded, x-request-id, \
        x-forwarded-client-cert, x-pulsegate-connection-id";
    client.send(format!("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: {nominated}\r\n\r\n")).await;
    let head = app.accept().await.head().await;
    for (name, value) in [
        ("host", "app.example"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example"),
    ] {
        assert_eq!(head.get(name), Some(value), "{head:?}");
    }
    assert_eq!(head.get("x-request-id").map(str::len), Some(32), "{head:?}");
}

#[tokio::test]
async fn an_answer_cannot_be_followed_by_another_one() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET /first HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    upstream.send(format!("{answer}{}", answer.replace("ok", "no"))).await;
    client.head().await;
    client.expect("ok").await;
    // The connection with the unsolicited answer is not used again.
    client.send("GET /second HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    let mut fresh = app.accept().await;
    assert_eq!(fresh.head().await.line, "GET /second HTTP/1.1");
    fresh.send(answer).await;
    client.head().await;
    client.expect("ok").await;
}
