//! MQTT over WebSockets, whose client announces its keep-alive in CONNECT.

use std::time::Duration;

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::{matrix, returns};

pub(crate) const LIBRARY: Library = Library {
    title: "MQTT",
    packages: &["mqtt", "aedes"],
    folder: "mqtt",
    path: "/mqtt",
    flags: &[],
    profile: "mqtt",
    mode: "passive",
    auto: Auto::Picks("MQTT"),
    heartbeat: "",
    // The page's keep-alive is 2 s.
    hung: Hung::Page { bound: "1.5 × keep-alive", tried: Duration::from_secs(3) },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    // Its event has no arguments.
    hears_miss: "{}",
    hears_restart: "{}",
    comes_back: ALWAYS,
};

/// The client of a Node program. Its CONNECT arrives in nine messages.
pub(crate) const IN_NODE: Library = Library { title: "MQTT, in Node", flags: &["--node"], ..LIBRARY };

matrix::tests!(LIBRARY);

#[tokio::test]
async fn under_its_profile_compressed() {
    matrix::under_its_profile_compressed(&Library { path: "/deflate", ..LIBRARY }).await;
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

/// Tests a page that announces 60 s: the broker's keep-alive takes precedence, with the same bound.
#[tokio::test]
async fn under_the_keep_alive_of_its_broker() {
    matrix::under_its_profile(&Library { path: "/version5", flags: &["--version5"], ..LIBRARY }).await;
}

/// Tests a page without a keep-alive, which sends none even if its broker demands it, against MQTT 5 §3.2.2.3.14; it is
/// alive.
#[tokio::test]
async fn silent_against_the_keep_alive_of_its_broker() {
    let flags = &["--version5", "--silent"];
    matrix::outlives_a_frozen_app(&Library { path: "/version5", flags, ..LIBRARY }).await;
}
