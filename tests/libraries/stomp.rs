//! STOMP 1.2, whose client and broker agree on an interval in CONNECT and CONNECTED.

use std::time::Duration;

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix;

pub(crate) const LIBRARY: Library = Library {
    title: "STOMP",
    packages: &["@stomp/stompjs"],
    folder: "stomp",
    path: "/ws",
    flags: &[],
    profile: "stomp",
    mode: "passive",
    auto: Auto::Picks("STOMP"),
    heartbeat: "",
    // The page offers 600 ms, the app requires 500 ms.
    hung: Hung::Page { bound: "3 × the agreed interval", tried: Duration::from_millis(3 * 600) },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: ALWAYS,
};

matrix::tests!(LIBRARY);

#[tokio::test]
async fn under_its_profile_compressed() {
    matrix::under_its_profile_compressed(&Library { path: "/deflate", ..LIBRARY }).await;
}
