//! `pulsegate conns` against the possible answers of a proxy.

use serde_json::{Value, json};

use crate::PULSEGATE;
use crate::operate::fake::{Answer, Fake, Request, closed, conn, error, page};
use crate::operate::program::{finish, run};

/// Answers with pages of 1,000 sessions or of the requested size, of 2,500 in all.
fn many(request: &Request) -> Answer {
    const ALL: u64 = 2_500;
    let number = |key: &str| {
        let (_, rest) = request.line.split_once(&format!("{key}="))?;
        rest.split('&').next()?.parse::<u64>().ok()
    };
    let (from, limit) = (number("cursor").unwrap_or(0), number("limit").expect("a limit"));
    let to = (from + limit).min(ALL);
    let conns: Vec<Value> = (from..to).map(conn).collect();
    page(&conns, 2_500, (to < ALL).then(|| to.to_string()).as_deref())
}

#[tokio::test]
async fn a_pipe_gets_a_table_with_every_column_and_all_pages() {
    let fake = Fake::on_a_socket(many);
    let run = run(&["conns", "--admin", &fake.at]).await;
    run.succeeded();
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 2_501);
    let titles = "ID STATE ROUTE PATH CLIENT PROTO AGE IDLE RTT MISS MSGS-IN IN MSGS-OUT OUT HELD";
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), titles);
    let row = "0000000000000002 open /socket.io/ /socket.io/? 198.51.100.7:50002 h2 3m12s 3s 41ms 1/2 1.2k 3.4KiB 7 900B 1.0KiB";
    assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>().join(" "), row);
    assert!(!run.out.contains('\x1b'), "no colours in a pipe");
    assert_eq!(
        fake.lines(),
        [
            "GET /v1/connections?state=open&sort=opened&limit=1000",
            "GET /v1/connections?state=open&sort=opened&limit=1000&cursor=1000",
            "GET /v1/connections?state=open&sort=opened&limit=1000&cursor=2000",
        ]
    );
    let head = &fake.asked()[0].head;
    assert!(head.contains("\r\nhost: localhost") && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn flags_become_the_query_and_the_limit_is_kept() {
    let fake = Fake::on_a_socket(many);
    let flags = [
        "conns",
        "--admin",
        &fake.at,
        "--state",
        "all",
        "--route",
        "app.example/a b",
        "--client",
        "2001:db8::/32",
        "--misses-gte",
        "1",
        "--sort",
        "-rtt",
        "--limit",
        "3",
    ];
    let run = run(&flags).await;
    assert_eq!((run.code, run.out.lines().count()), (Some(0), 4), "{run:#?}");
    assert_eq!(run.err, "pulsegate: 2497 sessions not shown\n");
    let query = "state=all&sort=-rtt&route=app.example%2Fa%20b&client=2001%3Adb8%3A%3A%2F32&misses_gte=1&limit=3";
    assert_eq!(fake.lines(), [format!("GET /v1/connections?{query}")]);
}

#[tokio::test]
async fn json_has_every_field_that_the_api_has() {
    let fake = Fake::on_a_socket(|_| {
        let mut conn = conn(1);
        conn["of_a_later_version"] = json!([1, 2]);
        page(&[conn], 1, None)
    });
    let run = run(&["conns", "--admin", &fake.at, "--format", "json"]).await;
    let value: Value = serde_json::from_str(&run.succeeded().out).expect("JSON");
    assert_eq!((&value["now"], &value["generation"], &value["total"]), (&json!(1192.5), &json!(4), &json!(1)));
    assert_eq!(value["connections"][0]["of_a_later_version"], json!([1, 2]));
    assert_eq!(value["connections"][0]["heartbeat"]["next_deadline_at"], json!(1_200.0));
}

#[tokio::test]
async fn json_escapes_what_a_terminal_would_act_on() {
    let fake = Fake::on_a_socket(|_| {
        let mut conn = conn(1);
        conn["user_agent"] = json!("\u{9b}2J\u{7f}\u{85}\u{2028}\u{2029}\u{202e}ü");
        page(&[conn], 1, None)
    });
    let run = run(&["conns", "--admin", &fake.at, "--format", "json"]).await;
    let out = &run.succeeded().out;
    assert!(out.contains(r#""\u009b2J\u007f\u0085\u2028\u2029\u202eü""#), "{}", out.escape_unicode());
}

#[tokio::test]
async fn a_closed_session_shows_its_reason_without_control_characters() {
    let sentence = "client stopped answering: last pong 45.2 s ago, RTT was 41 ms";
    let fake = Fake::on_a_socket(move |_| page(&[closed(1, sentence), closed(2, "\x1b[2J\nevil")], 2, None));
    let run = run(&["conns", "--admin", &fake.at, "--state", "closed"]).await;
    let lines: Vec<&str> = run.succeeded().out.lines().collect();
    assert!(lines[0].ends_with("  HELD  CLOSED-AT             CLOSED"), "{}", run.out);
    assert!(lines[1].ends_with(&format!("   -  2026-11-28T16:00:26Z  1012 {sentence}")), "{}", run.out);
    assert!(lines[2].ends_with("1012 \u{fffd}[2J\u{fffd}evil"), "{}", run.out);
    assert_eq!(fake.lines(), ["GET /v1/connections?state=closed&sort=-closed&limit=1000"], "newest first");
}

#[tokio::test]
async fn the_new_orders_are_passed_on() {
    for sort in ["held", "-held", "closed", "-closed"] {
        let fake = Fake::on_a_socket(|_| page(&[conn(1)], 1, None));
        run(&["conns", "--admin", &fake.at, "--state", "all", "--sort", sort]).await.succeeded();
        assert_eq!(fake.lines(), [format!("GET /v1/connections?state=all&sort={sort}&limit=1000")]);
    }
}

#[tokio::test]
async fn no_session_is_a_heading_alone() {
    let fake = Fake::on_a_socket(|_| page(&[], 0, Some("round and round")));
    let run = run(&["conns", "--admin", &fake.at]).await;
    assert_eq!(run.succeeded().out.lines().count(), 1, "{}", run.out);
    assert_eq!(fake.lines().len(), 1, "an empty page is the last one");
}

#[tokio::test]
async fn wrong_usage_is_reported_before_any_request() {
    for (flags, says) in [
        (["--sort", "size"], "possible values: opened"),
        (["--client", "app.example"], "must be a network"),
        (["--limit", "0"], "must be a whole number from 1 on"),
        (["--misses-gte", "some"], "must be a whole number from 1 on"),
        (["--admin", "4040"], "host:port"),
    ] {
        run(&["conns", flags[0], flags[1]]).await.failed(2, &[says]);
    }
}

#[tokio::test]
async fn the_words_of_the_api_are_passed_on() {
    let fake = Fake::on_a_socket(|_| error(400, "cursor", "`cursor` is not one that this proxy gave: begin anew"));
    run(&["conns", "--admin", &fake.at]).await.failed(1, &["pulsegate: `cursor` is not one that this proxy gave"]);
}

#[tokio::test]
async fn a_reader_may_close_the_pipe() {
    let fake = Fake::on_a_socket(many);
    let mut command = tokio::process::Command::new("sh");
    let line = format!("'{}' conns --admin '{}' | head -n 1", PULSEGATE, fake.at);
    command.args(["-c", &line]);
    let run = finish(command).await;
    assert_eq!(run.succeeded().out.lines().count(), 1);
}
