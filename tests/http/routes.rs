//! Routes by host and path, each with settings of its own, and ambiguous targets.

use std::sync::Arc;
use std::time::Duration;

use pulsegate::config::{AllowedOrigin, HostPattern, OriginPolicy, Route, SessionLimits, Settings};

use crate::support::{App, LogPage, Proxy};

/// Returns a valid handshake with more fields.
fn handshake(host: &str, path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Restricts `/members/` and the host `admin.example` to their own pages.
fn guarded(settings: &mut Settings) {
    let own = Arc::new(OriginPolicy::Only(vec![AllowedOrigin::SameHost]));
    let app = Arc::clone(&settings.upstream);
    let guard = |path: &str, host: Option<&str>| {
        let host = host.map(|host| HostPattern::Exact(host.into()));
        let (path, origins) = (path.into(), Arc::clone(&own));
        Arc::new(Route { path, host, origins, ..Route::to(Arc::clone(&app)) })
    };
    settings.routes =
        vec![guard("/", Some("admin.example")), guard("/members/", None), Arc::new(Route::to(Arc::clone(&app)))];
}

/// Returns the proxy's own answer to `request`.
async fn refusal(proxy: &Proxy, request: &str) -> (String, String) {
    let mut client = proxy.connect();
    client.send(request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)).await;
    let head = client.head().await;
    (head.line, client.rest().await)
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_before_the_app_hears_of_it() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), guarded);
    for (host, path, origin) in [
        ("app.example", "/members/ws", "https://evil.example"),
        ("app.example", "/members/ws", "null"),
        ("app.example", "/members/ws", "http://app.example"),
        ("app.example", "/members/ws", "https://app.example:8443"),
        ("app.example", "/members/ws", "https://app.example.evil.example"),
        ("admin.example", "/anything", "https://app.example"),
    ] {
        let log = LogPage::open();
        let mut client = proxy.connect();
        client.send(handshake(host, path, &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 403 Forbidden", "{host}{path} {origin}");
        client.expect("403 Forbidden: origin\n").await;
        let line = log.line("ws.reject").await;
        assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"origin".into(), &403.into()), "{line}");
        assert!(line["detail"].as_str().is_some_and(|detail| detail.contains(origin)), "{line}");
    }
    assert!(proxy.counts(r#"pulsegate_upgrade_rejections_total{reason="origin"} 6"#), "{}", proxy.metrics.encode());
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn other_pages_other_routes_and_other_programs_get_through() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), guarded);
    for (host, path, fields) in [
        ("app.example", "/members/ws", "Origin: https://app.example\r\n"),
        ("App.Example:443", "/members/ws", "Origin: https://app.example\r\n"),
        ("admin.example:8443", "/anything", "Origin: https://admin.example:8443\r\n"),
        ("app.example", "/members/ws", ""),
        ("app.example", "/public/ws", "Origin: https://evil.example\r\n"),
    ] {
        let mut client = proxy.connect();
        client.send(handshake(host, path, fields)).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        upstream.send(SWITCHING).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 101 Switching Protocols", "{host}{path} {fields}");
    }
}

#[tokio::test]
async fn a_path_that_could_be_another_routes_is_refused_on_both_sides() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), guarded);
    let paths = [
        "/public/../members/ws",
        "/public/%2e%2e/members/ws",
        "/public/..%2fmembers/ws",
        "/public%2F..%2Fmembers%2Fws",
        "/public/..\\members\\ws",
        "/members%2Fws",
        "/%6Dembers/ws",
        "/MEMBERS/ws",
        "//members/ws",
        "//any.example/members/ws",
        "/members/../public/ws",
    ];
    for path in paths {
        let log = LogPage::open();
        let plain = refusal(&proxy, &format!("GET {path} HTTP/1.1\r\nHost: app.example\r\n\r\n")).await;
        assert_eq!(plain, ("HTTP/1.1 400 Bad Request".into(), "400 Bad Request: path\n".into()), "{path}");
        assert_eq!(log.line("http.access").await["reason"], "path");
        let mut client = proxy.connect();
        client.send(handshake("app.example", path, "Origin: https://evil.example\r\n")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 400 Bad Request", "{path}");
        client.expect("400 Bad Request: path\n").await;
        let line = log.line("ws.reject").await;
        assert_eq!((&line["reason"], &line["url.path"]), (&"path".into(), &path.into()), "{line}");
        // The refusal does not close the connection.
        client.send(handshake("app.example", "/members/ws", "Origin: null\r\n")).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 403 Forbidden");
    }
    let counted = format!(r#"pulsegate_upgrade_rejections_total{{reason="path"}} {}"#, paths.len());
    assert!(proxy.counts(&counted), "{}", proxy.metrics.encode());
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_path_that_all_read_alike_goes_to_the_app_as_it_is() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), guarded);
    for (host, path) in [
        ("app.example", "/files/a%2Fb%5Cc//d"),
        ("app.example", "/members/%2E%2Ex/%6D?to=/../members"),
        ("app.example", "/@scope%2fname"),
        // One route has all of this host.
        ("admin.example", "//x/../members%2fx"),
    ] {
        let mut client = proxy.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(app.accept().await.head().await.line, format!("GET {path} HTTP/1.1"));
    }
}

