//! The events of sessions, as they occur.

use pulsegate_test_kit::http1::{header_lines, read_chunk, read_head};
use pulsegate_test_kit::wait::wait_for;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::admin::api::is_whole;
use crate::admin::rig::{Rig, keys, request};

/// A reader of the stream.
pub(crate) struct Events {
    stream: UnixStream,
    read: String,
}

/// One event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Events {
    /// Follows all events from now on.
    pub(crate) async fn follow(rig: &Rig) -> Self {
        Self::after(rig, None).await
    }

    /// Follows all events after the one with this id.
    pub(crate) async fn after(rig: &Rig, last: Option<u64>) -> Self {
        let mut stream = rig.connect().await;
        let last = last.map(|last| format!("Last-Event-ID: {last}"));
        let headers = ["Host: localhost"].into_iter().chain(last.as_deref());
        stream.write_all(request("GET", "/v1/events", headers, "").as_bytes()).await.expect("it reads");
        let head = wait_for("the head", read_head(&mut stream)).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-store")] {
            assert!(header_lines(&head).any(|field| field == (name, value)), "no {name}: {value} in {head}");
        }
        let mut events = Self { stream, read: String::new() };
        let first = events.block().await;
        assert_eq!(first, "retry: 1000");
        events
    }

    /// Reads the lines up to the next empty one.
    async fn block(&mut self) -> String {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let rest = self.read.split_off(end + 2);
                let block = std::mem::replace(&mut self.read, rest);
                return block.trim_end().to_owned();
            }
            let chunk = wait_for("a chunk", read_chunk(&mut self.stream)).await.expect("the stream goes on");
            assert!(!chunk.is_empty(), "the stream ended");
            self.read += str::from_utf8(&chunk).expect("UTF-8");
        }
    }

    /// Returns the next event.
    pub(crate) async fn next(&mut self) -> Event {
        let block = self.block().await;
        let mut event = Event { id: None, name: String::new(), data: Value::Null };
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.parse().ok(),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("JSON"),
                other => panic!("{other:?} in {block:?}"),
            }
        }
        event
    }

    /// Returns the next event of this name; only statistics may come before it.
    pub(crate) async fn of(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
            assert_eq!(event.name, "stats", "{name} was to come, not {event:?}");
        }
    }
}

