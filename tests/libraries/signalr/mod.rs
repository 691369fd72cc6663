//! The hub protocol of ASP.NET Core, whose client beats whenever the hub's own beats wake it.

use std::time::Duration;

use crate::library::{After, Auto, ComesBack, Hung, Library};
use crate::matrix;

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
    after_1001: After {
        hears: r#"{ "message": "WebSocket closed with status code: 1001 (heartbeat timeout)." }"#,
        comes_back: ComesBack::Yes,
    },
    after_1012: After {
        hears: r#"{ "message": "WebSocket closed with status code: 1012 (service restart)." }"#,
        comes_back: ComesBack::Yes,
    },
};

matrix::tests!(LIBRARY);

#[tokio::test]
async fn outlives_a_frozen_hub() {
    matrix::outlives_a_frozen_app(&LIBRARY).await;
}
