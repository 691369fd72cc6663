//! Plain requests: the request at the app, the answer at the client, and the times of both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pulsegate::config::{HostPattern, Route, UpstreamTarget};
use tokio::net::UnixListener;

use crate::support::{App, LogPage, Proxy, Wire, alter_app};

const GET: &str = "GET /page?token=1 HTTP/1.1\r\nHost: app.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn fields<const N: usize>(fields: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
    fields.map(|(name, value)| (name, value.to_owned())).into()
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    assert_eq!((&*head.line, head.get("transfer-encoding")), ("POST /up HTTP/1.1", Some("chunked")));
    upstream.expect("3\r\none\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
    let head = client.head().await;
    assert_eq!((&*head.line, head.get("transfer-encoding")), ("HTTP/1.1 200 OK", Some("chunked")));
    client.expect("3\r\nuno\r\n").await;
    client.send("3\r\ntwo\r\n").await;
    upstream.expect("3\r\ntwo\r\n").await;
    upstream.send("3\r\ndos\r\n0\r\n\r\n").await;
    client.expect("3\r\ndos\r\n0\r\n\r\n").await;
    client.send("0\r\n\r\n").await;
    upstream.expect("0\r\n\r\n").await;
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_and_the_proxys_own_are_added() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let request = "GET /a%2fb//c?x=%7e HTTP/1.1\r\nhOST: app.example:8443\r\nOrigin: https://app.example\r\n\
        CONNECTION: keep-alive, x-once, X-Forwarded-For\r\nX-Once: 1\r\nKeep-Alive: timeout=9\r\nTE: gzip\r\n\
        X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nForwarded: for=6.6.6.6\r\n\
        X-Pulsegate-Connection-Id: 1\r\nX-Forwarded-Client-Cert: me\r\nTraceparent: 00-1-2-3\r\nCookie: a=1\r\n\r\n";
    client.send(request).await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.line, "GET /a%2fb//c?x=%7e HTTP/1.1", "the target's bytes are the client's");
    assert_eq!(head.get("x-request-id").map(str::len), Some(32));
    let expected = fields([
        ("host", "app.example:8443"),
        ("origin", "https://app.example"),
        ("traceparent", "00-1-2-3"),
        ("cookie", "a=1"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "app.example:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.7"),
    ]);
    assert_eq!(head.without(&["x-request-id"]), expected);

    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Mine\r\nX-Mine: 1\r\nUpgrade: h2c\r\n\
        Keep-Alive: timeout=5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: today\r\n\r\nok";
    upstream.send(response).await;
    let head = client.head().await;
    let expected = fields([("content-length", "2"), ("set-cookie", "a, b"), ("date", "today")]);
    assert_eq!(head.without(&[]), expected);
    client.expect("ok").await;
}

#[tokio::test]
async fn names_of_fields_are_written_as_they_came() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhOsT: a\r\nX-API-Key: 1\r\nx-lower: 2\r\nX-Twice: 3\r\nx-tWICE: 4\r\n\r\n").await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    for name in ["hOsT", "X-API-Key", "x-lower", "X-Twice", "x-tWICE", "x-forwarded-for"] {
        assert!(head.names.iter().any(|written| written == name), "{name}: {head:?}");
    }
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: 1\r\nWWW-authenticate: x\r\n\r\nok").await;
    let head = client.head().await;
    for name in ["Content-Length", "ETag", "WWW-authenticate"] {
        assert!(head.names.iter().any(|written| written == name), "{name}: {head:?}");
    }
}

#[tokio::test]
async fn a_response_may_have_many_lines_and_not_too_many() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for (lines, status) in [(1999, "200 OK"), (2000, "502 Bad Gateway")] {
        let mut client = proxy.connect();
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        let cookies: Vec<_> = (0..lines).map(|at| format!("Set-Cookie: c{at}=1\r\n")).collect();
        let cookies = cookies.concat();
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{cookies}\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.line, format!("HTTP/1.1 {status}"), "{lines} cookies");
        let came = head.names.iter().filter(|name| *name == "Set-Cookie").count();
        assert_eq!(came, if lines < 2000 { lines } else { 0 });
    }
}

