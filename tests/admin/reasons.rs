//! Every end of a session, caused on the built binary, and compared with the table of `deploy/CLOSE_REASONS.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pulsegate_test_kit::client::Tls;
use pulsegate_test_kit::frame::{BINARY, CLOSE, FIN, Frame, PING, PONG, TEXT};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::admin::rig::{Rig, connections, keys};

/// The heading of the table.
const SECTION: &str = "\n## Every end\n";
/// The last fields of a line, in their order.
const TAIL: [&str; 6] =
    ["close.initiator", "close.reason", "close.code", "close.text", "close.detail", "upstream.close_code"];

/// One row of the table.
#[derive(Debug)]
struct Row {
    reason: String,
    initiator: String,
    sentence: String,
    client: String,
    app: String,
    tail: String,
}

/// Returns the text of `deploy/CLOSE_REASONS.md`.
fn paper() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/CLOSE_REASONS.md");
    fs::read_to_string(file).expect("the paper is readable")
}

/// Returns the line that the document shows.
fn documented_line() -> Value {
    let paper = paper();
    let text = paper.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```")).expect("a line of JSON").0;
    serde_json::from_str(text).expect("JSON")
}

/// Returns the rows of the table.
fn documented() -> Vec<Row> {
    let paper = paper();
    let (_, section) = paper.split_once(SECTION).unwrap_or_else(|| panic!("no {SECTION:?} in the paper"));
    let section = section.split("\n#").next().unwrap_or_default();
    // The first two lines are its head.
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [reason, initiator, sentence, client, app, tail] = cells[..] else { panic!("not six cells: {line}") };
        let code = |cell: &str| cell.trim_matches('`').to_owned();
        Row {
            reason: code(reason),
            initiator: code(initiator),
            sentence: sentence.to_owned(),
            client: client.to_owned(),
            app: app.to_owned(),
            tail: code(tail),
        }
    });
    rows.collect()
}

/// The end that a client or an app saw, as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Saw {
    Close(u16, String),
    /// The end, or a reset.
    End,
}

impl Saw {
    fn text(&self) -> String {
        match self {
            Self::Close(code, text) if text.is_empty() => code.to_string(),
            Self::Close(code, text) => format!("{code} `{text}`"),
            Self::End => "no Close".to_owned(),
        }
    }
}

/// Reads past everything else until a Close or the end, and answers the Close.
async fn end_of(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), masked: bool) -> Saw {
    let reading = async {
        while let Some(frame) = Frame::read(stream).await {
            if frame.opcode() == CLOSE {
                let make = if masked { Frame::client } else { Frame::server };
                let _ = stream.write_all(&make(FIN | CLOSE, frame.payload.clone()).bytes()).await;
                let _ = stream.flush().await;
                let (code, text) = frame.close().unwrap_or((1005, String::new()));
                return Saw::Close(code, text);
            }
        }
        Saw::End
    };
    wait_for("the end of a leg", reading).await
}

/// The ends that the client and the app saw.
type Seen = JoinHandle<(Saw, Saw)>;

/// Makes both ends wait for the end of the session.
fn both_wait(mut client: Tls, mut app: TcpStream) -> Seen {
    tokio::spawn(async move { tokio::join!(end_of(&mut client, true), end_of(&mut app, false)) })
}

/// Sends `bytes` from the client; then both wait.
async fn client_sends(mut client: Tls, app: TcpStream, bytes: Vec<u8>) -> Seen {
    client.write_all(&bytes).await.expect("it is open");
    client.flush().await.expect("it is open");
    both_wait(client, app)
}

/// Sends `bytes` from the app; then both wait.
async fn app_sends(client: Tls, mut app: TcpStream, bytes: Vec<u8>) -> Seen {
    app.write_all(&bytes).await.expect("it is open");
    both_wait(client, app)
}

fn close(frame: fn(u8, Vec<u8>) -> Frame, code: u16, text: &str) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), text.as_bytes()].concat()).bytes()
}

/// The routes on which sessions end sooner than by default.
const ROUTES: &str = r#"
[[route]]
path = "/silent"
heartbeat = { interval = "500ms", timeout = "1s" }
[[route]]
path = "/stalled"
heartbeat = { write_stall = "1500ms" }
[[route]]
path = "/trickling"
heartbeat = { interval = "400ms", timeout = "400ms", frame_max_time = "1s" }
[[route]]
path = "/limited"
limits = { message = "1KiB", messages_per_second = 20 }
[[route]]
path = "/hung"
heartbeat = { mode = "off" }
upstream = { interval = "300ms", timeout = "400ms", give_up = "1500ms", probe = "off" }
"#;

/// Answers one ping of the client's, late, and no other.
async fn answers_once(client: &mut Tls) {
    loop {
        let frame = wait_for("a ping", Frame::read(client)).await.expect("it is open");
        if frame.opcode() == PING {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            client.write_all(&Frame::client(FIN | PONG, frame.payload).bytes()).await.expect("it is open");
            return client.flush().await.expect("it is open");
        }
    }
}

