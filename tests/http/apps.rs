//! Apps other than the one of plain HTTP: those of single routes, and those behind TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulsegate::config::{Forwarded, Route, Settings, UpstreamSettings, UpstreamTls};
use pulsegate::upstream::AppSet;

use crate::support::{App, LogPage, Proxy, alter_app};
use crate::tls::{Asks, TlsApp};
use crate::upgrade::{handshake, switching};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Starts a proxy before `app`, with the settings `tls`.
fn before(app: &TlsApp, tls: &UpstreamTls) -> Proxy {
    Proxy::with(app.target(), |settings| alter_app(settings, |app| app.tls = Some(tls.clone())))
}

/// Gives the path `path` an app of its own.
fn add_route(settings: &mut Settings, path: &str, upstream: &Arc<UpstreamSettings>) {
    let route = Route { path: path.into(), ..Route::to(Arc::clone(upstream)) };
    settings.routes.insert(0, Arc::new(route));
}

#[tokio::test]
async fn each_route_leads_to_its_own_app() {
    let (shop, chat) = (App::start().await, App::start().await);
    let own = Arc::new(UpstreamSettings { ..UpstreamSettings::at(chat.target()) });
    let proxy = Proxy::with(shop.target(), |settings| {
        add_route(settings, "/live/", &own);
        add_route(settings, "/also-live/", &own);
    });
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut shopping = shop.accept().await;
    shopping.head().await;
    shopping.send(OK).await;
    client.head().await;
    client.expect("ok").await;

    client.send("GET /live/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut chatting = chat.accept().await;
    assert_eq!(chatting.head().await.line, "GET /live/x HTTP/1.1");
    chatting.send(OK).await;
    client.head().await;
    client.expect("ok").await;
    // Routes with one app share its connections.
    client.send("GET /also-live/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(chatting.head().await.line, "GET /also-live/x HTTP/1.1");
    chatting.send(OK).await;
    client.head().await;
    client.expect("ok").await;

    let mut old = proxy.connect();
    old.send("GET /live/old HTTP/1.0\r\n\r\n").await;
    let host = chatting.head().await.get("host").map(str::to_owned);
    assert_eq!(host, Some(chat.authority()), "who names no host gets that of the route's app");
    chatting.send(OK).await;
    old.head().await;

    let mut socket = proxy.connect();
    socket.send(handshake("").replace("/chat/room", "/live/room")).await;
    let mut upstream = chat.accept().await;
    assert!(upstream.head().await.line.starts_with("GET /live/room"));
    upstream.send(switching("")).await;
    assert_eq!(socket.head().await.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(proxy.registry.len(), 1);
}

#[tokio::test]
async fn an_app_that_is_down_leaves_the_others_alone() {
    let (shop, gone) = (App::start().await, App::start().await.target());
    let proxy =
        Proxy::with(shop.target(), |settings| add_route(settings, "/live/", &Arc::new(UpstreamSettings::at(gone))));
    let mut client = proxy.connect();
    client.send("GET /live/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    client.expect("502 Bad Gateway: refused\n").await;
    client.send(GET).await;
    let mut upstream = shop.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_app_behind_tls_is_asked_like_any_other() {
    for asks in [Asks::Nobody, Asks::Everybody] {
        let app = TlsApp::start(asks).await;
        let tls = if asks == Asks::Everybody { app.tls_with_identity() } else { app.tls() };
        let proxy = before(&app, &tls);
        let mut client = proxy.connect();
        client.send("PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody").await;
        let mut upstream = app.accept().await;
        let (_, session) = upstream.stream().get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(session.server_name(), Some(crate::tls::NAME), "it is asked for the name that is expected");
        assert_eq!(session.peer_certificates().is_some(), asks == Asks::Everybody);
        assert_eq!(upstream.head().await.get("host"), Some("shop.example"));
        upstream.expect("body").await;
        upstream.send(OK).await;
        client.head().await;
        client.expect("ok").await;
        // The same a second time on this connection.
        client.send(GET).await;
        upstream.head().await;
        upstream.send(OK).await;
        assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn a_websocket_goes_through_tls_both_ways() {
    let app = TlsApp::start(Asks::Nobody).await;
    let proxy = before(&app, &app.tls());
    let mut client = proxy.connect();
    client.send(handshake("")).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    // The first frame in the record of the 101.
    upstream.send([switching("").as_bytes(), b"\x81\x02hi"].concat()).await;
    assert_eq!(client.head().await.line, "HTTP/1.1 101 Switching Protocols");
    client.expect(b"\x81\x02hi").await;
    // More than fits into one record, or into a socket's buffers, in both directions at once.
    let payload = vec![b'x'; 2 << 20];
    let length = (payload.len() as u64).to_be_bytes();
    let masked = [&[0x82, 0xff], &length[..], &[0; 4], &payload].concat();
    let plain = [&[0x82, 0x7f], &length[..], &payload].concat();
    client.exchange(&masked, &mut upstream, &plain).await;
    client.send(b"\x88\x82\0\0\0\0\x03\xe8").await;
    upstream.expect(b"\x88\x82\0\0\0\0\x03\xe8").await;
    upstream.send(b"\x88\x02\x03\xe8").await;
    client.expect(b"\x88\x02\x03\xe8").await;
    assert_eq!(upstream.rest().await, "", "the end is a proper one: a close_notify, and no error");
    drop((client, upstream));
    proxy.ended().await;
}

#[tokio::test]
async fn an_app_whose_tls_will_not_do_is_a_502() {
    let stranger = TlsApp::start(Asks::Nobody).await;
    let asking = TlsApp::start(Asks::Everybody).await;
    let app = TlsApp::start(Asks::Nobody).await;
    let another_name = UpstreamTls { server_name: None, ..app.tls() };
    for (what, app, tls) in [
        ("an authority that is not believed", &app, stranger.tls()),
        ("a name that is not in the certificate", &app, another_name),
        ("no certificate for an app that asks for one", &asking, asking.tls()),
        ("a certificate by an authority that the app does not believe", &asking, stranger.tls_with_identity()),
    ] {
        // The proxy trusts only the authority of the app's own certificate, except where the case tests another one.
        let tls = if what.starts_with("a certificate") { UpstreamTls { ca: app.tls().ca, ..tls } } else { tls };
        let proxy = before(app, &tls);
        let log = LogPage::open();
        for (request, line) in [(GET.to_owned(), "http.access"), (handshake(""), "ws.reject")] {
            let mut client = proxy.connect();
            client.send(request).await;
            // In TLS 1.3 the app's refusal comes after the handshake, from the proxy's point of view.
            let app_side = async {
                if let Ok(stream) = app.handshake().await {
                    panic!("{what}: the handshake succeeds with {:?}", stream.get_ref().1.alpn_protocol());
                }
            };
            let (head, ()) = tokio::join!(client.head(), app_side);
            assert_eq!(head.line, "HTTP/1.1 502 Bad Gateway", "{what}");
            client.expect("502 Bad Gateway: upstream_tls\n").await;
            assert_eq!(log.line(line).await["reason"], "upstream_tls", "{what}");
        }
        assert_eq!(proxy.metrics.totals().upstream_errors, 2, "{what}: {}", proxy.metrics.encode());
    }
}

#[tokio::test]
async fn an_app_that_speaks_no_tls_or_does_not_answer() {
    let app = App::start().await;
    let tls = UpstreamTls { ca: TlsApp::start(Asks::Nobody).await.tls().ca, ..UpstreamTls::default() };
    // The files are read when the proxy starts, and are gone by then.
    let missing = Proxy::settings(app.target(), |settings| alter_app(settings, |app| app.tls = Some(tls.clone())));
    let error = AppSet::open(&missing, Instant::now()).expect_err("there is no such file");
    assert!(error.to_string().contains(&format!("https://{}", app.authority())), "{error}");

    let authority = TlsApp::start(Asks::Nobody).await;
    let proxy = Proxy::with(app.target(), |settings| {
        alter_app(settings, |app| {
            app.tls = Some(authority.tls());
            app.connect_timeout = Duration::from_millis(300);
        });
    });
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 502 Bad Gateway");
    client.expect("502 Bad Gateway: upstream_tls\n").await;

    client.send(GET).await;
    let _silent = app.accept().await;
    assert_eq!(client.head().await.line, "HTTP/1.1 504 Gateway Timeout");
    client.expect("504 Gateway Timeout: connect_timeout\n").await;
}

#[tokio::test]
async fn an_answer_that_tls_cuts_off_is_not_passed_off_as_whole() {
    let app = TlsApp::start(Asks::Nobody).await;
    let proxy = before(&app, &app.tls());
    let log = LogPage::open();
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = app.accept().await;
    upstream.head().await;
    // The end of the connection is the end of the body; without a close_notify it may be a truncation by an attacker.
    upstream.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
    drop(upstream);
    client.head().await;
    assert_eq!(client.rest().await, "4\r\nhalf\r\n");
    assert_eq!(log.line("http.access").await["complete"], false);
}

#[tokio::test]
async fn connections_come_from_every_source_address() {
    let app = App::start().await;
    let sources = ["127.0.0.2", "127.0.0.3"].map(|source| source.parse().unwrap());
    let proxy = Proxy::with(app.target(), |settings| {
        alter_app(settings, |app| app.source_addresses = sources.into());
    });
    let mut seen = Vec::new();
    let mut held = Vec::new();
    for turn in 0..4 {
        let mut client = proxy.connect();
        // Sessions and plain requests take the same turns.
        client.send(if turn % 2 == 0 { GET.to_owned() } else { handshake("") }).await;
        let upstream = app.accept().await;
        seen.push(upstream.stream().peer_addr().unwrap().ip());
        held.push((client, upstream));
    }
    assert_eq!((seen[0], seen[1]), (seen[2], seen[3]), "{seen:?}");
    seen.sort();
    seen.dedup();
    assert_eq!(seen, sources);
}

#[tokio::test]
async fn what_a_trusted_proxy_says_reaches_app_and_log() {
    let app = App::start().await;
    let trusting = |networks: &[&str]| {
        let trusted_proxies = networks.iter().map(|network| network.parse().unwrap()).collect();
        Proxy::with(app.target(), |settings| {
            settings.forwarded = Forwarded { trusted_proxies, rfc7239: true, ..Forwarded::default() }
        })
    };
    let fields = "X-Forwarded-For: 6.6.6.6, 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: from-afar\r\n\
        X-Forwarded-Host: shop.example\r\nForwarded: for=198.51.100.1\r\nTraceparent: 00-1-2-3\r\n";
    // The peer of all test clients is 192.0.2.7.
    let trusted = [
        ("x-forwarded-for", "6.6.6.6, 198.51.100.1, 192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "198.51.100.1"),
        ("forwarded", "for=198.51.100.1, for=192.0.2.7;host=app.example;proto=https"),
        ("x-request-id", "from-afar"),
        ("traceparent", "00-1-2-3"),
    ];
    let untrusted = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "192.0.2.7"),
        ("forwarded", "for=192.0.2.7;host=app.example;proto=https"),
        ("traceparent", "00-1-2-3"),
    ];
    for (networks, client_address, expected) in [
        (&["192.0.2.0/24"][..], "198.51.100.1", &trusted[..]),
        (&["203.0.113.0/24"], crate::support::CLIENT_ADDRESS, &untrusted),
    ] {
        let proxy = trusting(networks);
        for (request, line) in [
            (format!("GET / HTTP/1.1\r\nHost: app.example\r\n{fields}\r\n"), "http.access"),
            (handshake(fields), "ws.open"),
        ] {
            let log = LogPage::open();
            let mut client = proxy.connect();
            client.send(request).await;
            let mut upstream = app.accept().await;
            let head = upstream.head().await;
            for (name, value) in expected {
                assert_eq!(head.get(name), Some(*value), "{name} in {head:?}");
            }
            if expected.len() == untrusted.len() {
                assert_eq!(head.get("x-request-id").map(str::len), Some(32), "one of the proxy's own");
            }
            upstream
                .send(if line == "ws.open" {
                    switching("")
                } else {
                    OK.replace("OK\r\n", "OK\r\nConnection: close\r\n")
                })
                .await;
            client.head().await;
            if line == "http.access" {
                client.expect("ok").await;
            }
            let line = log.line(line).await;
            assert_eq!(line["client.address"], client_address, "{line}");
            let port = line.get("client.port").and_then(serde_json::Value::as_u64);
            let is_peer = client_address == crate::support::CLIENT_ADDRESS;
            assert_eq!(port, is_peer.then_some(crate::support::CLIENT_PORT.into()), "{line}");
            // The id that the app received, and the host that the client requested.
            assert_eq!(line["request_id"].as_str(), head.get("x-request-id"), "{line}");
            assert_eq!(line["server.address"].as_str(), head.get("x-forwarded-host"), "{line}");
        }
    }
}
