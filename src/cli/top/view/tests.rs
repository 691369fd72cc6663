use serde_json::json;

use super::*;

const SCREEN: (usize, usize) = (60, 16);

fn conn(number: usize, misses: u32) -> SessionReport {
    let value = json!({
        "id": format!("{number:016x}"), "state": "open", "route": "/", "client": format!("198.51.100.7:{number}"),
        "heartbeat": { "misses": misses, "max": 2, "rtt_s": 0.05 }, "idle_s": 1.0
    });
    serde_json::from_value(value).expect("a session")
}

fn stats(at: f64, opened: u64, bytes: u64) -> StatsReport {
    let value = json!({
        "at": at, "open": 25, "opened_total": opened, "closed_total": 0, "in": { "msgs": bytes / 100, "bytes": bytes },
        "out": { "msgs": 0, "bytes": 0 }, "buffered": 2048, "rtt": { "p50_s": 0.041, "p99_s": 0.2, "max_s": 1.5 },
        "missing": 3, "phase": "serving", "generation": 4
    });
    serde_json::from_value(value).expect("figures")
}

fn listed(conns: Vec<SessionReport>) -> Listed {
    Listed { total: conns.len() as u64, conns, generation: 4, now: 1_795_881_626.0 }
}

fn filled(sessions: usize) -> View {
    let mut view = View::new(Sort::default());
    let info = json!({ "version": "0.1.0", "pid": 7, "started_at": 1_000.0, "now": 1_090.0 });
    view.set_info(serde_json::from_value(info).expect("an answer"));
    view.set_stats(stats(1.0, 100, 1_000));
    view.set_stats(stats(3.0, 110, 9_000));
    view.set_sessions(listed((0..sessions).map(|number| conn(number, u32::from(number == 0))).collect()));
    view
}

fn texts(view: &mut View) -> Vec<String> {
    view.frame(SCREEN.0, SCREEN.1).into_iter().map(|line| line.text).collect()
}

#[test]
fn a_narrow_screen_is_filled_and_never_overflows() {
    let mut view = filled(25);
    let lines = texts(&mut view);
    assert_eq!(lines[0], "pulsegate 0.1.0  pid 7  up 1m30s  serving  generation 4");
    assert!(lines[1].starts_with("25 open  +5/s -0/s  in 40 msg/s 3.9KiB/s  out 0 msg/s "), "{}", lines[1]);
    assert_eq!(lines[2], "3 missing  rtt p50 41ms p99 200ms max 1.50s  buffered 2.0KiB");
    assert_eq!(lines[3], "1-10 of 25, by misses, largest first");
    assert!(lines[4].starts_with("ID ") && lines[4].contains("RTT"), "{}", lines[4]);
    assert!(lines[5].starts_with("0000000000000000 ") && lines[5].contains("1/2"), "{}", lines[5]);
    assert!(lines[15].starts_with("q quit  sort by r=rtt"), "{}", lines[15]);
    for (columns, rows) in [(60, 16), (20, 5), (1, 1), (200, 50)] {
        let frame = view.frame(columns, rows);
        assert_eq!(frame.len(), rows);
        for line in frame {
            assert!(line.text.chars().count() <= columns, "{columns}: {line:?}");
        }
    }
    let frame = view.frame(60, 16);
    assert_eq!((frame[5].style, frame[6].style), (Style::Strong, Style::Plain), "who misses beats stands out");
}

#[test]
fn a_generation_that_is_not_known_is_not_shown_as_zero() {
    let mut view = View::new(Sort::default());
    assert!(texts(&mut view)[0].ends_with("  generation -") && !view.is_complete());
    view.set_sessions(listed(vec![conn(1, 0)]));
    assert!(texts(&mut view)[0].ends_with("  generation 4") && !view.is_complete());
    view.set_stats(stats(1.0, 1, 0));
    assert!(view.is_complete());
    let mut lost = View::new(Sort::default());
    lost.set_error("nothing answers");
    assert!(lost.is_complete(), "the reason is shown at once");
}

