//! Action Cable, whose client never answers: a hung page is not found, and a client that does not answer pings is.

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix::{self, BOUND};

pub(crate) const LIBRARY: Library = Library {
    title: "Action Cable",
    packages: &["@rails/actioncable"],
    folder: "actioncable",
    path: "/cable",
    flags: &[],
    profile: "actioncable",
    mode: "passive",
    auto: Auto::Picks("actioncable-v1-json"),
    heartbeat: "",
    hung: Hung::Process { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    // The client reports neither code nor reason.
    hears_miss: r#"{ "willAttemptReconnect": true }"#,
    hears_restart: r#"{ "willAttemptReconnect": true }"#,
    comes_back: ALWAYS,
};

matrix::tests!(LIBRARY);
