//! The Pusher protocol, whose client pings after a silence of the app's activity timeout.

use std::time::Duration;

use crate::libraries::library::{Auto, ComesBack, Hung, Library};
use crate::libraries::{matrix, returns};

pub(crate) const LIBRARY: Library = Library {
    title: "Pusher",
    packages: &["pusher-js"],
    folder: "pusher",
    path: "/app/key",
    flags: &[],
    profile: "pusher",
    mode: "passive",
    auto: Auto::Picks("/app/"),
    heartbeat: "",
    // The app's activity timeout is 2 s.
    hung: Hung::Page { bound: "1.5 × activity timeout", tried: Duration::from_secs(3) },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "state": "connecting", "code": 1012 }"#,
    hears_restart: r#"{ "state": "connecting", "code": 1012 }"#,
    // Pusher's client treats 4000 to 4099 and everything over 4300 as final.
    comes_back: [ComesBack::Yes, ComesBack::Yes, ComesBack::Yes, ComesBack::No, ComesBack::Yes],
};

/// The client of a Node program, with a WebSocket of its own, for which 1012 is a protocol error; it reconnects.
pub(crate) const IN_NODE: Library = Library {
    title: "Pusher, in Node",
    flags: &["--node"],
    hears_miss: r#"{ "state": "connecting", "code": 1002 }"#,
    hears_restart: r#"{ "state": "connecting", "code": 1002 }"#,
    ..LIBRARY
};

matrix::tests!(LIBRARY);

#[tokio::test]
async fn under_its_profile_compressed() {
    matrix::under_its_profile_compressed(&Library { path: "/app/deflate", ..LIBRARY }).await;
}

#[tokio::test]
async fn in_node_under_its_profile() {
    matrix::under_its_profile_in_one_thread(&IN_NODE).await;
}

#[tokio::test]
async fn in_node_under_protocol_pings() {
    matrix::under_protocol_pings_in_one_thread(&IN_NODE).await;
}

#[tokio::test]
async fn s71_in_node_comes_back_by_itself_or_not() {
    returns::after_each_end(&IN_NODE).await;
}
