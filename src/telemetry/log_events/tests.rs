//! Compiled under `#[cfg(test)]` only. The lines word for word, as JSON and for people.

use std::io;
use std::sync::Arc;

use insta::assert_snapshot;

use super::*;
use crate::config::{Level, Route, UpstreamSettings, UpstreamTarget};
use crate::heartbeat::HeartbeatStats;
use crate::heartbeat::Selected;
use crate::session::{Breakage, ClientAddress, CloseCause, Traffic};
use crate::telemetry::tests::written;
use crate::telemetry::{HeartbeatLogging, Shape};

/// Returns the lines of `events` in this shape, without the time.
fn in_shape(shape: Shape, events: impl FnOnce()) -> String {
    let text = written(Level::Info, HeartbeatLogging::AsLevel, shape, events);
    let untimed = text.lines().map(|line| match shape {
        Shape::Json => line.split_once("Z\",").map_or(line, |(_, rest)| rest),
        Shape::Human { .. } => line.split_once("Z ").map_or(line, |(_, rest)| rest.trim_start()),
    });
    untimed.collect::<Vec<_>>().join("\n")
}

fn json(events: impl FnOnce()) -> String {
    in_shape(Shape::Json, events)
}

fn human(events: impl FnOnce()) -> String {
    in_shape(Shape::Human { colour: false }, events)
}

fn request() -> RequestFacts {
    RequestFacts {
        client: ClientAddress::Peer("[::ffff:192.0.2.7]:40000".parse().expect("an address")),
        server_name: Some("app.example".into()),
        protocol: "h1",
        http_version: "1.1",
        host: Some("app.example:8443".into()),
        request_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        route: Arc::new(Route::to(Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into()))))),
        path: "/chat".into(),
        user_agent: Some("probe/1".into()),
        trace_id: None,
    }
}

fn access(request: &RequestFacts) -> AccessRecord<'_> {
    AccessRecord {
        request,
        method: "POST",
        status: 200,
        reason: None,
        error: None,
        bytes_in: 7,
        bytes_out: 5,
        complete: true,
        duration: Duration::from_millis(30),
        upstream: Some(Duration::from_millis(20)),
    }
}

