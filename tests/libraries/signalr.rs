//! The hub protocol of ASP.NET Core, whose client sends its heartbeat when the hub's arrives.

use std::time::Duration;

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix;

pub(crate) const LIBRARY: Library = Library {
    title: "SignalR",
    packages: &["@microsoft/signalr"],
    folder: "signalr",
    path: "/hub",
    flags: &[],
    profile: "signalr",
    mode: "passive",
    auto: Auto::CannotTell,
    heartbeat: "window = \"2s\"\n",
    hung: Hung::Page { bound: "30 s, or `window`, of the hub's next word", tried: Duration::from_secs(2) },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "message": "WebSocket closed with status code: 1012 (heartbeat timeout)." }"#,
    hears_restart: r#"{ "message": "WebSocket closed with status code: 1012 (service restart)." }"#,
    comes_back: ALWAYS,
};

/// The same page, whose records are in `MessagePack`.
pub(crate) const MESSAGE_PACK: Library = Library {
    title: "SignalR, MessagePack",
    packages: &["@microsoft/signalr", "@microsoft/signalr-protocol-msgpack"],
    flags: &["--message-pack"],
    ..LIBRARY
};

/// Settings in which only its heartbeat counts as a sign of life.
const BY_ITS_HEARTBEAT: &str = "window = \"2s\"\nliveness = \"pong_only\"\n";

matrix::tests!(LIBRARY);

mod message_pack {
    crate::libraries::matrix::tests!(super::MESSAGE_PACK);
}

#[tokio::test]
async fn s65_by_its_heartbeat_alone_in_json() {
    matrix::under_its_profile(&Library { heartbeat: BY_ITS_HEARTBEAT, ..LIBRARY }).await;
}

#[tokio::test]
async fn s65_by_its_heartbeat_alone_in_message_pack() {
    matrix::under_its_profile(&Library { heartbeat: BY_ITS_HEARTBEAT, ..MESSAGE_PACK }).await;
}

#[tokio::test]
async fn outlives_a_frozen_hub() {
    matrix::outlives_a_frozen_app(&LIBRARY).await;
}
