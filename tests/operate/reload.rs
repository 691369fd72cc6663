//! `pulsegate reload`: each result and its exit code.

use pulsegate_test_kit::process::Finished;
use serde_json::{Value, json};

use crate::operate::fake::{Answer, Fake};
use crate::operate::program::run;

async fn reload(status: u16, result: &str, restart: &[&str], error: Value) -> Finished {
    let body = json!({ "result": result, "generation": 7, "requires_restart": restart, "error": error });
    let fake = Fake::on_a_socket(move |_| Answer::Json(status, body.clone()));
    let run = run(&["reload", "--admin", &fake.at]).await;
    assert_eq!(fake.lines(), ["POST /v1/reload"]);
    run
}

#[tokio::test]
async fn what_came_of_it_is_one_line() {
    let applied = reload(200, "applied", &[], json!(null)).await;
    assert_eq!(applied.succeeded().out, "applied: generation 7 is in force\n");
    let unchanged = reload(200, "unchanged", &[], json!(null)).await;
    assert_eq!(unchanged.succeeded().out, "unchanged: generation 7 stays in force\n");
    let partial = reload(200, "partial", &["listen.address", "listen.workers"], json!(null)).await;
    assert!(partial.succeeded().out.ends_with("unchanged: listen.address, listen.workers\n"), "{}", partial.out);
}

#[tokio::test]
async fn a_failure_exits_with_one_and_prints_its_reason() {
    let failed = reload(422, "failed", &[], json!("proxy.toml:3:1: unknown key `lisen`")).await;
    failed.failed(1, &["not reloaded, generation 7 stays in force: proxy.toml:3:1: unknown key `lisen`"]);
    assert_eq!(failed.out, "");
}