async fn answering_once(mut client: Tls, app: TcpStream) -> (Saw, Saw) {
    answers_once(&mut client).await;
    both_wait(client, app).await.expect("no panic")
}

/// Sends from the app while the client reads nothing until its session is over.
async fn not_reading(client: Tls, app: TcpStream) -> (Saw, Saw) {
    let (mut reading, mut writing) = app.into_split();
    let flood = tokio::spawn(async move {
        let frame = Frame::server(FIN | BINARY, vec![7; 65_536]).bytes();
        while writing.write_all(&frame).await.is_ok() {}
    });
    let app_saw = wait_for("the end of the app", async {
        loop {
            match Frame::read(&mut reading).await {
                Some(frame) if frame.opcode() == CLOSE => {
                    let (code, text) = frame.close().unwrap_or((1005, String::new()));
                    return Saw::Close(code, text);
                }
                Some(_) => {}
                None => return Saw::End,
            }
        }
    })
    .await;
    flood.abort();
    let mut client = client;
    (end_of(&mut client, true).await, app_saw)
}

async fn trickling(client: Tls, mut app: TcpStream) -> (Saw, Saw) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let trickle = tokio::spawn(async move {
        for byte in Frame::client(FIN | BINARY, vec![7; 100_000]).bytes() {
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let app_end = async {
        let mut rest = Vec::new();
        let _ = app.read_to_end(&mut rest).await;
        // Half a frame, and no Close after it.
        Saw::End
    };
    let client_end = async {
        match Frame::read_past_pings(&mut reader).await.and_then(|frame| frame.close()) {
            Some((code, text)) => Saw::Close(code, text),
            None => Saw::End,
        }
    };
    let seen = wait_for("both legs end", async { tokio::join!(client_end, app_end) }).await;
    trickle.abort();
    seen
}

/// An end that the table must have a row for.
struct Case {
    /// The path of its session, which no other case has.
    path: &'static str,
    seen: (Saw, Saw),
}

/// Causes every end but the last two: age and drain apply to all sessions of a proxy.
async fn bring_about(rig: &mut Rig) -> Vec<Case> {
    let mut running: Vec<(&'static str, Seen)> = Vec::new();
    let flood: Vec<u8> = (0..200).flat_map(|_| Frame::client(FIN | TEXT, "hello").bytes()).collect();
    let orders = [
        ("/left", close(Frame::client, 1000, "bye"), true),
        ("/away", close(Frame::client, 1001, ""), true),
        ("/banned", close(Frame::server, 4003, "banned"), false),
        ("/limited/client", Frame::client(FIN | BINARY, vec![0; 1025]).bytes(), true),
        ("/limited/app", Frame::server(FIN | BINARY, vec![0; 1025]).bytes(), false),
        ("/limited/rate", flood, true),
        ("/broken/client", Frame::server(FIN | TEXT, "bare").bytes(), true),
        ("/broken/app", Frame::client(FIN | TEXT, "masked").bytes(), false),
    ];
    for (path, bytes, by_client) in orders {
        let (client, app) = rig.session(path).await;
        let seen = if by_client { client_sends(client, app, bytes).await } else { app_sends(client, app, bytes).await };
        running.push((path, seen));
    }
    let (client, app) = rig.session("/silent").await;
    running.push(("/silent", tokio::spawn(answering_once(client, app))));
    let (client, app) = rig.session("/stalled").await;
    running.push(("/stalled", tokio::spawn(not_reading(client, app))));
    let (client, app) = rig.session("/trickling").await;
    running.push(("/trickling", tokio::spawn(trickling(client, app))));
    let (client, app) = rig.session("/hung").await;
    running.push(("/hung", both_wait(client, app)));

    let (client, mut app) = rig.session("/gone").await;
    drop(client);
    running.push(("/gone", tokio::spawn(async move { (Saw::End, end_of(&mut app, false).await) })));
    let (mut client, app) = rig.session("/lost").await;
    drop(app);
    running.push(("/lost", tokio::spawn(async move { (end_of(&mut client, true).await, Saw::End) })));
    let (client, mut app) = rig.session("/gone/reset").await;
    client.get_ref().0.set_zero_linger().expect("it is open");
    drop(client);
    running.push(("/gone/reset", tokio::spawn(async move { (Saw::End, end_of(&mut app, false).await) })));
    let (mut client, app) = rig.session("/lost/reset").await;
    app.set_zero_linger().expect("it is open");
    drop(app);
    running.push(("/lost/reset", tokio::spawn(async move { (end_of(&mut client, true).await, Saw::End) })));
    let (client, app) = rig.session("/operated").await;
    let id = rig.id("/operated").await;
    assert_eq!(rig.post(&format!("/v1/connections/{id}/close"), "").await.status, 200);
    running.push(("/operated", both_wait(client, app)));

    let mut cases = Vec::new();
    for (path, seen) in running {
        let seen = wait_for(path, seen).await;
        let seen = seen.unwrap_or_else(|error| panic!("{path}: {error}; the log:\n{}", rig.proxy.transcript()));
        cases.push(Case { path, seen });
    }
    cases
}

/// Removes numbers and units of time, which differ from run to run; codes stay.
fn shape(sentence: &str) -> String {
    let mut shape = String::new();
    let mut words = sentence.split(' ').peekable();
    while let Some(word) = words.next() {
        let is_number = word.parse::<f64>().is_ok();
        let unit = words.peek().map(|unit| unit.trim_end_matches([',', ';']));
        if is_number && unit.is_some_and(|unit| ["ms", "s", "min", "h"].contains(&unit)) {
            let punctuation = words.next().map_or("", |unit| unit.trim_start_matches(|c: char| c.is_alphabetic()));
            let _ = write!(shape, "TIME{punctuation} ");
        } else {
            let _ = write!(shape, "{word} ");
        }
    }
    shape.trim_end().to_owned()
}

/// Returns the end of the line in the human format: `name=value`, text in quotes.
fn tail(line: &Value) -> String {
    let present = TAIL.iter().filter(|field| !line[**field].is_null());
    present.map(|field| format!("{field}={}", line[*field])).collect::<Vec<_>>().join(" ")
}

/// Finds the row of `case`; on failure returns the difference.
fn compare(rows: &mut Vec<Row>, line: &Value, sentence: &str, seen: &(Saw, Saw)) -> Result<(), String> {
    let found = |row: &Row| row.tail == tail(line) && shape(&row.sentence) == shape(sentence);
    let happened = format!(
        "| `{}` | `{}` | {sentence} | {} | {} | `{}` |",
        line["close.reason"].as_str().unwrap_or_default(),
        line["close.initiator"].as_str().unwrap_or_default(),
        seen.0.text(),
        seen.1.text(),
        tail(line),
    );
    let Some(at) = rows.iter().position(found) else { return Err(happened) };
    let row = rows.swap_remove(at);
    let same = line["close.reason"] == row.reason
        && line["close.initiator"] == row.initiator
        && row.client == seen.0.text()
        && row.app == seen.1.text();
    if same { Ok(()) } else { Err(happened) }
}

#[tokio::test]
async fn the_table_of_close_reasons_is_what_happens() {
    let mut rows = documented();
    let mut wrong = Vec::new();
    let mut check = |line: &Value, sentence: &str, seen: &(Saw, Saw)| {
        if let Err(happened) = compare(&mut rows, line, sentence, seen) {
            wrong.push(happened);
        }
    };
    let sentence_of = |list: &Value, path: &str| -> String {
        let conn = connections(list).iter().find(|conn| conn["path"] == path);
        let conn = conn.unwrap_or_else(|| panic!("{path} is not in {list}"));
        conn["close"]["sentence"].as_str().expect("a sentence").to_owned()
    };
    let mut rig = Rig::with(|config| config.with(ROUTES)).await;
    let mut events = crate::admin::events::Events::follow(&rig).await;
    let cases = bring_about(&mut rig).await;
    rig.proxy.ws_closes(cases.len()).await;
    let list = rig.get("/v1/connections?state=closed&limit=1000").await;
    let silent = rig.proxy.ws_close(|line| line["url.path"] == "/silent").await.json;
    // A client need not send a User-Agent.
    let shown = documented_line();
    let shown: Vec<_> = keys(&shown).into_iter().filter(|key| *key != "user_agent.original").collect();
    assert_eq!(shown, keys(&silent), "the fields of the line in the paper, and of {silent}");
    for case in &cases {
        let line = rig.proxy.ws_close(|line| line["url.path"] == case.path).await.json;
        check(&line, &sentence_of(&list, case.path), &case.seen);
    }

    // The last session is open when the proxy shuts down.
    let (client, app) = rig.session("/drained").await;
    let seen = both_wait(client, app);
    rig.proxy.terminate();
    let line = rig.proxy.ws_close(|line| line["url.path"] == "/drained").await.json;
    let sentence = loop {
        let event = events.next().await;
        if event.name == "close" && event.data["path"] == "/drained" {
            break event.data["close"]["sentence"].as_str().expect("a sentence").to_owned();
        }
    };
    check(&line, &sentence, &wait_for("/drained", seen).await.expect("no panic"));

    let mut rig = Rig::with(|config| {
        config.drain("delay = \"0s\"").drain("window = \"0s\"").drain("max_connection_age = \"500ms\"")
    })
    .await;
    let (client, app) = rig.session("/old").await;
    let seen = wait_for("/old", both_wait(client, app)).await.expect("no panic");
    let line = rig.proxy.ws_close(|line| line["url.path"] == "/old").await.json;
    let list = rig.get("/v1/connections?state=closed").await;
    check(&line, &sentence_of(&list, "/old"), &seen);
    rig.proxy.finish().await;

    assert!(wrong.is_empty(), "deploy/CLOSE_REASONS.md does not have\n{}", wrong.join("\n"));
    assert!(rows.is_empty(), "nothing like this has happened: {rows:#?}");
}
