//! The inspect page in headless Chromium.

use pulsegate_test_kit::browser::start_turn;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::process::Process;
use serde_json::{Value, json};
use tokio::process::Command;

/// Chromium on the inspect page; an error in the page fails the test at [`Page::finish`].
#[derive(Debug)]
pub(crate) struct Page {
    process: Process,
    orders: u64,
}

impl Page {
    /// Opens the page at `url`.
    pub(crate) async fn open(url: &str) -> Self {
        // The script is beside this file; the packages it needs are those of the other tests' browser.
        let script = project("browser").with_file_name("inspect").join("drive.js");
        let _start = start_turn().await;
        let process = Process::start("drive.js", Command::new("node").arg(script).arg(url));
        let loaded = process.event("loaded", |_| true).await;
        assert_eq!(loaded["status"], 200, "{loaded}");
        let policy = loaded["policy"].as_str().unwrap_or_default();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{loaded}");
        Self { process, orders: 0 }
    }

    async fn order(&mut self, order: &str, args: Value) -> Value {
        self.orders += 1;
        let id = self.orders;
        self.process.write_line(&json!({ "id": id, "order": order, "args": args })).await;
        // The script has a deadline of its own, which comes first and shows the text of the page.
        let time_limit = pulsegate_test_kit::wait::TIMEOUT * 2;
        let answer = self
            .process
            .line_within(time_limit, &format!("an answer to {order} {args}"), |line| line.json["id"] == id)
            .await;
        let reply = answer.json;
        assert_eq!(reply["event"], "done", "{order} {args}: {}", reply["message"].as_str().unwrap_or_default());
        reply["value"].clone()
    }

    pub(crate) async fn click(&mut self, selector: &str) {
        self.order("click", json!([selector])).await;
    }

    /// Presses keys, one after the other.
    pub(crate) async fn press(&mut self, keys: &[&str]) {
        for key in keys {
            self.order("press", json!([key])).await;
        }
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.order("type", json!([text])).await;
    }

    /// Returns the text of the first such element.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        self.order("text", json!([selector])).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a visible element of this kind contains `text`.
    pub(crate) async fn sees(&mut self, selector: &str, text: &str) {
        self.order("see", json!([selector, text])).await;
    }

    /// Waits until no such element is visible.
    pub(crate) async fn misses(&mut self, selector: &str) {
        self.order("miss", json!([selector])).await;
    }

    /// Returns the result of `script` in the page.
    pub(crate) async fn ask(&mut self, script: &str) -> Value {
        self.order("ask", json!([script])).await
    }

    /// Waits until the result of `script` in the page is true.
    pub(crate) async fn until(&mut self, script: &str) -> Value {
        self.order("until", json!([script])).await
    }

    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        self.order("size", json!([width, height])).await;
    }

    /// Sets the preferred colour scheme of the system: `light` or `dark`.
    pub(crate) async fn prefer(&mut self, scheme: &str) {
        self.order("prefer", json!([scheme])).await;
    }

    pub(crate) async fn reload(&mut self) {
        self.order("reload", json!([])).await;
    }

    /// Fails if the page had an error: one in a script, a missing file, a violation of the policy.
    pub(crate) fn finish(self) {
        let errors = self.process.events("error");
        assert!(errors.is_empty(), "{errors:?}");
    }
}
