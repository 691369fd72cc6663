//! `pulsegate drain` against a proxy that drains, hangs, or ends.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsegate_test_kit::wait::wait_until;
use serde_json::json;

use crate::operate::fake::{Answer, Fake, Request, error};
use crate::operate::program::{run, start};

/// Answers each request after the drain's first step with the next of `steps`, and every later one with the last.
fn steps(steps: &'static [(&'static str, u64)]) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |request| {
        let (phase, sessions) = match request.line.as_str() {
            "POST /v1/drain" => ("announced", 40),
            "GET /v1/drain" => steps[next.fetch_add(1, Ordering::Relaxed).min(steps.len() - 1)],
            _ => return error(404, "not_found", "there is no such thing"),
        };
        if phase == "hangs up" {
            return Answer::HangUp;
        }
        let status = if request.line.starts_with("POST") { 202 } else { 200 };
        Answer::Json(status, json!({ "phase": phase, "sessions": sessions, "since": 1_000.0 }))
    }
}

#[tokio::test]
async fn without_wait_it_begins_and_comes_back() {
    let fake = Fake::on_a_socket(steps(&[("drained", 0)]));
    let run = run(&["drain", "--admin", &fake.at]).await;
    assert_eq!(run.succeeded().out, "not ready any more, still accepting: 40 sessions left\n");
    assert_eq!(fake.lines(), ["POST /v1/drain"]);
}

#[tokio::test]
async fn with_wait_it_prints_every_phase_and_ends_with_the_last() {
    let fake = Fake::on_a_socket(steps(&[("announced", 40), ("hangs up", 0), ("draining", 1), ("drained", 0)]));
    let run = run(&["drain", "--wait", "--timeout", "1m", "--admin", &fake.at]).await;
    let expected = "not ready any more, still accepting: 40 sessions left\n\
                not accepting, closing: 1 session left\ndrained: 0 sessions left\n";
    assert_eq!(run.succeeded().out, expected);
}

#[tokio::test]
async fn a_process_that_goes_is_a_drain_that_ended() {
    let fake = Fake::on_a_socket(steps(&[("draining", 3)]));
    let socket = fake.at.clone();
    let waiting = start(&["drain", "--wait", "--admin", &fake.at]);
    wait_until("a second question", || fake.lines().len(), |asked| *asked >= 2).await;
    fs::remove_file(socket).expect("remove the socket");
    let run = waiting.finish().await;
    assert!(run.succeeded().out.ends_with("\nit is gone\n"), "{}", run.out);
}

#[tokio::test]
async fn a_successor_in_its_place_ends_the_wait() {
    let fake = Fake::on_a_socket(steps(&[("draining", 3), ("serving", 0)]));
    let run = run(&["drain", "--wait", "--admin", &fake.at]).await;
    assert!(run.succeeded().out.ends_with("\nit has been replaced by one that serves\n"), "{}", run.out);
}

#[tokio::test]
async fn a_wait_in_vain_is_a_failure() {
    let fake = Fake::on_a_socket(steps(&[("draining", 3)]));
    let waiting = run(&["drain", "--wait", "--timeout", "700ms", "--admin", &fake.at]).await;
    waiting.failed(1, &["not drained within 700ms"]);
    run(&["drain", "--timeout", "1s", "--admin", &fake.at]).await.failed(2, &["--wait"]);
    run(&["drain", "--wait", "--admin", "/nowhere/admin.sock"]).await.failed(1, &["no socket /nowhere/admin.sock"]);
}

#[tokio::test]
async fn a_cancelled_drain_is_ready_again_and_a_refused_cancel_prints_its_reason() {
    let fake = Fake::on_a_socket(|request| match request.line.as_str() {
        "POST /v1/drain/cancel" => {
            Answer::Json(200, json!({ "phase": "serving", "sessions": 7, "since": 1_000.0, "cancelled_at": 1_000.0 }))
        }
        _ => error(404, "not_found", "there is no such thing"),
    });
    let cancelled = run(&["drain", "--cancel", "--admin", &fake.at]).await;
    assert_eq!(cancelled.succeeded().out, "ready, accepting: 7 sessions\n");
    assert_eq!(fake.lines(), ["POST /v1/drain/cancel"]);
    for with in ["--wait", "--timeout=1s"] {
        run(&["drain", "--cancel", with, "--admin", &fake.at]).await.failed(2, &["--cancel"]);
    }
    let late = Fake::on_a_socket(|_| error(409, "ports_closed", "the drain cannot be cancelled any more"));
    let refused = run(&["drain", "--cancel", "--admin", &late.at]).await;
    refused.failed(1, &["the drain cannot be cancelled any more"]);
}

#[tokio::test]
async fn a_wait_ends_with_a_drain_that_is_cancelled() {
    let fake = Fake::on_a_socket(|request| {
        let (phase, cancelled_at) = match request.line.as_str() {
            "POST /v1/drain" => ("announced", None),
            _ => ("serving", Some(1_000.0)),
        };
        Answer::Json(200, json!({ "phase": phase, "sessions": 3, "since": 1_000.0, "cancelled_at": cancelled_at }))
    });
    let waiting = run(&["drain", "--wait", "--admin", &fake.at]).await;
    waiting.failed(1, &["the drain was cancelled (pulsegate drain --cancel); the proxy serves"]);
}
