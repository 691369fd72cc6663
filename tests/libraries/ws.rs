//! Plain `ws`, with a page that answers "ping" with "pong", a common pattern.

use std::time::Duration;

use crate::libraries::library::{Auto, Hung, Library, NOT_ITS_JOB};
use crate::libraries::matrix::{self, BOUND};

pub(crate) const LIBRARY: Library = Library {
    title: "ws",
    packages: &["ws"],
    folder: "ws",
    path: "/",
    flags: &[],
    profile: "express-text",
    mode: "app",
    auto: Auto::CannotTell,
    heartbeat: "",
    hung: Hung::Page { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: NOT_ITS_JOB,
};

/// A page with a heartbeat of its own, which the proxy answers in the app's place.
pub(crate) const BEATS: Library = Library {
    title: "ws, the page beats",
    flags: &["--beats"],
    mode: "answer",
    heartbeat: "mode = \"answer\"\nwindow = \"2500ms\"\n",
    hung: Hung::Page { bound: "`window`", tried: Duration::from_millis(2_500) },
    ..LIBRARY
};

matrix::tests!(LIBRARY);

#[tokio::test]
async fn is_answered() {
    matrix::is_answered(&BEATS).await;
}
