//! Libraries that only reopen a WebSocket, around a page that answers "ping" with "pong".

use crate::libraries::library::{ALWAYS, Auto, BUT_AFTER_1001, Hung, Library};
use crate::libraries::matrix::BOUND;

pub(crate) const RECONNECTING_WEBSOCKET: Library = Library {
    title: "reconnecting-websocket",
    packages: &["reconnecting-websocket"],
    folder: "reconnecting",
    path: "/",
    flags: &["--reconnecting-websocket"],
    profile: "express-text",
    mode: "app",
    auto: Auto::CannotTell,
    heartbeat: "",
    hung: Hung::Page { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: ALWAYS,
};

pub(crate) const PARTYSOCKET: Library =
    Library { title: "PartySocket", packages: &["partysocket"], flags: &["--partysocket"], ..RECONNECTING_WEBSOCKET };

pub(crate) const SOCKETTE: Library = Library {
    title: "Sockette",
    packages: &["sockette"],
    flags: &["--sockette"],
    comes_back: BUT_AFTER_1001,
    ..RECONNECTING_WEBSOCKET
};

mod reconnecting_websocket {
    crate::libraries::matrix::tests!(super::RECONNECTING_WEBSOCKET);
}

mod partysocket {
    crate::libraries::matrix::tests!(super::PARTYSOCKET);
}

mod sockette {
    crate::libraries::matrix::tests!(super::SOCKETTE);
}
