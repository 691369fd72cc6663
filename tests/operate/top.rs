//! `pulsegate top`, in a pipe and on a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::operate::fake::{Answer, Fake, Request, conn, error, info, page, stats};
use crate::operate::program::run;
use crate::operate::terminal::Terminal;

/// Answers with 25 sessions, and the statistics of two seconds.
fn proxy(request: &Request) -> Answer {
    if request.line == "GET /v1/info" {
        return info();
    }
    if request.line == "GET /v1/events" {
        return Answer::Events(vec![("open", conn(1)), ("stats", stats(10.0, 1_000)), ("stats", stats(11.0, 11_000))]);
    }
    let conns: Vec<Value> = (1..=25).map(conn).collect();
    page(&conns, 25, None)
}

#[tokio::test]
async fn in_a_pipe_it_prints_one_frame_of_everything() {
    let fake = Fake::on_a_socket(proxy);
    let run = run(&["top", "--admin", &fake.at, "--sort", "idle"]).await;
    let lines: Vec<&str> = run.succeeded().out.lines().collect();
    assert_eq!(lines[0], "pulsegate 9.8.7  pid 4242  up 3m12s  serving  generation 4");
    assert_eq!(lines[1], "2 open");
    assert_eq!(lines[2], "1 missing  rtt p50 41ms p99 200ms max 1.50s  buffered 0B");
    assert!(lines[3].starts_with("ID ") && lines[3].ends_with(" HELD"), "{}", run.out);
    assert_eq!(lines.len(), 4 + 25);
    assert!(fake.lines().iter().any(|line| line == "GET /v1/connections?sort=idle&limit=1000"), "{:?}", fake.lines());
    assert!(!run.out.contains('\x1b'));
}

#[tokio::test]
async fn further_frames_have_rates() {
    let fake = Fake::on_a_socket(proxy);
    let run = run(&["top", "--admin", &fake.at, "--iterations", "2", "--interval", "300ms"]).await;
    let second = run.succeeded().out.split("\n\n").nth(1).expect("two frames");
    assert!(second.contains("\n2 open  +0/s -0/s  in 1.0k msg/s 9.7KiB/s  out 0 msg/s 0B/s\n"), "{second}");
}

#[tokio::test]
async fn on_a_terminal_it_scrolls_sorts_and_leaves_everything_as_it_was() {
    let fake = Fake::on_a_socket(proxy);
    let mut terminal = Terminal::start(&["top", "--admin", &fake.at]);
    let entered = terminal.shows("1-10 of 25, by misses, largest first").await;
    assert!(entered.contains("\x1b[?1049h"), "the alternate screen: {entered:?}");
    terminal.shows("q quit  sort by r=rtt").await;
    terminal.types(b"\x1b[B").await;
    terminal.shows("2-11 of 25").await;
    terminal.types(b"\x1b[6~").await;
    terminal.shows("12-21 of 25").await;
    terminal.types(b"r").await;
    terminal.shows("1-10 of 25, by rtt, largest first").await;
    fake.is_asked("sort=-rtt&limit=").await;
    terminal.types(b"r").await;
    terminal.shows("1-10 of 25, by rtt, smallest first").await;
    fake.is_asked("sort=rtt&limit=").await;
    terminal.types(b"q").await;
    terminal.shows("\x1b[?1049l").await;
    terminal.shows("exit 0").await;
    terminal.shows("restored").await;
    assert!(fake.lines().iter().any(|line| line.contains("sort=-misses&limit=")), "{:?}", fake.lines());
}

#[tokio::test]
async fn the_first_frame_has_its_figures_or_marks_them_unknown() {
    // The list is shown at once, the statistics never.
    let fake = Fake::on_a_socket(|request| match request.line.as_str() {
        "GET /v1/events" => error(503, "streams", "64 streams of events are open"),
        _ => proxy(request),
    });
    let mut terminal = Terminal::start(&["top", "--admin", &fake.at]);
    let first = terminal.shows("q quit").await;
    assert!(first.contains("generation 4") && !first.contains("generation 0"), "{first:?}");
    terminal.types(b"q").await;
    terminal.shows("restored").await;
    // Both arrive, in either order: no frame before.
    let fake = Fake::on_a_socket(proxy);
    let mut terminal = Terminal::start(&["top", "--admin", &fake.at]);
    let first = terminal.shows("q quit").await;
    assert!(first.contains("serving  generation 4") && first.contains("1-10 of 25"), "{first:?}");
    assert!(!first.contains("generation 0") && !first.contains("0-0 of 0"), "{first:?}");
    terminal.types(b"q").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn ctrl_c_restores_the_terminal() {
    let fake = Fake::on_a_socket(proxy);
    let mut terminal = Terminal::start(&["top", "--admin", &fake.at]);
    terminal.shows("of 25").await;
    terminal.types(b"\x03").await;
    terminal.shows("\x1b[?1049l").await;
    terminal.shows("exit 0").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn a_proxy_that_stops_answering_is_shown_and_waited_for() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let fake = Fake::on_a_socket(move |request| {
        if is_down.load(Ordering::Relaxed) { error(500, "broken", "it is broken for now") } else { proxy(request) }
    });
    let mut terminal = Terminal::start(&["top", "--admin", &fake.at, "--interval", "100ms"]);
    terminal.shows("1-10 of 25").await;
    down.store(true, Ordering::Relaxed);
    let frame = terminal.shows("! it is broken for now").await;
    assert!(frame.contains("0000000000000001"), "what was known stays: {frame:?}");
    down.store(false, Ordering::Relaxed);
    terminal.shows("1-10 of 25").await;
    terminal.types(b"q").await;
    terminal.shows("restored").await;
}

#[tokio::test]
async fn an_unreachable_proxy_is_reported_on_the_main_screen() {
    let mut terminal = Terminal::start(&["top", "--admin", "/nowhere/admin.sock"]);
    let shown = terminal.shows("exit 1").await;
    assert!(shown.contains("there is no socket /nowhere/admin.sock") && !shown.contains("\x1b[?1049h"), "{shown:?}");
}