#[test]
fn eighty_columns_hold_the_clients_port_and_every_key() {
    let mut view = filled(25);
    let client = |number: u32| SessionReport { client: format!("203.0.113.{number}:6553{}", number % 6), ..conn(1, 0) };
    view.set_sessions(listed((200..210).map(client).collect()));
    let frame = view.frame(80, 24);
    for (line, number) in frame[5..].iter().zip(200..210) {
        let row = &line.text;
        assert!(row.contains(&format!("203.0.113.{number}:6553{} ", number % 6)), "{row}");
    }
    assert!(!frame[4].text.contains("ROUTE") && frame[4].text.contains("MISS"), "{}", frame[4].text);
    assert!(frame[23].text.ends_with("PgUp PgDn"), "{}", frame[23].text);
}

#[test]
fn scrolling_stays_within_what_there_is() {
    let mut view = filled(25);
    let first = |view: &mut View| texts(view)[3].split(' ').next().map(str::to_owned);
    let mut at = |key| {
        assert_eq!(view.press(key, SCREEN.1), KeyAction::Look);
        first(&mut view).expect("a position")
    };
    assert_eq!(at(Key::Up), "1-10");
    assert_eq!(at(Key::Down), "2-11");
    assert_eq!(at(Key::PageDown), "12-21");
    assert_eq!(at(Key::PageDown), "16-25");
    assert_eq!(at(Key::PageUp), "6-15");
    assert_eq!(at(Key::End), "16-25");
    assert_eq!(view.sessions_needed(SCREEN.1), 35);
    view.set_sessions(listed((0..3).map(|number| conn(number, 0)).collect()));
    assert_eq!(first(&mut view).as_deref(), Some("1-3"), "sessions have gone");
    view.set_sessions(listed(Vec::new()));
    assert_eq!(first(&mut view).as_deref(), Some("0-0"));
}

#[test]
fn a_letter_sorts_and_the_same_one_turns_it_round() {
    let mut view = filled(25);
    view.press(Key::End, SCREEN.1);
    let mut sorted = |letter| {
        assert_eq!(view.press(Key::Char(letter), SCREEN.1), KeyAction::Look);
        (view.sort().query(), texts(&mut view)[3].clone())
    };
    assert_eq!(sorted('r'), ("-rtt".to_owned(), "1-10 of 25, by rtt, largest first".to_owned()));
    assert_eq!(sorted('r'), ("rtt".to_owned(), "1-10 of 25, by rtt, smallest first".to_owned()));
    assert_eq!(sorted('c').0, "client");
    assert_eq!(sorted('i').0, "-idle");
    assert_eq!(sorted('b').0, "-bytes_in");
    assert_eq!(sorted('h').0, "-held");
    assert_eq!(sorted('m').0, "-misses");
    assert_eq!(view.press(Key::Char('x'), SCREEN.1), KeyAction::Nothing);
    assert_eq!(view.press(Key::Char('q'), SCREEN.1), KeyAction::Quit);
}

#[test]
fn trouble_is_shown_until_the_proxy_answers_and_a_new_process_counts_anew() {
    let mut view = filled(2);
    view.set_error("no process listens\x1b[2J");
    let lines = texts(&mut view);
    assert_eq!(lines[3], "! no process listens\u{fffd}[2J");
    assert!(lines[5].starts_with("0000000000000000 "), "what was known stays: {lines:?}");
    let info = json!({ "version": "0.1.0", "pid": 8 });
    view.set_info(serde_json::from_value(info).expect("an answer"));
    view.set_stats(stats(5.0, 1, 0));
    view.set_sessions(listed(vec![conn(9, 0)]));
    let lines = texts(&mut view);
    assert_eq!((lines[1].as_str(), lines[3].as_str()), ("25 open", "1-1 of 1, by misses, largest first"));
    assert!(lines[0].contains("pid 8  up -"), "{}", lines[0]);
}
