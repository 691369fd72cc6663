//! `pulsegate diagnose` against the possible answers of a proxy.

use serde_json::{Value, json};

use crate::operate::fake::{Answer, Fake, Request, conn, error, page};
use crate::operate::program::run;
use crate::operate::terminal::Terminal;

/// Answers with three sessions, of which the second is forgotten before its diagnosis is requested.
fn proxy(request: &Request) -> Answer {
    let Some(id) = request.line.strip_suffix("/diagnosis").and_then(|line| line.strip_prefix("GET /v1/connections/"))
    else {
        let three = request.line.contains("limit=3");
        return page(&[conn(1), conn(2), conn(3)][..if three { 3 } else { 1 }], 7, Some("more"));
    };
    match id {
        "0000000000000001" | "0000000000000003" => Answer::Json(
            200,
            json!({
                "story": [
                    { "topic": "state", "text": format!("Connection {id} is open, and 3 min old.") },
                    { "topic": "round trips", "text": "The last took 41 ms, the shortest 40 ms; 12 of 13 probes answered." },
                ],
                "of_a_later_version": [1, 2],
            }),
        ),
        _ => error(404, "not_found", "connection is neither open nor among the last that were closed"),
    }
}

#[tokio::test]
async fn one_session_is_printed_by_topics() {
    let fake = Fake::on_a_socket(proxy);
    let run = run(&["diagnose", "--admin", &fake.at, "0000000000000001"]).await;
    let text = "state        Connection 0000000000000001 is open, and 3 min old.\n\
                round trips  The last took 41 ms, the shortest 40 ms; 12 of 13 probes answered.\n";
    assert_eq!(run.succeeded().out, text);
    assert_eq!(fake.lines(), ["GET /v1/connections/0000000000000001/diagnosis"]);
}

#[tokio::test]
async fn those_of_an_address_come_newest_first() {
    let fake = Fake::on_a_socket(proxy);
    let run = run(&["diagnose", "--admin", &fake.at, "--client", "203.0.113.0/24"]).await;
    assert_eq!((run.code, run.out.matches("\n\nstate  ").count()), (Some(0), 1), "{run:#?}");
    assert!(run.out.contains("0000000000000001") && run.out.contains("0000000000000003"), "{run:#?}");
    assert_eq!(run.err, "pulsegate: 5 sessions not shown; --limit 7 shows all\n");
    let list = "GET /v1/connections?state=all&client=203.0.113.0%2F24&sort=-opened&limit=3";
    assert_eq!(fake.lines()[0], list);
}

#[tokio::test]
async fn json_has_every_field_that_the_api_has() {
    let fake = Fake::on_a_socket(proxy);
    let flags = ["diagnose", "--admin", &fake.at, "--client", "203.0.113.7", "--limit", "1", "--format", "json"];
    let run = run(&flags).await;
    let value: Value = serde_json::from_str(&run.succeeded().out).expect("JSON");
    assert_eq!((&value["total"], &value["diagnoses"][0]["of_a_later_version"]), (&json!(7), &json!([1, 2])));
}

#[tokio::test]
async fn no_session_is_a_failure_with_the_reason() {
    let fake = Fake::on_a_socket(|request| {
        if request.line.contains("diagnosis") { error(404, "not_found", "none") } else { page(&[], 0, None) }
    });
    let unknown = run(&["diagnose", "--admin", &fake.at, "00000000000000ff"]).await;
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (
            Some(1),
            "pulsegate: no session 00000000000000ff is open or remembered; `pulsegate conns --state all` lists those that \
             are, and the proxy remembers the last `admin.closed_sessions` that closed, 1000 by default\n"
        )
    );
    let none = run(&["diagnose", "--admin", &fake.at, "--client", "203.0.113.7"]).await;
    assert_eq!(
        (none.code, none.err.as_str()),
        (
            Some(1),
            "pulsegate: no session of 203.0.113.7/32 is open or remembered; the proxy remembers the last \
             `admin.closed_sessions` that closed, 1000 by default\n"
        )
    );
}

#[tokio::test]
async fn wrong_usage_is_refused_before_the_proxy_is_asked() {
    run(&["diagnose"]).await.failed(2, &["<ID|--client <CIDR>>"]);
    run(&["diagnose", "a1"]).await.failed(2, &["an id is 16 hexadecimal digits", "conns --state all", "--client"]);
    run(&["diagnose", "00000000000000a1", "--client", "::1"]).await.failed(2, &["cannot be used with"]);
    run(&["diagnose", "--client", "app.example"]).await.failed(2, &["must be a network"]);
    run(&["diagnose", "--client", "::1", "--limit", "0"]).await.failed(2, &["must be a whole number from 1 on"]);
}

#[tokio::test]
async fn a_terminal_gets_lines_that_fit() {
    let fake = Fake::on_a_socket(proxy);
    let mut terminal = Terminal::start(&["diagnose", "--admin", &fake.at, "0000000000000001"]);
    let shown = terminal.shows("exit 0").await;
    assert!(
        shown.contains(
            "round trips  The last took 41 ms, the shortest 40 ms; 12 of\r\n             13 probes answered."
        ),
        "{shown:?}"
    );
    assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown:?}");
}
