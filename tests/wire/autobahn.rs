//! Cases of the Autobahn test suite as raw bytes, against an echo server of the package `ws`: the client receives the
//! same through the proxy as directly, and as promptly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulsegate_test_kit::frame::{BINARY, CLOSE, LengthForm, PING, Role, TEXT};
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::turn::busy_turn;
use tokio::process::Command;

use crate::PULSEGATE;
use crate::wire::peer::{Connect, MUTE, Peer};
use crate::wire::record::Record;
use crate::wire::rig::{secs, together, variant};

/// A FIN arrives within this time, and not after `close_grace`.
const PROMPT: Duration = Duration::from_secs(1);

/// The echo server, and a proxy in front of it.
struct Echo {
    _server: Process,
    address: std::net::SocketAddr,
    proxy: Proxy,
}

/// A case: its number, and the bytes that the client sends, one write for each element.
struct Case {
    number: String,
    writes: Vec<Vec<u8>>,
}

impl Echo {
    async fn start() -> Arc<Self> {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/echo.mjs");
        let mut command = Command::new("node");
        command.arg(script).current_dir(project("express"));
        let server = Process::start("echo.mjs", &mut command);
        let listening = server.line("the echo server listens", |line| line.text.starts_with("listening ")).await;
        let port: u16 = listening.text.trim_start_matches("listening ").parse().expect("a port");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let heartbeat = "[heartbeat]\ninterval = \"60s\"\ntimeout = \"5s\"\nclose_grace = \"4s\"";
        let config = Config::to(PULSEGATE, &format!("http://{address}"));
        let config = config.listen("workers = 1").upstream("interval = \"off\"").with(heartbeat);
        Arc::new(Self { _server: server, address, proxy: Proxy::start(config).await })
    }

    /// Returns what a client that sends `case` receives, and the time from its last write to the end.
    async fn run(&self, case: &Case, direct: bool) -> (Record, Duration) {
        let tls = (!direct).then(|| self.proxy.pki.client());
        let address = if direct { self.address } else { self.proxy.address };
        let path = format!("/{}", case.number);
        let client = Peer::connect(address, &path, Connect { tls, ..Connect::default() }).await;
        client.habits(MUTE);
        let mut sent = Instant::now();
        for write in &case.writes {
            // The server may end the connection before all is sent.
            let _ = client.try_send(write).await;
            sent = Instant::now();
        }
        let seen = client.ended(secs(10)).await;
        let took = seen.ended_after(sent);
        (seen, took)
    }
}

/// Returns data frames and codes: reasons differ between implementations.
fn outcome(record: &Record) -> Vec<(u8, Vec<u8>)> {
    let frames = record.frames.iter().map(|(frame, _)| frame);
    let payload = |opcode, payload: &[u8]| {
        if opcode == CLOSE { payload[..payload.len().min(2)].to_vec() } else { payload.to_vec() }
    };
    frames.map(|frame| (frame.opcode(), payload(frame.opcode(), &frame.payload))).collect()
}

async fn like_direct(echo: Arc<Echo>, case: Case) {
    let number = &case.number;
    let ((direct, _), (proxied, took)) = tokio::join!(echo.run(&case, true), echo.run(&case, false));
    assert_eq!(outcome(&proxied), outcome(&direct), "{number}: proxied {proxied:?}\ndirect {direct:?}");
    assert_eq!(proxied.empty, direct.empty, "{number}: proxied {proxied:?}\ndirect {direct:?}");
    assert_eq!(proxied.ended_with_fin(), direct.ended_with_fin(), "{number}: proxied {proxied:?}\ndirect {direct:?}");
    assert!(took < PROMPT, "{number}: the end came after {took:?}: {proxied:?}");
    let line = echo.proxy.ws_close(|line| line["url.path"] == format!("/{number}")).await;
    let code = proxied.codes().first().copied().unwrap_or(1006);
    assert_eq!(line.json["close.code"], code, "{number}: {} for {proxied:?}", line.text);
}

async fn all(cases: Vec<Case>) {
    let echo = Echo::start().await;
    let run = |case: Case| variant(case.number.clone(), like_direct(Arc::clone(&echo), case));
    together(cases.into_iter().map(run).collect()).await;
}

/// Returns a case with all frames in one write.
fn at_once(number: impl Into<String>, frames: impl AsRef<[Vec<u8>]>) -> Case {
    Case { number: number.into(), writes: vec![frames.as_ref().concat()] }
}

/// Returns a case with one write for each frame.
fn frame_by_frame(number: impl Into<String>, frames: Vec<Vec<u8>>) -> Case {
    Case { number: number.into(), writes: frames }
}