#[tokio::test]
async fn a_target_fits_its_method() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for line in ["GET app.example:80 HTTP/1.1", "GET * HTTP/1.1", "POST * HTTP/1.1", "OPTIONS app.example:80 HTTP/1.1"]
    {
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(format!("{line}\r\nHost: app.example\r\n\r\n")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 400 Bad Request", "{line}");
        assert_eq!(log.line("http.access").await["reason"], "target", "{line}");
    }
    let mut client = proxy.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    assert_eq!(app.accept().await.head().await.line, "OPTIONS * HTTP/1.1");
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET http://real.example/p?q HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    let head = app.accept().await.head().await;
    assert_eq!((&*head.line, head.get("host")), ("GET /p?q HTTP/1.1", Some("real.example")));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let request = "PUT / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n";
    client.send(request).await;
    let mut upstream = app.accept().await;
    assert_eq!(upstream.head().await.get("te"), Some("trailers"));
    upstream.expect("1\r\na\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let response =
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Sum: 8\r\n\r\n";
    upstream.send(response).await;
    assert_eq!(client.head().await.get("trailer"), Some("x-sum"));
    client.expect("1\r\nb\r\n0\r\nx-sum: 8\r\n\r\n").await;
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length_and_has_no_body() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = app.accept().await;
    assert_eq!(upstream.head().await.line, "HEAD / HTTP/1.1");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    assert_eq!(client.head().await.get("content-length"), Some("1234"));
    // Both connections detect the end of the message.
    client.send(GET).await;
    assert_eq!(upstream.head().await.line, "GET /page?token=1 HTTP/1.1");
    upstream.send(OK).await;
    client.head().await;
    client.expect("ok").await;
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_once_the_app_is_there() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    assert_eq!((head.get("expect"), head.get("content-length")), (None, Some("4")));
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("body").await;
    upstream.expect("body").await;
    // The app's own interim answers end at the proxy.
    upstream.send(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_get_may_have_a_body_of_unknown_length() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let mut upstream = app.accept().await;
    assert_eq!(upstream.head().await.get("transfer-encoding"), Some("chunked"));
    upstream.expect("2\r\nhi\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_pass() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!((head.get("content-length"), head.get("transfer-encoding")), (None, Some("chunked")));
    client.expect("5\r\nhello\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn http_1_0_gets_its_own_framing() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let mut upstream = app.accept().await;
    let head = upstream.head().await;
    assert_eq!((&*head.line, head.get("host")), ("GET / HTTP/1.1", Some(&*app.authority())));
    upstream.send(OK).await;
    let head = client.head().await;
    assert_eq!((&*head.line, head.get("connection")), ("HTTP/1.0 200 OK", Some("keep-alive")));
    client.expect("ok").await;

    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.get("connection"), head.get("transfer-encoding")), (None, None), "the end of the stream ends it");
    assert_eq!(client.rest().await, "hi");
}

#[tokio::test]
async fn an_http_1_0_app_is_spoken_for() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.0 200 Fine\r\n\r\nto the end").await;
    drop(upstream);
    let head = client.head().await;
    assert_eq!((&*head.line, head.get("transfer-encoding")), ("HTTP/1.1 200 Fine", Some("chunked")));
    client.expect("A\r\nto the end\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let folder = std::env::temp_dir().join(format!("pulsegate-http-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let proxy = Proxy::with(UpstreamTarget::Unix(path), |_| {});
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut upstream = Wire::new("app", listener.accept().await.unwrap().0);
    assert_eq!(upstream.head().await.get("host"), Some("localhost"));
    upstream.send(OK).await;
    assert!(client.rest().await.ends_with("\r\n\r\nok"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_client() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    drop(upstream);
    client.head().await;
    assert_eq!(client.rest().await, "4\r\nhalf\r\n", "no last chunk makes it whole");
    let line = log.line("http.access").await;
    assert_eq!((&line["complete"], &line["http.response.body.size"]), (&false.into(), &4.into()));
    let error = line["error"].as_str().unwrap_or_default();
    assert!(error.contains("error reading a body from connection: "), "the fault and its cause: {line}");
    assert_eq!((&line["level"], &line["http.response.status_code"]), (&"WARN".into(), &200.into()), "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    drop(client);
    assert_eq!(upstream.rest().await, "");
    assert_eq!(log.line("http.access").await["http.response.status_code"], 499);
}

#[tokio::test]
async fn a_route_is_chosen_by_the_host_that_the_request_names() {
    for (request, expected) in [
        ("GET /page/ HTTP/1.1\r\nHost: Shop.Example:8443\r\n\r\n", "/page/"),
        ("GET https://shop.example/page/ HTTP/1.1\r\nHost: other.example\r\n\r\n", "/page/"),
        ("GET https://other.example/page/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", "/"),
        ("GET /page/ HTTP/1.1\r\nHost: other.example\r\n\r\n", "/"),
        ("GET /page/ HTTP/1.0\r\n\r\n", "/"),
        ("GET /page/ HTTP/1.1\r\n\r\n", "/"),
    ] {
        let app = App::start().await;
        let proxy = Proxy::with(app.target(), |settings| {
            let host = HostPattern::Exact("shop.example".into());
            let route = Route { path: "/page/".into(), host: Some(host), ..Route::to(Arc::clone(&settings.upstream)) };
            settings.routes.insert(0, Arc::new(route));
        });
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(request).await;
        // Without the Host that HTTP/1.1 requires there is nothing to forward.
        if request.contains("Host") || request.contains("HTTP/1.0") {
            let mut upstream = app.accept().await;
            upstream.head().await;
            upstream.send(OK).await;
        }
        client.head().await;
        assert_eq!(log.line("http.access").await["http.route"], expected, "{request}");
    }
}

#[tokio::test]
async fn an_access_line_tells_of_each_request() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    client
        .send(format!(
            "POST /chat/%2fx?token=secret HTTP/1.1\r\nHost: app.example:8443\r\nUser-Agent: probe/1\r\n\
             X-Request-Id: of-the-client\r\nTransfer-Encoding: chunked\r\n\
             Traceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        ))
        .await;
    let mut upstream = app.accept().await;
    let request_id = upstream.head().await.get("x-request-id").expect("every request has one").to_owned();
    upstream.expect("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n").await;
    upstream.send("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n").await;
    client.head().await;
    client.expect("nope\n").await;
    let line = log.line("http.access").await;
    for (field, value) in [
        ("level", "INFO"),
        ("target", "pulsegate::access"),
        ("client.address", crate::support::CLIENT_ADDRESS),
        ("server.address", "app.example"),
        ("network.protocol.version", "1.1"),
        ("http.route", "/chat/"),
        ("http.request.method", "POST"),
        ("url.path", "/chat/%2fx"),
        ("request_id", &request_id),
        ("user_agent.original", "probe/1"),
        ("trace_id", trace),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!((&line["client.port"], &line["server.port"]), (&crate::support::CLIENT_PORT.into(), &8443.into()));
    assert_eq!(line["http.response.status_code"], 404);
    assert_eq!(line["http.request.body.size"], 7, "without its chunks: {line}");
    assert_eq!(line["http.response.body.size"], 5);
    assert_eq!(line["complete"], true);
    assert!(line["duration_s"].is_f64() && line["upstream.duration_s"].is_f64(), "{line}");
    assert!(line["upstream.duration_s"].as_f64() <= line["duration_s"].as_f64(), "{line}");
    for absent in ["reason", "error", "user_agent", "protocol", "bytes_out"] {
        assert!(line.get(absent).is_none(), "{absent} in {line}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[tokio::test]
async fn an_app_that_is_down_is_a_502() {
    let gone = App::start().await.target();
    let proxy = Proxy::with(gone, |_| {});
    let mut client = proxy.connect();
    client.send(GET).await;
    let head = client.head().await;
    assert_eq!(head.line, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(head.get("content-type"), Some("text/plain; charset=utf-8"));
    client.expect("502 Bad Gateway: refused\n").await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.get("content-type"), Some("text/html; charset=utf-8"));
    client.expect("<!doctype html>\n<title>502 Bad Gateway</title>").await;
}

#[tokio::test]
async fn the_cause_of_an_answer_of_the_proxys_own_is_in_the_access_line() {
    let gone = App::start().await.target();
    let UpstreamTarget::Tcp { port, .. } = &gone else { panic!("an app listens on a port") };
    let refused = format!("cannot connect to the upstream at 127.0.0.1:{port}: Connection refused (os error 111)");
    let proxy = Proxy::with(gone.clone(), |_| {});
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(GET).await;
    client.head().await;
    client.expect("502 Bad Gateway: refused\n").await;
    let line = log.line("http.access").await;
    assert_eq!((&line["level"], &line["reason"], &line["error"]), (&"WARN".into(), &"refused".into(), &refused.into()));
    assert!(line["upstream.duration_s"].is_f64() && line["request_id"].is_string(), "{line}");

    let app = App::start().await;
    let proxy = Proxy::before(&app);
    for (answer, status, reason, error) in [
        (
            "",
            502,
            Some("closed"),
            "the upstream closed the connection before it answered: connection closed before message completed",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            502,
            Some("invalid_response"),
            "the upstream answered a plain request with 101",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            502,
            Some("invalid_response"),
            "the upstream's response has a transfer coding that was not asked for",
        ),
        // The app's own answers, failures among them, are forwarded unchanged.
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 503, None, ""),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 404, None, ""),
    ] {
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        upstream.send(answer).await;
        drop(upstream);
        client.head().await;
        let line = log.line("http.access").await;
        assert_eq!(line["http.response.status_code"], status, "{line}");
        assert_eq!(line["level"], if status >= 500 { "WARN" } else { "INFO" }, "{line}");
        assert_eq!(line.get("reason").and_then(|reason| reason.as_str()), reason, "{line}");
        assert_eq!(line.get("error").and_then(|error| error.as_str()).unwrap_or_default(), error, "{line}");
    }
}

#[tokio::test]
async fn an_app_that_talks_nonsense_is_a_502() {
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ] {
        let app = App::start().await;
        let proxy = Proxy::before(&app);
        let mut client = proxy.connect();
        client.send(GET).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        upstream.send(nonsense).await;
        drop(upstream);
        assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway", "{nonsense:?}");
    }
}

#[tokio::test]
async fn an_app_that_hangs_is_a_504() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| {
        alter_app(settings, |app| app.response_timeout = Duration::from_millis(50));
    });
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    assert_eq!(client.head().await.line, "HTTP/1.1 504 Gateway Timeout");
    client.expect("504 Gateway Timeout: response_timeout\n").await;
    assert_eq!(upstream.rest().await, "", "the request is taken back");
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let app = App::start().await;
    let limit = Duration::from_millis(600);
    let proxy = Proxy::with(app.target(), |settings| {
        alter_app(settings, |app| app.response_timeout = limit);
    });
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    for _ in 0..8 {
        tokio::time::sleep(limit / 4).await;
        client.send("x").await;
        upstream.expect("x").await;
    }
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK", "twice the time has passed, and the app answered at once");
}

#[tokio::test]
async fn a_drain_lets_the_request_in_hand_finish() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let (mut client, mut idle) = (proxy.connect(), proxy.connect());
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    proxy.draining.cancel();
    assert_eq!(idle.rest().await, "");
    upstream.send(OK).await;
    assert_eq!(client.head().await.get("connection"), Some("close"));
    assert_eq!(client.rest().await, "ok");
    drop((client, idle, upstream));
    proxy.ended().await;
}

#[tokio::test]
async fn trailers_that_nobody_announced_or_wants_end_here() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let log = LogPage::open();
    let mut client = proxy.connect();
    let chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n";
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{chunked}X-Sum: 7\r\n\r\n")).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.expect("1\r\na\r\n0\r\n\r\n").await;
    upstream.send(format!("HTTP/1.1 200 OK\r\n{chunked}X-Sum: 8\r\n\r\n")).await;
    client.head().await;
    client.expect("1\r\na\r\n0\r\n\r\n").await;
    assert_eq!(log.line("http.access").await["complete"], true);
    // RFC 9110 §6.5.1: a client that does not announce support may not handle them.
    client.send(GET).await;
    upstream.head().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\n{chunked}X-Sum: 9\r\n\r\n")).await;
    client.head().await;
    client.expect("1\r\na\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_trailer_is_no_way_to_say_what_a_header_may_not() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let names = "content-length, host, transfer-encoding, x-sum";
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n\
         0\r\nContent-Length: 5\r\nHost: b\r\nTransfer-Encoding: gzip\r\nX-Sum: 7\r\n\r\n"
    );
    client.send(request).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.expect("1\r\na\r\n0\r\nx-sum: 7\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_say_nothing_in_the_place_of_a_proxy_or_of_one_connection() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let (names, fields) = (
        "X-Forwarded-For, x-real-ip, x-request-id, keep-alive, x-nominated, x-sum",
        "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: 1\r\nKeep-Alive: timeout=5\r\nX-Nominated: 1\r\n",
    );
    let head = format!("Connection: x-nominated\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = format!("1\r\na\r\n0\r\n{fields}X-Sum: 7\r\n\r\n");
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{head}{chunks}")).await;
    let mut upstream = app.accept().await;
    assert_eq!(upstream.head().await.get("trailer"), Some("x-sum"));
    upstream.expect("1\r\na\r\n0\r\nx-sum: 7\r\n\r\n").await;
    upstream.send(format!("HTTP/1.1 200 OK\r\n{head}{chunks}")).await;
    assert_eq!(client.head().await.get("trailer"), Some("x-sum"));
    client.expect("1\r\na\r\n0\r\nx-sum: 7\r\n\r\n").await;
    // If no trailer is left to announce, the field is removed.
    let head =
        "Trailer: x-forwarded-for\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{head}")).await;
    assert_eq!(upstream.head().await.get("trailer"), None);
    upstream.expect("1\r\na\r\n0\r\n\r\n").await;
}
