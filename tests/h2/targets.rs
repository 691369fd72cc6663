//! Targets that the library refuses and servers pass, as the app gets them.

use std::time::Duration;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::process::OutputLine;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::sleep;

use crate::PULSEGATE;
use crate::h2::raw::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PROTOCOL_ERROR, RST_STREAM, Raw,
};

const ODD: [&str; 4] = [r#"/a?filter={"room":1}"#, "/<a>`?b=<c>`|^{}", r#"/"?""#, "/>>>?>>>"];

const PRIORITIZED: u8 = 0x20;

/// An app that answers with the request line.
async fn app() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        let line = request.head.lines().next().unwrap_or_default();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", line.len());
        let _ = stream.write_all(format!("{head}{line}").as_bytes()).await;
    })
    .await
}

/// The body of the answer on `stream`.
async fn answer(client: &mut Raw, stream: u32) -> String {
    let mut body = Vec::new();
    loop {
        let frame = client.until("an answer", |frame| frame.stream == stream && frame.kind != HEADERS).await;
        assert_eq!(frame.kind, DATA, "{frame:?} after {:?}", String::from_utf8_lossy(&body));
        body.extend_from_slice(&frame.payload);
        if frame.flags & END_STREAM != 0 {
            return String::from_utf8(body).expect("text");
        }
    }
}

#[tokio::test]
async fn what_servers_pass_passes_unchanged() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut stream = 1;
    for target in ODD {
        let block = raw::block(&raw::get(target));
        let padded = [&[9][..], &block, &[0; 9]].concat();
        let prioritized = [&[0, 0, 0, 0, 7][..], &block].concat();
        for (flags, payload) in [(0, &block), (PADDED, &padded), (PRIORITIZED, &prioritized)] {
            let frame = raw::frame(HEADERS, END_HEADERS | END_STREAM | flags, stream, payload);
            // In one piece and in several.
            for piece in frame.chunks(if flags == 0 { 20 } else { frame.len() }) {
                client.write(piece).await;
            }
            assert_eq!(answer(&mut client, stream).await, format!("GET {target} HTTP/1.1"));
            stream += 2;
        }
        let is_its = |line: &OutputLine| line.json["message"] == "http.access" && line.json["url.path"] == path(target);
        let line = proxy.line("its access line", is_its).await.json;
        assert_eq!(line["http.response.status_code"], 200, "{line}");
    }
    proxy.finish().await;
}

fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}

#[tokio::test]
async fn a_path_in_the_table_passes_unchanged_each_time() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    let rest = &raw::block(&raw::get("/")[..3]);
    // `/"<>`, coded and not, entered in the table; then by their indices.
    let coded = [rest, &b"\x44\x86\x63\xf9\xff\xf9\xff\x7f"[..]].concat();
    let plain = [rest, &b"\x44\x03/\"1"[..]].concat();
    for (stream, block, target) in [
        (1, &coded, "/\"<>"),
        (3, &plain, "/\"1"),
        (5, &[rest, &b"\xbe"[..]].concat(), "/\"1"),
        (7, &[rest, &b"\xbf"[..]].concat(), "/\"<>"),
        (9, &[rest, &b"\x04\x02/a"[..]].concat(), "/a"),
    ] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, block).await;
        assert_eq!(answer(&mut client, stream).await, format!("GET {target} HTTP/1.1"));
    }
    proxy.finish().await;
}

#[tokio::test]
async fn curl_sends_them() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    for version in ["--http2", "--http1.1"] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--globoff", "--path-as-is", version, "--cacert"]).arg(&proxy.pki.ca);
        let [a, b, c, d] = ODD;
        let targets = [a, b, c, d, a, b];
        command.args(targets.iter().map(|target| proxy.https(target)));
        let output = wait_for("curl ends", command.output()).await.expect("curl runs: apt-get install -y curl");
        let expected = targets.map(|target| format!("GET {target} HTTP/1.1")).concat();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, expected, "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
    proxy.finish().await;
}

#[tokio::test]
async fn an_upgrade_keeps_its_target() {
    let (fake, mut sessions) = FakeApp::sessions().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &fake.url)).await;
    let mut client = Raw::connect(&proxy).await;
    let target = r#"/echo?filter={"room":1}"#;
    client.send(HEADERS, END_HEADERS, 1, &raw::block(&raw::connect(target))).await;
    let (request, app) = wait_for("the app is asked", sessions.recv()).await.expect("a session");
    assert_eq!(request.path(), target);
    client.until("a 200", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    drop((client, app));
    proxy.finish().await;
}

#[tokio::test]
async fn targets_of_another_form_are_refused() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    for (stream, target) in [(1, "/x#y"), (3, "/\"#"), (5, "/?a#b\"")] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&raw::get(target))).await;
        assert_eq!(answer(&mut client, stream).await, "400 Bad Request: target\n", "{target}");
    }
    for (stream, target) in [(7, ">"), (9, "/a b\""), (11, "\"")] {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &raw::block(&raw::get(target))).await;
        let reset = client.until("a reset", |frame| frame.kind == RST_STREAM && frame.stream == stream).await;
        assert_eq!(reset.code(), Some(PROTOCOL_ERROR), "{target}");
    }
    // In several frames the library refuses it.
    let block = raw::block(&raw::get("/<"));
    client.send(HEADERS, END_STREAM, 13, &block[..9]).await;
    client.send(CONTINUATION, END_HEADERS, 13, &block[9..]).await;
    client.until("a reset", |frame| frame.kind == RST_STREAM && frame.stream == 13).await;
    client.send(HEADERS, END_HEADERS | END_STREAM, 15, &raw::block(&raw::get("/\""))).await;
    assert_eq!(answer(&mut client, 15).await, "GET /\" HTTP/1.1");
    proxy.finish().await;
}

#[tokio::test]
async fn a_long_block_in_pieces_is_one_block() {
    let app = app().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Raw::connect(&proxy).await;
    let mut block = raw::block(&raw::get("/\"long\""));
    // Within `limits.headers` and `limits.header_bytes`; longer than what is read at once.
    for _ in 0..90 {
        block.extend(raw::block(&[("x-field", &*"long".repeat(30))]));
    }
    let frame = raw::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let (most, last) = frame.split_at(frame.len() - 1);
    for piece in most.chunks(1000) {
        client.write(piece).await;
        // Time for the piece to be read by itself; the test holds without it as well.
        sleep(Duration::from_millis(5)).await;
    }
    client.write(last).await;
    assert_eq!(answer(&mut client, 1).await, "GET /\"long\" HTTP/1.1");
    proxy.finish().await;
}
