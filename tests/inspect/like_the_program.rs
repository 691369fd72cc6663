//! The crowd is made up; its answers have the fields of the program's answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::inspect::crowd::Crowd;
use crate::inspect::dev::Dev;
use crate::inspect::page::Page;

/// The first statistics of the stream.
const STATS: &str = "
    (async () => {
      const stop = new AbortController();
      const { body } = await fetch('/v1/events', { signal: stop.signal });
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ; ) {
        text += (await reader.read()).value;
        const [, data] = /event: stats\\ndata: (.*)\\n\\n/.exec(text) ?? [];
        if (data) {
          stop.abort();
          return JSON.parse(data);
        }
      }
    })()";

/// Returns every path to a value that is no object, and its type; a list is its first item.
fn fields(value: &Value) -> BTreeMap<String, &'static str> {
    fn walk(at: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
        let kind = match value {
            Value::Object(object) => {
                for (name, value) in object {
                    walk(&format!("{at}.{name}"), value, found);
                }
                return;
            }
            Value::Array(list) => match list.first() {
                Some(first) => return walk(&format!("{at}[]"), first, found),
                None => "list",
            },
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
        };
        found.insert(at.to_owned(), kind);
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}

/// Returns the answers that the page depends on.
async fn answers(page: &mut Page) -> Vec<(&'static str, Value)> {
    let mut answers = Vec::new();
    for path in ["/v1/info", "/v1/connections?state=open&limit=1", "/v1/connections?state=closed&limit=1"] {
        answers.push((path, page.ask(&format!("fetch('{path}').then((response) => response.json())")).await));
    }
    let diagnosis = "fetch('/v1/connections?state=closed&limit=1').then((response) => response.json())
          .then(({ connections: [{ id }] }) => fetch(`/v1/connections/${id}/diagnosis`)).then((response) => response.json())";
    answers.push(("diagnosis", page.ask(diagnosis).await));
    answers.push(("stats", page.ask(STATS).await));
    answers
}

#[tokio::test]
async fn the_crowd_answers_as_the_program_does() {
    let dev = Dev::start("300ms", "10s").await;
    let mut real = Page::open(&dev.inspect).await;
    let _guest = dev.guest("a guest").await;
    let gone = dev.guest("another").await;
    gone.leave(1000, "bye").await;
    gone.close().await;
    real.sees(".body .c-rtt", " ms").await;
    real.until("document.getElementById('n-closed').textContent === '1'").await;
    let crowd = Crowd::of(&["--sessions", "20", "--closed", "20", "--churn", "0"]).await;
    let mut made_up = Page::open(&crowd.url).await;
    made_up.sees("#n-open", "20").await;

    for ((path, real), (_, made_up)) in answers(&mut real).await.iter().zip(&answers(&mut made_up).await) {
        let (real, made_up) = (fields(real), fields(made_up));
        let names = |fields: &BTreeMap<String, &str>| fields.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&made_up), names(&real), "{path}");
        for (name, kind) in &real {
            let other = made_up[name];
            assert!(*kind == other || *kind == "null" || other == "null", "{path}: {name} is a {kind}, and a {other}");
        }
    }
    real.finish();
    made_up.finish();
}
