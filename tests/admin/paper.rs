//! The answers of `deploy/API.md` are those of the program: each documented request is made, and the fields are
//! compared.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::admin::rig::{Reply, Rig};

/// Returns the documented answers by their headings.
fn documented() -> Vec<(String, Value)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/API.md");
    let text = fs::read_to_string(file).expect("the paper is readable");
    let sections = text.split("\n## ").skip(1);
    let answers = sections.filter_map(|section| {
        let title = section.lines().next()?.to_owned();
        let json = section.split_once("```json\n")?.1.split_once("\n```")?.0;
        Some((title, serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))))
    });
    answers.collect()
}

/// Collects the paths of all members of a value; those of a list are the members of its first entry.
fn members(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{at}.{name}");
                found.push(path.clone());
                members(value, &path, found);
            }
        }
        Value::Array(list) => list.iter().take(1).for_each(|first| members(first, &format!("{at}[]"), found)),
        _ => {}
    }
}

/// Asserts that the answer has the documented members and no others, apart from `optional` ones, which depend on the
/// moment.
#[track_caller]
fn same(title: &str, shown: &Value, answer: &Value, optional: &[&str]) {
    let of = |value| {
        let mut found = Vec::new();
        members(value, "", &mut found);
        found.retain(|path| !optional.iter().any(|optional| path.starts_with(optional)));
        found.sort();
        found
    };
    assert_eq!(of(shown), of(answer), "{title}: the paper (left), and {answer}");
}

#[tokio::test]
async fn every_answer_of_the_paper_has_the_fields_of_a_real_one() {
    let mut rig = Rig::start().await;
    let (kept, gone) = (rig.session("/feed").await, rig.session("/chat").await);
    let (kept_id, gone_id) = (rig.id("/feed").await, rig.id("/chat").await);
    drop(gone);
    rig.proxy.ws_close(|line| line["url.path"] == "/chat").await;
    for (title, shown) in documented() {
        // The document shows a closed session on its own, and an open one in the list.
        let id = if title == "GET /v1/connections/ID" { &gone_id } else { &kept_id };
        let post = async |path: &str, body: &str, status: u16| -> Value {
            let Reply { status: answered, json, .. } = rig.post(path, body).await;
            assert_eq!(answered, status, "{path}: {json}");
            json
        };
        let one_session = format!("/v1/connections/{id}");
        let answer = match title.as_str() {
            "POST /v1/connections/ID/close" => post(&format!("{one_session}/close"), "", 200).await,
            "POST /v1/connections/close" => {
                post("/v1/connections/close", r#"{"filter": {"route": "/"}, "dry_run": true}"#, 200).await
            }
            "POST /v1/drain" => post("/v1/drain", "", 202).await,
            "POST /v1/drain/cancel" => post("/v1/drain/cancel", "", 200).await,
            "POST /v1/reload" => post("/v1/reload", "", 200).await,
            "Errors" => post(&format!("{one_session}/close"), r#"{"cod": 1}"#, 400).await,
            read => rig.get(&read.trim_start_matches("GET ").replace("ID", id)).await,
        };
        // The document shows three keys of many, and sessions of an address that the test does not have.
        let optional: &[&str] = match title.as_str() {
            "GET /v1/config" => {
                for (key, value) in shown["config"].as_object().expect("keys") {
                    same(key, value, &answer["config"][key], &[]);
                }
                &[".config."]
            }
            "GET /v1/connections/ID/diagnosis" => &[".before.connections[]", ".after.connections[]"],
            _ => &[],
        };
        same(&title, &shown, &answer, optional);
    }
    drop(kept);
}

#[test]
fn the_paper_has_an_answer_below_each_request_of_its_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/API.md");
    let text = fs::read_to_string(file).expect("the paper is readable");
    let titles: Vec<String> = documented().into_iter().map(|(title, _)| title).collect();
    let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    let bare: Vec<_> = headings.filter(|heading| !titles.iter().any(|title| title == heading)).collect();
    assert_eq!(bare, ["GET /v1/events"], "events are text, which tests/admin/events.rs reads");
    assert_eq!(titles.len(), 14, "{titles:?}");
}
