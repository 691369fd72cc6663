//! subscriptions-transport-ws, the older GraphQL protocol: the app sends `ka` on a timer, which gets no answer.

use crate::libraries::library::{ALWAYS, Auto, Hung, Library};
use crate::libraries::matrix::{self, BOUND};

pub(crate) const LIBRARY: Library = Library {
    title: "subscriptions-transport-ws",
    packages: &["subscriptions-transport-ws"],
    folder: "subscriptions_transport_ws",
    path: "/graphql",
    flags: &[],
    profile: "graphql-ws",
    mode: "passive",
    auto: Auto::Picks("graphql-ws"),
    heartbeat: "",
    hung: Hung::Process { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    // The library reports an end to its user, but no code.
    hears_miss: "{}",
    hears_restart: "{}",
    comes_back: ALWAYS,
};

matrix::tests!(LIBRARY);
