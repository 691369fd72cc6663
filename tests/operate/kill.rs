//! `pulsegate kill` against the possible answers of a proxy.

use serde_json::{Value, json};

use crate::operate::fake::{Answer, Fake, Request, closed, conn, error};
use crate::operate::program::run;

const ID: &str = "00000000000000a1";

/// Answers for `count` sessions that match every filter; the session `ID` is open, `…ff` was closed before, and no
/// other is known.
fn proxy(count: u64) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    move |request| {
        let shut = |matched: u64, closed: u64| {
            let ids: Vec<String> = (0..matched.min(100)).map(|number| format!("{number:016x}")).collect();
            Answer::Json(200, json!({ "matched": matched, "closed": closed, "ids": ids }))
        };
        match request.line.as_str() {
            "POST /v1/connections/close" => shut(count, if request.body["dry_run"] == json!(true) { 0 } else { count }),
            "POST /v1/connections/00000000000000a1/close" => shut(1, 1),
            "POST /v1/connections/00000000000000ff/close" => error(409, "closed", "it has ended already"),
            "GET /v1/connections/00000000000000a1" => Answer::Json(200, conn(0xa1)),
            "GET /v1/connections/00000000000000ff" => Answer::Json(200, closed(0xff, "gone")),
            _ => error(404, "not_found", "there is no such session"),
        }
    }
}

/// Returns the bodies of the POST requests.
fn bodies(fake: &Fake) -> Vec<Value> {
    fake.asked().into_iter().filter(|request| request.line.starts_with("POST")).map(|request| request.body).collect()
}

#[tokio::test]
async fn without_an_id_or_a_filter_it_is_wrong_usage() {
    let fake = Fake::on_a_socket(proxy(3));
    run(&["kill", "--admin", &fake.at]).await.failed(2, &["required", "--route"]);
    run(&["kill", "--admin", &fake.at, "--yes", "--dry-run"]).await.failed(2, &["required"]);
    run(&["kill", "--admin", &fake.at, ID, "--route", "/"]).await.failed(2, &["cannot be used with"]);
    run(&["kill", "--admin", &fake.at, "a1"]).await.failed(2, &["16 hexadecimal digits"]);
    run(&["kill", "--admin", &fake.at, ID, "--code", "1006"]).await.failed(2, &["may stand in a Close"]);
    assert_eq!(fake.lines(), Vec::<String>::new(), "no request was sent");
}

#[tokio::test]
async fn each_id_is_closed_and_an_unknown_one_is_a_failure_of_its_own() {
    let fake = Fake::on_a_socket(proxy(0));
    let unknown = "00000000000000b2";
    let run =
        run(&["kill", "--admin", &fake.at, unknown, ID, "00000000000000ff", "--code", "4001", "--reason", "out"]).await;
    run.failed(1, &["there is no session 00000000000000b2", "conns --state all"]);
    assert_eq!(run.out, "closed 00000000000000a1\nalready closed 00000000000000ff\n");
    assert_eq!(bodies(&fake), vec![json!({ "code": 4001, "reason": "out" }); 3]);
    let head = &fake.asked()[0].head;
    assert!(head.contains("content-type: application/json"), "{head}");
}

#[tokio::test]
async fn an_id_alone_leaves_code_and_reason_to_the_proxy() {
    let fake = Fake::on_a_socket(proxy(0));
    let run = run(&["kill", "--admin", &fake.at, &ID.to_ascii_uppercase()]).await;
    assert_eq!(run.succeeded().out, format!("closed {ID}\n"));
    assert_eq!(bodies(&fake), [json!({})]);
}

#[tokio::test]
async fn a_dry_run_closes_nothing() {
    let fake = Fake::on_a_socket(proxy(12));
    let ids = run(&["kill", "--admin", &fake.at, "--dry-run", ID, "00000000000000ff"]).await;
    assert_eq!(ids.succeeded().out, format!("would close {ID}\nalready closed 00000000000000ff\n"));
    let filter = run(&["kill", "--admin", &fake.at, "--dry-run", "--route", "/"]).await;
    let lines: Vec<&str> = filter.succeeded().out.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[12]), (13, "would close 0000000000000000", "would close 12 sessions"));
    assert!(bodies(&fake).iter().all(|body| body["dry_run"] == json!(true)), "{:?}", fake.asked());
}

#[tokio::test]
async fn a_filter_closes_what_it_matches() {
    let fake = Fake::on_a_socket(proxy(2));
    let run =
        run(&["kill", "--admin", &fake.at, "--route", "/chat", "--client", "198.51.100.0/24", "--misses-gte", "1"])
            .await;
    assert_eq!(run.succeeded().out, "closed 0000000000000000\nclosed 0000000000000001\nclosed 2 sessions\n");
    let filter = json!({ "route": "/chat", "client": "198.51.100.0/24", "misses_gte": 1 });
    assert_eq!(
        bodies(&fake),
        [json!({ "filter": filter, "dry_run": true }), json!({ "filter": filter, "dry_run": false })]
    );
}

#[tokio::test]
async fn many_sessions_need_a_yes() {
    let fake = Fake::on_a_socket(proxy(137));
    let flags = ["kill", "--admin", &fake.at, "--client", "0.0.0.0/0"];
    run(&flags).await.failed(1, &["137 sessions match", "--yes"]);
    assert_eq!(bodies(&fake).len(), 1, "only the dry run: {:?}", fake.asked());
    let run = run(&[flags.as_slice(), &["--yes"]].concat()).await;
    let lines: Vec<&str> = run.succeeded().out.lines().collect();
    assert_eq!((lines.len(), lines[100], lines[101]), (102, "closed 37 more", "closed 137 sessions"));
}

#[tokio::test]
async fn a_filter_that_matches_nothing_is_a_failure() {
    let fake = Fake::on_a_socket(proxy(0));
    run(&["kill", "--admin", &fake.at, "--route", "/"]).await.failed(1, &["no open session matches"]);
    assert_eq!(bodies(&fake).len(), 1);
}