/// An app that refuses connections.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the upstream at 127.0.0.1:3000")]
struct Refused(#[source] io::Error);

fn refused() -> Refused {
    Refused(io::Error::from_raw_os_error(111))
}

#[test]
fn a_request_has_one_line_of_access() {
    let request = request();
    assert_snapshot!(json(|| http_access(&access(&request))), @r#""level":"INFO","message":"http.access","client.address":"192.0.2.7","client.port":40000,"tls.client.server_name":"app.example","server.address":"app.example","server.port":8443,"network.protocol.version":"1.1","http.route":"/","http.request.method":"POST","url.path":"/chat","http.response.status_code":200,"http.request.body.size":7,"http.response.body.size":5,"complete":true,"duration_s":0.03,"upstream.duration_s":0.02,"user_agent.original":"probe/1","request_id":"0af7651916cd43dd8448eb211c80319c","target":"pulsegate::access"}"#);
    let error = Chain(&refused()).to_string();
    let failed = AccessRecord {
        status: 502,
        reason: Some("refused"),
        error: Some(&error),
        upstream: Some(Duration::from_millis(1)),
        ..access(&request)
    };
    assert_snapshot!(json(|| http_access(&failed)), @r#""level":"WARN","message":"http.access","reason":"refused","error":"cannot connect to the upstream at 127.0.0.1:3000: Connection refused (os error 111)","client.address":"192.0.2.7","client.port":40000,"tls.client.server_name":"app.example","server.address":"app.example","server.port":8443,"network.protocol.version":"1.1","http.route":"/","http.request.method":"POST","url.path":"/chat","http.response.status_code":502,"http.request.body.size":7,"http.response.body.size":5,"complete":true,"duration_s":0.03,"upstream.duration_s":0.001,"user_agent.original":"probe/1","request_id":"0af7651916cd43dd8448eb211c80319c","target":"pulsegate::access"}"#);
    assert_snapshot!(human(|| http_access(&failed)), @r#"WARN pulsegate::access: http.access reason="refused" error="cannot connect to the upstream at 127.0.0.1:3000: Connection refused (os error 111)" client.address=192.0.2.7 client.port=40000 tls.client.server_name="app.example" server.address="app.example" server.port=8443 network.protocol.version="1.1" http.route="/" http.request.method="POST" url.path="/chat" http.response.status_code=502 http.request.body.size=7 http.response.body.size=5 complete=true duration_s=0.03 upstream.duration_s=0.001 user_agent.original="probe/1" request_id="0af7651916cd43dd8448eb211c80319c""#);
    // Refused before the app was request, and of a client that another proxy names.
    let forwarded = RequestFacts {
        client: ClientAddress::Forwarded([198, 51, 100, 1].into()),
        server_name: None,
        host: None,
        request_id: None,
        user_agent: None,
        ..self::request()
    };
    let refused = AccessRecord { status: 400, reason: Some("host"), bytes_in: 0, upstream: None, ..access(&forwarded) };
    assert_snapshot!(human(|| http_access(&refused)), @r#"INFO pulsegate::access: http.access reason="host" client.address=198.51.100.1 network.protocol.version="1.1" http.route="/" http.request.method="POST" url.path="/chat" http.response.status_code=400 http.request.body.size=0 http.response.body.size=5 complete=true duration_s=0.03"#);
}

#[test]
fn what_the_app_does_wrong_is_a_warning_and_its_refusals_are_none() {
    let request = request();
    let level = |access: &AccessRecord<'_>| {
        let line: serde_json::Value =
            serde_json::from_str(&format!("{{{}", json(|| http_access(access)))).expect("JSON");
        line["level"].as_str().expect("a level").to_owned()
    };
    assert_eq!(level(&AccessRecord { status: 404, ..access(&request) }), "INFO");
    assert_eq!(level(&AccessRecord { status: 499, complete: false, ..access(&request) }), "INFO", "the client left");
    let slow = AccessRecord { status: 408, reason: Some("body_timeout"), error: Some("too slow"), ..access(&request) };
    assert_eq!(level(&slow), "INFO", "the client's fault");
    assert_eq!(level(&AccessRecord { status: 500, ..access(&request) }), "WARN");
    assert_eq!(
        level(&AccessRecord { error: Some("reset"), complete: false, ..access(&request) }),
        "WARN",
        "half a response"
    );
}

#[test]
fn the_line_of_a_request_is_made_where_its_level_is_written() {
    let at = |level| {
        let mut logged = [false; 4];
        written(level, HeartbeatLogging::AsLevel, Shape::Json, || {
            logged = [
                may_log_access(),
                is_access_logged(200, None, None),
                is_access_logged(502, Some("refused"), Some("no route")),
                is_access_logged(200, None, Some("reset")),
            ];
        });
        logged
    };
    assert_eq!(at(Level::Info), [true; 4]);
    assert_eq!(at(Level::Warn), [true, false, true, true]);
    assert_eq!(at(Level::Error), [false; 4]);
}

#[test]
fn a_refused_upgrade_has_a_detail_or_an_error() {
    let request = request();
    let detail = Some("only WebSocket version 13 is supported");
    assert_snapshot!(human(|| ws_reject(&request, "version", 426, detail, None)), @r#"INFO pulsegate: ws.reject reason="version" detail="only WebSocket version 13 is supported" client.address=192.0.2.7 client.port=40000 tls.client.server_name="app.example" server.address="app.example" server.port=8443 network.protocol.version="1.1" http.route="/" url.path="/chat" http.response.status_code=426 user_agent.original="probe/1" request_id="0af7651916cd43dd8448eb211c80319c""#);
    let failed = || ws_reject(&request, "upstream_unreachable", 502, None, Some(&refused()));
    assert_snapshot!(human(failed), @r#"WARN pulsegate: ws.reject reason="upstream_unreachable" error="cannot connect to the upstream at 127.0.0.1:3000: Connection refused (os error 111)" client.address=192.0.2.7 client.port=40000 tls.client.server_name="app.example" server.address="app.example" server.port=8443 network.protocol.version="1.1" http.route="/" url.path="/chat" http.response.status_code=502 user_agent.original="probe/1" request_id="0af7651916cd43dd8448eb211c80319c""#);
    assert_snapshot!(json(failed), @r#""level":"WARN","message":"ws.reject","reason":"upstream_unreachable","error":"cannot connect to the upstream at 127.0.0.1:3000: Connection refused (os error 111)","client.address":"192.0.2.7","client.port":40000,"tls.client.server_name":"app.example","server.address":"app.example","server.port":8443,"network.protocol.version":"1.1","http.route":"/","url.path":"/chat","http.response.status_code":502,"user_agent.original":"probe/1","request_id":"0af7651916cd43dd8448eb211c80319c","target":"pulsegate"}"#);
}

#[test]
fn a_session_has_a_first_and_a_last_line() {
    let request = request();
    let heartbeat = Selected { policy: Arc::clone(request.route.heartbeat.policy()), why: None, degraded: None };
    let session = SessionFacts {
        id: "e9210c8900000001".parse().expect("an id"),
        config_generation: 1,
        request,
        tls_version: Some("1.3"),
        tls_group: Some("X25519MLKEM768"),
        subprotocol: Some("chat".into()),
        heartbeat,
        extensions_refused: false,
    };
    assert_snapshot!(human(|| ws_open(&session)), @r#"INFO pulsegate: ws.open conn_id=e9210c8900000001 client.address=192.0.2.7 client.port=40000 tls.client.server_name="app.example" server.address="app.example" server.port=8443 network.protocol.version="1.1" http.route="/" url.path="/chat" user_agent.original="probe/1" tls.protocol.version="1.3" tls.group="X25519MLKEM768" subprotocol="chat" heartbeat.mode="protocol" config.generation=1 request_id="0af7651916cd43dd8448eb211c80319c""#);
    let ending = Ending {
        cause: CloseCause::ClientLost { breakage: Some(Breakage::Reset) },
        client_code: 1006,
        upstream_code: 1006,
        close_reason: Box::default(),
        upstream_close_reason: Box::default(),
        from_client: Traffic { bytes: 28, payload: 14, messages: 2 },
        from_upstream: Traffic::default(),
        heartbeat: HeartbeatStats::default(),
        duration: Duration::from_secs(60),
        last_seen_ago: Duration::ZERO,
        last_pong_ago: None,
    };
    assert_snapshot!(human(|| ws_close(&session, &ending)), @r#"INFO pulsegate: ws.close conn_id=e9210c8900000001 client.address=192.0.2.7 client.port=40000 server.address="app.example" server.port=8443 network.protocol.version="1.1" http.route="/" url.path="/chat" user_agent.original="probe/1" tls.protocol.version="1.3" subprotocol="chat" duration_s=60.0 bytes_in=28 bytes_out=0 msgs_in=2 msgs_out=0 pings=0 pongs=0 missed=0 close.initiator="client" close.reason="client_lost" close.code=1006 close.detail="connection reset" upstream.close_code=1006"#);
}

#[test]
fn connections_are_named_by_address_and_port() {
    let peer = "[::ffff:192.0.2.7]:40000".parse().expect("an address");
    assert_snapshot!(human(|| http_reject(peer, "malformed", 400)), @r#"INFO pulsegate::access: http.reject reason="malformed" client.address=192.0.2.7 client.port=40000 http.response.status_code=400"#);
    assert_snapshot!(human(|| h2_goaway(peer, "flood", 11)), @r#"INFO pulsegate: http2.goaway reason="flood" client.address=192.0.2.7 client.port=40000 code=11"#);
    assert_snapshot!(human(|| header_stripped(peer, "x-real-user")), @r#"WARN pulsegate: forwarded.stripped header="x-real-user" client.address=192.0.2.7 client.port=40000 mend="add the proxy that sets it to forwarded.trusted_proxies, or set forwarded.strip without it""#);
    assert_snapshot!(human(|| subprotocol_not_offered(&request(), "soap")), @r#"WARN pulsegate: ws.subprotocol_not_offered subprotocol="soap" client.address=192.0.2.7 client.port=40000 http.route="/" url.path="/chat""#);
}

#[test]
fn a_clients_words_are_cut_at_a_character() {
    assert_eq!(&*escaped(b"/chat"), "/chat");
    let long = format!("/{}é tail", "a".repeat(254));
    assert_eq!(escaped(long.as_bytes()).len(), 255, "é would end at byte 257");
    assert_eq!(&*escaped(b"\xff"), "\u{fffd}");
}

#[test]
fn the_host_is_split_from_its_port() {
    let server = |host: &str| {
        let request = RequestFacts { host: Some(host.into()), ..request() };
        let (host, port) = request.server();
        (host.map(ToOwned::to_owned), port)
    };
    for (host, name, port) in [
        ("app.example", "app.example", None),
        ("app.example:8443", "app.example", Some(8443)),
        ("app.example:", "app.example", None),
        ("192.0.2.1:443", "192.0.2.1", Some(443)),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:8443", "2001:db8::1", Some(8443)),
    ] {
        assert_eq!(server(host), (Some(name.to_owned()), port), "{host}");
    }
}
