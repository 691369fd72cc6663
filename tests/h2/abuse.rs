//! What a client may not do, with a neighbour on the same connection or another.

use http::{HeaderValue, Method, Request, Version};
use pulsegate_test_kit::client::Neighbour;
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::http2::{Http2Client, extended, request};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_until;

use crate::PULSEGATE;
use crate::h2::raw::{
    self, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PROTOCOL_ERROR, REFUSED_STREAM,
    RST_STREAM, Raw,
};

async fn proxy(sections: &str) -> (FakeApp, Proxy) {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with(sections)).await;
    (fake, proxy)
}

#[tokio::test]
async fn what_connect_is_not_for_is_refused() {
    let (_fake, proxy) = proxy("").await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut neighbour = client.websocket("/echo").await;

    let plain = Request::builder().version(Version::HTTP_2).method(Method::CONNECT).uri("localhost:443");
    let answer = client.ask_on(plain.body(()).expect("a sound request")).await;
    assert_eq!((answer.status, &*answer.body), (405, "405 Method Not Allowed: connect\n"));

    let answer = client.ask_on(extended("connect-udp", "/masque")).await;
    assert_eq!((answer.status, &*answer.body), (501, "501 Not Implemented: protocol\n"));

    let mut old = extended("websocket", "/raw");
    old.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("8"));
    let answer = client.ask_on(old).await;
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, Some("13")));
    assert!(!answer.headers.contains_key("upgrade"), "{answer:?}");

    // A stream whose client has nothing more to send is no WebSocket.
    assert_eq!(client.ask(extended("websocket", "/raw")).await.status, 400);
    neighbour.echoes("after all that").await;
    // A thread of its own writes the log, perhaps behind the answers.
    let rejected = || proxy.logged("ws.reject").iter().map(|line| line["reason"].clone()).collect::<Vec<_>>();
    wait_until("both are logged", rejected, |rejected| rejected[..] == ["version", "bad_request"]).await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_request_that_is_malformed_costs_its_stream_alone() {
    let (_fake, proxy) = proxy("").await;
    let mut client = Raw::connect(&proxy).await;
    let get = raw::get("/");
    let with = |field: (&'static str, &'static str)| get.iter().copied().chain([field]).collect::<Vec<_>>();
    let without = |name: &str| get.iter().copied().filter(|(field, _)| *field != name).collect::<Vec<_>>();
    let mut stream = 1;
    for fields in [
        // RFC 9113 §8.2.2: HTTP/2 has no Upgrade, and nothing of its kind.
        with(("upgrade", "websocket")),
        with(("connection", "upgrade")),
        with(("transfer-encoding", "chunked")),
        with(("te", "gzip")),
        with(("keep-alive", "timeout=5")),
        // §8.3.1: pseudo-header fields that are missing, repeated, unknown, or of a response.
        without(":method"),
        without(":scheme"),
        without(":path"),
        with((":path", "/other")),
        with((":status", "200")),
        // RFC 8441 §4: `:protocol` belongs to a CONNECT.
        with((":protocol", "websocket")),
        // §8.1.1: a length that is not that of the body.
        with(("content-length", "5")),
    ] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&fields)).await;
        let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (stream, Some(PROTOCOL_ERROR)), "{fields:?}");
        stream += 2;
    }
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&get)).await;
    let answer = client.until("an answer", |frame| frame.kind == HEADERS).await;
    assert_eq!(answer.stream, stream);

    // §8.2.1: a name in capitals. The library ends the connection, as it may (§5.4.2).
    client.send(HEADERS, END_HEADERS | END_STREAM, stream + 2, &raw::block(&with(("X-Capital", "1")))).await;
    assert_eq!(client.goaway().await, PROTOCOL_ERROR);
    let line = proxy.line("a line", |line| line.json["message"] == "http2.goaway").await.json;
    assert_eq!(line["reason"], "protocol_error", "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn a_host_that_contradicts_the_authority_is_a_bad_request() {
    let fake = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).tls("hsts = \"1h\"")).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut get = request(Method::GET, "/");
    get.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
    let refused = client.ask(get).await;
    assert_eq!((refused.status, refused.header("strict-transport-security")), (400, Some("max-age=3600")));
    let line = proxy.line("its access line", |line| line.json["message"] == "http.access").await.json;
    assert_eq!(line["reason"], "host", "{line}");
    assert_eq!(client.get("/").await.status, 200);
    proxy.finish().await;
}

#[tokio::test]
async fn heads_are_bounded_as_in_http_1() {
    let (_fake, proxy) = proxy("[limits]\nheaders = 10\nheader_bytes = \"8KiB\"\n").await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut many = request(Method::GET, "/");
    for number in 0..11 {
        many.headers_mut()
            .append(http::HeaderName::try_from(format!("x-{number}")).expect("a name"), HeaderValue::from_static("1"));
    }
    assert_eq!(client.ask(many).await.status, 431);
    let mut long = request(Method::GET, "/");
    long.headers_mut().insert("x-long", HeaderValue::try_from("x".repeat(8200)).expect("a value"));
    assert_eq!(client.ask(long).await.status, 431);
    for line in proxy.logged("http.access") {
        assert_eq!(line["reason"], "too_large", "{line}");
    }
    // So long that the library refuses it, beyond what SETTINGS_MAX_HEADER_LIST_SIZE allows.
    let mut endless = request(Method::GET, "/");
    endless.headers_mut().insert("x-long", HeaderValue::try_from("x".repeat(10_000)).expect("a value"));
    assert_eq!(client.ask(endless).await.status, 431);
    assert_eq!(client.get("/").await.status, 200);
    proxy.finish().await;
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let (_fake, proxy) = proxy("").await;
    let neighbour = Neighbour::join(&proxy, "/echo").await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, 0, 1, &raw::block(&raw::get("/"))).await;
    let flood = raw::frame(CONTINUATION, 0, 1, b"").repeat(2000);
    client.write(&flood).await;
    assert_eq!(client.goaway().await, ENHANCE_YOUR_CALM);
    proxy.line("a line", |line| line.json["message"] == "http2.goaway").await;
    neighbour.echoes().await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up() {
    let (_fake, proxy) = proxy("[limits]\nheader_read = \"500ms\"\n").await;
    let mut client = Raw::connect(&proxy).await;
    client.send(HEADERS, 0, 1, &raw::block(&raw::get("/"))).await;
    assert_eq!(client.goaway().await, ENHANCE_YOUR_CALM);
    let line = proxy.line("a line", |line| line.json["message"] == "http2.goaway").await.json;
    assert_eq!(line["reason"], "header_timeout", "{line}");

    let mut silent = pulsegate_test_kit::http2::tls(&proxy).await;
    pulsegate_test_kit::http2::rest(&mut silent).await;
    proxy.line("another", |line| line.json["message"] == "http2.goaway" && line.json["code"] == 0).await;
    proxy.finish().await;
}

#[tokio::test]
async fn streams_are_limited() {
    let fake = FakeApp::start(|_, stream| pulsegate_test_kit::fake_app::hold(stream)).await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url).with("[limits]\nstreams = 3\n")).await;
    let mut client = Raw::connect(&proxy).await;
    let block = raw::block(&raw::get("/"));
    for stream in [1, 3, 5, 7] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block).await;
    }
    let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (7, Some(REFUSED_STREAM)));
    drop(client);
    proxy.finish().await;
}
