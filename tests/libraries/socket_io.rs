//! Socket.IO, from its bundle for browsers: with WebSocket from the beginning, and with polling that is upgraded.

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix::BOUND;

pub(crate) const WEBSOCKET: Library = Library {
    title: "Socket.IO, WebSocket only",
    packages: &["socket.io-client", "socket.io"],
    folder: "socket_io",
    path: "/",
    flags: &["--websocket"],
    profile: "engine.io",
    mode: "passive",
    auto: Auto::Picks("EIO=4"),
    heartbeat: "",
    hung: Hung::Page { bound: "the app's `pingInterval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "reason": "transport close" }"#,
    hears_miss: r#"{ "reason": "transport close" }"#,
    hears_restart: r#"{ "reason": "transport close" }"#,
    comes_back: ALWAYS,
};

pub(crate) const POLLING: Library = Library { title: "Socket.IO, polling first", flags: &[], ..WEBSOCKET };

mod websocket {
    crate::libraries::matrix::tests!(super::WEBSOCKET);
}

mod polling {
    crate::libraries::matrix::tests!(super::POLLING);
}