#[tokio::test]
async fn an_open_a_miss_and_a_close_are_events() {
    let mut rig = Rig::with(|config| config.with("[heartbeat]\ninterval = \"300ms\"\ntimeout = \"1s\"\n")).await;
    let mut events = Events::follow(&rig).await;
    let stats = events.next().await;
    assert_eq!((stats.id, &*stats.name), (None, "stats"));
    let known = [
        "at",
        "buffered",
        "closed_total",
        "draining",
        "generation",
        "in",
        "missing",
        "open",
        "opened_total",
        "out",
        "phase",
        "rtt",
    ];
    assert_eq!(keys(&stats.data), known);
    for way in ["in", "out"] {
        assert_eq!(keys(&stats.data[way]), ["bytes", "msgs"]);
    }
    assert_eq!(keys(&stats.data["rtt"]), ["count", "max_s", "p50_s", "p90_s", "p99_s"]);
    assert_eq!((&stats.data["open"], &stats.data["phase"]), (&0.into(), &"serving".into()));

    // No client code answers pings here.
    let (client, _app) = rig.session("/raw").await;
    let open = events.of("open").await;
    assert_eq!(open.id, Some(1));
    is_whole(&open.data);
    assert_eq!((&open.data["state"], &open.data["path"]), (&"open".into(), &"/raw".into()));
    let miss = events.of("miss").await;
    assert_eq!((miss.id, keys(&miss.data)), (Some(2), vec!["at", "id", "max", "misses"]));
    assert_eq!(miss.data["id"], open.data["id"]);
    assert_eq!((&miss.data["misses"], &miss.data["max"]), (&1.into(), &1.into()));
    let close = events.of("close").await;
    assert_eq!(close.id, Some(3));
    is_whole(&close.data);
    assert_eq!(close.data["id"], open.data["id"]);
    let facts = &close.data["close"];
    assert_eq!((&facts["reason"], &facts["initiator"]), (&"heartbeat_timeout".into(), &"proxy".into()));
    let sentence = facts["sentence"].as_str().unwrap_or_default();
    assert_eq!(sentence, "client never answered: 1 probe went out, and no pong came back");
    drop(client);

    // Once a second.
    let first = events.of("stats").await.data["at"].as_f64().expect("a number");
    let second = events.of("stats").await;
    assert_eq!((&second.data["opened_total"], &second.data["closed_total"]), (&1.into(), &1.into()));
    let between = second.data["at"].as_f64().expect("a number") - first;
    assert!((0.5..10.0).contains(&between), "{between}");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_reader_resumes_after_the_last_event_it_got() {
    let mut rig = Rig::start().await;
    let mut events = Events::follow(&rig).await;
    drop(rig.session("/raw/1").await);
    assert_eq!(events.of("open").await.id, Some(1));
    drop(events);
    rig.proxy.ws_closes(1).await;
    drop(rig.session("/raw/2").await);
    rig.proxy.ws_closes(2).await;

    let mut events = Events::after(&rig, Some(1)).await;
    for (id, name, path) in [(2, "close", "/raw/1"), (3, "open", "/raw/2"), (4, "close", "/raw/2")] {
        let event = events.of(name).await;
        assert_eq!((event.id, &event.data["path"]), (Some(id), &path.into()), "{event:?}");
    }
    // An id of another process: the stream begins with the oldest event.
    let mut events = Events::after(&rig, Some(999)).await;
    assert_eq!(events.of("open").await.id, Some(1));
    // Without an id, no earlier event is sent.
    let mut events = Events::follow(&rig).await;
    drop(rig.session("/raw/3").await);
    assert_eq!(events.of("open").await.id, Some(5));
    for last in ["x", "-1", "1.5", ""] {
        let reply = rig.ask("GET", "/v1/events", &[&format!("Last-Event-ID: {last}")], "").await;
        reply.refuses(400, "last_event_id", &["a whole number"]);
    }
    rig.proxy.finish().await;
}

#[tokio::test]
async fn what_is_too_long_ago_is_counted_as_lost() {
    // Two events for each session, and some more than the ring holds.
    const SESSIONS: usize = 2100;
    let rig = Rig::start().await;
    let opening = async |count: usize| {
        for _ in 0..count {
            let mut session = rig.proxy.websocket("/echo").await;
            session.close(None).await.expect("it is open");
        }
    };
    tokio::join!(opening(SESSIONS / 3), opening(SESSIONS / 3), opening(SESSIONS / 3));
    rig.proxy.ws_closes(SESSIONS).await;
    let mut events = Events::after(&rig, Some(1)).await;
    let lost = events.of("lost").await;
    assert_eq!((lost.id, keys(&lost.data)), (None, vec!["count"]));
    let lost = lost.data["count"].as_u64().expect("a number");
    assert_eq!(lost, 2 * SESSIONS as u64 - 1 - 4096);
    assert_eq!(events.next().await.id, Some(1 + lost + 1), "the oldest that is still there");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn the_end_of_the_program_ends_the_stream_behind_the_last_event() {
    let mut rig = Rig::start().await;
    let mut events = Events::follow(&rig).await;
    let (_client, _app) = rig.session("/raw").await;
    events.of("open").await;
    rig.proxy.terminate();
    let close = events.of("close").await;
    assert_eq!(close.data["close"]["reason"], "drain", "{close:?}");
    let rest = async {
        while let Some(chunk) = read_chunk(&mut events.stream).await {
            if chunk.is_empty() {
                return true;
            }
        }
        false
    };
    assert!(wait_for("the end of the stream", rest).await, "an orderly one");
}
