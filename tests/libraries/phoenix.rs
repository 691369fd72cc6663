//! Phoenix channels, whose client sends heartbeats and whose server replies.

use std::time::Duration;

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix;

pub(crate) const LIBRARY: Library = Library {
    title: "Phoenix",
    packages: &["phoenix"],
    folder: "phoenix",
    path: "/socket",
    flags: &[],
    profile: "phoenix",
    mode: "passive",
    auto: Auto::Picks("vsn"),
    heartbeat: "window = \"4s\"\n",
    hung: Hung::Page { bound: "120 s, or `window`", tried: Duration::from_secs(4) },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: ALWAYS,
};

matrix::tests!(LIBRARY);

/// Tests that with `pong_only` a compressed heartbeat still counts.
#[tokio::test]
async fn by_its_heartbeat_alone_compressed() {
    let heartbeat = "window = \"4s\"\nliveness = \"pong_only\"\n";
    matrix::under_its_profile_compressed(&Library { path: "/deflate", heartbeat, ..LIBRARY }).await;
}
