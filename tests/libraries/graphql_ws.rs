//! graphql-ws, with the subprotocol graphql-transport-ws: either side may ping, and the other answers.

use std::time::Duration;

use crate::libraries::library::{Auto, Hung, Library, UNLESS_REFUSED};
use crate::libraries::matrix::{self, BOUND};

pub(crate) const LIBRARY: Library = Library {
    title: "graphql-ws",
    packages: &["graphql-ws"],
    folder: "graphql_ws",
    path: "/graphql",
    flags: &[],
    profile: "graphql-transport-ws",
    mode: "app",
    auto: Auto::Picks("graphql-transport-ws"),
    heartbeat: "",
    hung: Hung::Page { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    // Its default `shouldRetry` treats the failure of a connection as fatal, but no close, not even 1006.
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: UNLESS_REFUSED,
};

/// The same page with pings of its own, which the proxy answers in the app's place.
pub(crate) const BEATS: Library = Library {
    title: "graphql-ws, the page beats (`keepAlive`)",
    mode: "answer",
    auto: Auto::CannotTell,
    heartbeat: "mode = \"answer\"\nwindow = \"2500ms\"\n",
    hung: Hung::Page { bound: "`window`", tried: Duration::from_millis(2_500) },
    ..LIBRARY
};

matrix::tests!(LIBRARY);

#[tokio::test]
async fn is_answered() {
    matrix::is_answered(&BEATS).await;
}