#[tokio::test]
async fn an_absolute_target_takes_the_route_of_the_host_that_it_names() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), guarded);
    let named =
        |target: &str, host: &str| handshake(host, "/x", "Origin: https://app.example\r\n").replacen("/x", target, 1);
    let mut client = proxy.connect();
    client.send(named("https://admin.example/x", "app.example")).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 403 Forbidden", "Host does not hide the host");
    let mut client = proxy.connect();
    client.send(named("https://app.example/x", "admin.example")).await;
    let head = app.accept().await.head().await;
    assert_eq!((&*head.line, head.get("host")), ("GET /x HTTP/1.1", Some("app.example")));
    assert_eq!(head.get("x-forwarded-host"), Some("app.example"));
}

#[tokio::test]
async fn each_route_has_limits_of_its_own() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| {
        let small = SessionLimits { message: Some(10), ..SessionLimits::default() };
        let small = Route { path: "/small/".into(), limits: small, ..Route::to(Arc::clone(&settings.upstream)) };
        settings.routes.insert(0, Arc::new(small));
    });
    let message = [&[0x82, 0x94, 0, 0, 0, 0][..], &[7; 20]].concat();
    for (path, fits) in [("/small/ws", false), ("/large/ws", true)] {
        let mut client = proxy.connect();
        client.send(handshake("app.example", path, "")).await;
        let mut upstream = app.accept().await;
        upstream.head().await;
        upstream.send(SWITCHING).await;
        client.head().await;
        client.send(&message).await;
        if fits {
            upstream.expect(&message).await;
        } else {
            client.expect([&[0x88, 24, 0x03, 0xF1][..], b"message over the limit"].concat()).await;
        }
    }
}

#[tokio::test]
async fn over_the_ceiling_of_memory_there_are_no_new_sessions() {
    let app = App::start().await;
    let proxy = Proxy::with(app.target(), |settings| settings.limits.memory = Some(1000));
    let mut slow = proxy.connect_through(1024);
    slow.send(handshake("app.example", "/slow", "")).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    upstream.send(SWITCHING).await;
    slow.head().await;
    // The client reads nothing of it: a kilobyte is in flight, and everything read beyond that is held.
    let message = [&[0x82, 126, 0x75, 0x30][..], &[7; 30_000]].concat();
    upstream.send(&message).await;
    let kept = || proxy.metrics.memory().to_client();
    eventually("the session holds something", || kept() > 1000).await;

    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(handshake("app.example", "/other", "")).await;
    let answer = client.head().await;
    assert_eq!((&*answer.line, answer.get("retry-after")), ("HTTP/1.1 503 Service Unavailable", Some("5")));
    client.expect("503 Service Unavailable: memory\n").await;
    let line = log.line("ws.reject").await;
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"memory".into(), &503.into()), "{line}");
    assert!(proxy.counts(r#"pulsegate_upgrade_rejections_total{reason="memory"} 1"#));
    assert!(proxy.counts(&format!(r#"pulsegate_buffered_bytes{{direction="out"}} {}"#, kept())));
    assert!(!app.is_dialled_within(Duration::from_millis(50)).await);

    // The session itself continues, and when its backlog is sent a new one fits.
    slow.expect(&message).await;
    eventually("nothing is held", || kept() == 0).await;
    client.send(handshake("app.example", "/other", "")).await;
    app.accept().await.head().await;
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}
