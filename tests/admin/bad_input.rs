//! Invalid requests: each gets its own answer, in JSON, and changes nothing.

use tokio::io::AsyncWriteExt;

use crate::admin::rig::{Reply, Rig, connections, request};

const NOBODY: &str = "/v1/connections/00000000000000ff";

#[tokio::test]
async fn a_request_must_be_for_us_and_from_our_own_page() {
    let rig = Rig::start().await;
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0"] {
        let reply = rig.send(&request("GET", "/v1/info", [&*format!("Host: {host}")], "")).await;
        reply.refuses(421, "host", &[host, "localhost"]);
    }
    for hosts in [&[] as &[&str], &["Host: "], &["Host: localhost", "Host: localhost"]] {
        let reply = rig.send(&request("GET", "/v1/info", hosts.iter().copied(), "")).await;
        // The HTTP library may refuse two of them by itself.
        reply.refuses(400, "host", &["one Host header"]);
    }
    let absolute = rig.send(&request("GET", "http://evil.example/v1/info", ["Host: localhost"], "")).await;
    absolute.refuses(421, "host", &["evil.example"]);
    for origin in ["http://evil.example", "https://localhost", "http://localhost:3000", "null"] {
        for (method, path) in [("GET", "/v1/connections"), ("GET", "/v1/events"), ("POST", "/v1/drain"), ("GET", "/")] {
            let reply = rig.ask(method, path, &[&format!("Origin: {origin}")], "").await;
            reply.refuses(403, "origin", &[origin]);
        }
    }
    let both = ["Origin: http://localhost", "Origin: http://evil.example"];
    rig.ask("POST", "/v1/drain", &both, "").await.refuses(403, "origin", &[]);
    assert_eq!(rig.ask("GET", "/v1/info", &["Origin: http://localhost"], "").await.status, 200);
    let hostile = format!("Origin: {}", "x".repeat(5000));
    rig.ask("GET", "/v1/info", &[&hostile], "").await.refuses(403, "origin", &["xxx…"]);
    assert_eq!(rig.get("/v1/drain").await["phase"], "serving", "nothing came of any of them");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn what_changes_something_is_a_post() {
    let rig = Rig::start().await;
    let close = format!("{NOBODY}/close");
    let dead = format!("{NOBODY}/simulate-dead");
    for path in ["/v1/connections/close", &close, &dead] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let reply = rig.ask(method, path, &[], "").await;
            reply.refuses(405, "method", &[method, "use POST"]);
            assert_eq!(reply.header("allow"), Some("POST"), "{method} {path}");
        }
    }
    for path in ["/v1/info", "/v1/connections", NOBODY, "/v1/events", "/v1/config", "/v1/certs"] {
        let reply = rig.post(path, "{}").await;
        reply.refuses(405, "method", &["POST is not for this path; use GET or HEAD"]);
        assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{path}");
    }
    for path in ["/v1/drain", "/v1/reload"] {
        let reply = rig.ask("DELETE", path, &[], "").await;
        reply.refuses(405, "method", &["GET or HEAD or POST"]);
        assert_eq!(reply.header("allow"), Some("GET, HEAD, POST"), "{path}");
    }
    for path in [
        "/v1",
        "/v1/",
        "/v2/info",
        "/v1/info/",
        "/v1/connections/close/",
        "/v1/connections/x/y",
        "/v1/connections/x/close/y",
        "/metrics",
    ] {
        rig.ask("GET", path, &[], "").await.refuses(404, "not_found", &[path]);
    }
    for path in ["/v1/info", "/v1/connections", "/v1/events", "/"] {
        assert_eq!(rig.ask("HEAD", path, &[], "").await.status, 200, "HEAD {path}");
    }
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_list_is_asked_for_in_known_words() {
    let rig = Rig::start().await;
    for (query, code, words) in [
        ("sort=age", "sort", &["\"age\"", "opened", "bytes_out", "descending"] as &[&str]),
        ("sort=--rtt", "sort", &["--rtt"]),
        ("limit=0", "limit", &["1 to 10000"]),
        ("limit=10001", "limit", &["1 to 10000"]),
        ("limit=-1", "limit", &["-1"]),
        ("limit=ten", "limit", &["ten"]),
        ("limit=99999999999999999999999", "limit", &["99999999999999999999999"]),
        ("cursor=7", "cursor", &["next_cursor", "leave it out"]),
        ("cursor=opened~n7~00", "cursor", &["next_cursor"]),
        ("sort=rtt&cursor=opened~n7~00000000000000ff", "cursor", &["sort=opened", "sort=rtt"]),
        ("state=dead", "state", &["open, closed or all"]),
        ("client=10.0.0.0/33", "client", &["10.0.0.0/33", "32"]),
        ("client=10.0.0.1/8", "client", &["10.0.0.0/8"]),
        ("client=home", "client", &["an address or a network"]),
        ("misses_gte=many", "misses_gte", &["a whole number"]),
        ("misses_gte=-1", "misses_gte", &["-1"]),
        ("rout=/x", "parameter", &["rout", "did you mean \"route\"?"]),
        ("token=secret", "parameter", &["known: sort, route"]),
        ("limit=5&limit=6", "parameter", &["limit", "twice"]),
        ("%ff=1", "parameter", &["unknown"]),
    ] {
        rig.ask("GET", &format!("/v1/connections?{query}"), &[], "").await.refuses(400, code, words);
    }
    let long = format!("/v1/connections?sort={}", "x".repeat(8000));
    rig.ask("GET", &long, &[], "").await.refuses(400, "sort", &["xxx…"]);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_session_is_named_by_its_id() {
    let rig = Rig::start().await;
    for id in ["x", "00000000000000fg", "0", "+0000000000000ff", "000000000000000ff", "%30000000000000ff"] {
        for (method, path) in [("GET", ""), ("POST", "/close")] {
            let reply = rig.ask(method, &format!("/v1/connections/{id}{path}"), &[], "").await;
            reply.refuses(400, "id", &["16 hexadecimal digits"]);
        }
    }
    rig.ask("GET", NOBODY, &[], "").await.refuses(404, "not_found", &["00000000000000ff", "neither open nor"]);
    rig.post(&format!("{NOBODY}/close"), "").await.refuses(404, "not_found", &["00000000000000ff"]);
    let dead = rig.post(&format!("{NOBODY}/simulate-dead"), "").await;
    dead.refuses(404, "not_found", &["pulsegate dev"]);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn an_invalid_request_closes_no_session() {
    let mut rig = Rig::start().await;
    let _session = rig.session("/raw").await;
    let one = format!("/v1/connections/{}/close", rig.id("/raw").await);
    let many = "/v1/connections/close";
    let all = r#""filter": {"client": "127.0.0.0/8"}"#;
    let long = format!(r#"{{{all}, "reason": "{}"}}"#, "é".repeat(62));
    for (body, code, words) in [
        ("", "filter", &["name the sessions"] as &[&str]),
        ("{}", "filter", &["0.0.0.0/0"]),
        (r#"{"filter": {}}"#, "filter", &["at least one of"]),
        (r#"{"filter": null}"#, "filter", &[]),
        (r#"{"filter": {"route": null}}"#, "filter", &[]),
        (r#"{"filter": "all"}"#, "filter", &["an object", "\"all\""]),
        (r#"{"filter": {"rout": "/"}}"#, "field", &["did you mean \"route\"?"]),
        (r#"{"filter": {"ids": "x"}}"#, "ids", &["16 hexadecimal digits"]),
        (r#"{"filter": {"ids": ["x"]}}"#, "ids", &["16 hexadecimal digits"]),
        (r#"{"filter": {"client": "10.0.0.1/8"}}"#, "client", &["10.0.0.0/8"]),
        (r#"{"filter": {"misses_gte": -1}}"#, "misses_gte", &["a whole number"]),
        (&format!(r#"{{{all}, "dry_run": "yes"}}"#), "dry_run", &["true or false"]),
        (&format!(r#"{{{all}, "kode": 1000}}"#), "field", &["did you mean \"code\"?"]),
        (&format!(r#"{{{all}, "code": 1006}}"#), "code", &["1006", "RFC 6455"]),
        (&format!(r#"{{{all}, "code": 999}}"#), "code", &["999"]),
        (&format!(r#"{{{all}, "code": 1005}}"#), "code", &["1005"]),
        (&format!(r#"{{{all}, "code": 1015}}"#), "code", &["1015"]),
        (&format!(r#"{{{all}, "code": 5000}}"#), "code", &["5000"]),
        (&format!(r#"{{{all}, "code": 65536}}"#), "code", &["65536"]),
        (&format!(r#"{{{all}, "code": "1000"}}"#), "code", &["a close code"]),
        (&format!(r#"{{{all}, "reason": 5}}"#), "reason", &["a string"]),
        (&long, "reason", &["124 bytes", "123"]),
        ("[]", "json", &["an object"]),
        ("{", "json", &["no JSON"]),
        ("all of them", "json", &["no JSON"]),
        (&"[".repeat(60_000), "json", &["no JSON"]),
        (&format!("\"{}\"", "x".repeat(60_000)), "json", &["xxx…"]),
        ("\u{feff}{}", "json", &["no JSON"]),
    ] {
        rig.post(many, body).await.refuses(400, code, words);
        if !["filter", "ids", "client", "misses_gte", "dry_run"].contains(&code) && !body.contains("filter") {
            rig.post(&one, body).await.refuses(400, code, words);
        }
    }
    for (body, code) in [(r#"{"code": 1006}"#, "code"), (r#"{"filter": {"route": "/"}}"#, "field")] {
        rig.post(&one, body).await.refuses(400, code, &[]);
    }
    for path in ["/v1/drain", "/v1/reload"] {
        rig.post(path, r#"{"now": true}"#).await.refuses(400, "field", &["there is none here"]);
    }

    let body = format!("{{{all}}}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"] {
        let reply = rig.ask("POST", many, &[&format!("Content-Type: {kind}")], &body).await;
        reply.refuses(415, "content_type", &["application/json"]);
    }
    rig.ask("POST", many, &[], &body).await.refuses(415, "content_type", &[]);

    // Too large by its length, and found too large while it is read; a far larger one is not even read.
    let large = format!(r#"{{{all}, "reason": "{}"}}"#, "x".repeat(70_000));
    rig.post(many, &large).await.refuses(413, "body", &["65536 bytes"]);
    let chunk = "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n";
    let head = format!(
        "POST {many} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    rig.send(&format!("{head}{}0\r\n\r\n", chunk.repeat(3))).await.refuses(413, "body", &[]);
    let head = format!(
        "POST {many} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    );
    rig.send(&head).await.refuses(413, "body", &[]);

    // A body that breaks off is refused, even where the part that arrived is a valid request.
    let mut stream = rig.connect().await;
    let head = format!(
        "POST {many} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len() + 1
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    drop(stream);

    let list = rig.get("/v1/connections").await;
    assert!(list["total"] == 1 && connections(&list)[0]["state"] == "open", "{list}");
    assert_eq!(rig.get("/v1/drain").await["phase"], "serving");
    assert_eq!(rig.proxy.logged("admin.close").len(), 0);
    assert_eq!(rig.proxy.logged("admin.drain").len(), 0);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn what_is_no_http_is_hung_up_on() {
    let rig = Rig::start().await;
    for bytes in ["nonsense\r\n\r\n", "GET /v1/info HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n"] {
        let Reply { status, .. } = rig.send(bytes).await;
        assert_eq!(status, 400, "{bytes:?}");
    }
    let many = "X-Many: 1\r\n".repeat(100);
    let Reply { status, .. } = rig.send(&format!("GET /v1/info HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")).await;
    assert_eq!(status, 431, "too many header fields");
    let large = "x".repeat(40_000);
    let Reply { status, .. } =
        rig.send(&format!("GET /v1/info HTTP/1.1\r\nHost: localhost\r\nX: {large}\r\n\r\n")).await;
    assert_eq!(status, 431, "a head that is too large");
    assert_eq!(rig.get("/v1/info").await["dev"], false);
    rig.proxy.finish().await;
}