/// Returns a frame with RSV bits.
fn reserved(rsv: u8, opcode: u8, payload: &[u8]) -> Vec<u8> {
    Role::Client.raw(0x80 | rsv << 4 | opcode, LengthForm::Minimal, payload)
}

#[tokio::test]
async fn s68_cases_7_3_to_7_9_end_as_they_do_directly() {
    let _turn = busy_turn().await;
    let close = |number: &str, payload: &[u8]| at_once(number, vec![Role::Client.frame(CLOSE, payload)]);
    let with_code = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    let mut cases = vec![
        close("7.3.1", b""),
        close("7.3.2", b"a"),
        close("7.3.3", &with_code(1000, b"")),
        close("7.3.4", &with_code(1000, b"Hello World!")),
        close("7.3.5", &with_code(1000, &[b'*'; 123])),
        close("7.3.6", &with_code(1000, &[b'*'; 124])),
        close("7.5.1", &with_code(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")),
    ];
    let valid = [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    cases.extend(
        valid.iter().enumerate().map(|(index, code)| close(&format!("7.7.{}", index + 1), &with_code(*code, b""))),
    );
    let invalid = [0_u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    cases.extend(
        invalid.iter().enumerate().map(|(index, code)| close(&format!("7.9.{}", index + 1), &with_code(*code, b""))),
    );
    all(cases).await;
}

#[tokio::test]
async fn s69_cases_3_and_4_end_as_they_do_directly() {
    let _turn = busy_turn().await;
    let (text, ping) = (Role::Client.text("Hello, world!"), Role::Client.frame(PING, b""));
    let octets = |frames: &[Vec<u8>]| frames.concat().iter().map(|octet| vec![*octet]).collect();
    let three_four = [text.clone(), reserved(4, TEXT, b"Hello, world!"), ping.clone()];
    let mut cases = vec![
        at_once("3.1", vec![reserved(1, TEXT, b"Hello, world!")]),
        at_once("3.2", vec![text.clone(), reserved(2, TEXT, b"Hello, world!"), ping.clone()]),
        frame_by_frame("3.3", vec![text.clone(), reserved(3, TEXT, b"Hello, world!"), ping.clone()]),
        Case { number: "3.4".into(), writes: octets(&three_four) },
        at_once("3.5", vec![reserved(5, BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
        at_once("3.6", vec![reserved(6, PING, b"Hello, world!")]),
        at_once("3.7", vec![reserved(7, CLOSE, b"")]),
    ];
    for (group, first) in [(1, 3_u8), (2, 11)] {
        let (no_payload, payload) = (|op| Role::Client.frame(op, b""), |op| Role::Client.frame(op, b"reserved"));
        cases.push(at_once(format!("4.{group}.1"), vec![no_payload(first)]));
        cases.push(at_once(format!("4.{group}.2"), vec![payload(first + 1)]));
        cases.push(frame_by_frame(format!("4.{group}.3"), vec![text.clone(), no_payload(first + 2), ping.clone()]));
        cases.push(frame_by_frame(format!("4.{group}.4"), vec![text.clone(), payload(first + 3), ping.clone()]));
        cases.push(at_once(format!("4.{group}.5"), vec![text.clone(), payload(first + 4), ping.clone()]));
    }
    all(cases).await;
}

#[tokio::test]
async fn s69_cases_5_end_as_they_do_directly() {
    let _turn = busy_turn().await;
    let text =
        |fin: bool, text: &str| Role::Client.raw(if fin { 0x81 } else { 0x01 }, LengthForm::Minimal, text.as_bytes());
    let more =
        |fin: bool, text: &str| Role::Client.raw(if fin { 0x80 } else { 0x00 }, LengthForm::Minimal, text.as_bytes());
    let whole = [text(false, "fragment1"), more(true, "fragment2")];
    let nothing = |fin: bool| vec![more(fin, "non-continuation payload"), text(true, "Hello, world!")];
    all(vec![
        at_once("5.1", vec![Role::Client.fragment(PING, b"fragment1"), more(true, "fragment2")]),
        at_once("5.9", nothing(true)),
        frame_by_frame("5.10", nothing(true)),
        at_once("5.12", nothing(false)),
        at_once("5.15", [&whole[..], &[more(false, "fragment3"), text(true, "fragment4")]].concat()),
        frame_by_frame("5.16", vec![more(false, "fragment1"), text(false, "fragment2"), more(true, "fragment3")]),
        at_once("5.18", vec![text(false, "fragment1"), text(true, "fragment2")]),
    ])
    .await;
}
