//! A row of the table. Every field is used or asserted by the scenario, or shown in the table.

use std::fs;
use std::time::Duration;

use pulsegate_test_kit::node::project;
use serde_json::Value;

/// An app and its client, and their behaviour behind the proxy.
#[derive(Debug)]
pub(crate) struct Row {
    /// The title of the row.
    pub(crate) title: &'static str,
    /// The npm packages under test.
    pub(crate) packages: &'static [&'static str],
    /// The folder in `tests/works_with`.
    pub(crate) folder: &'static str,
    /// The transport, as the table names it.
    pub(crate) transport: &'static str,
    pub(crate) client: Client,
    /// The way in which the client vanishes.
    pub(crate) vanishes: Vanishes,
    /// The fields of the app's own `close` event for a client that vanished.
    pub(crate) close: &'static str,
    /// The client's behaviour after the proxy's 1012.
    pub(crate) returns: Returns,
    pub(crate) settings: &'static [Setting],
}

/// The client of an app.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// A script in Node, which connects to `path`.
    Node { script: &'static str, path: &'static str, flags: &'static [&'static str] },
    /// A page in Chromium under a public name. It shows what a developer saves.
    Chromium,
}

/// The end of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vanishes {
    /// It is stopped with its sockets open; the heartbeat detects it, and it continues later.
    Stopped,
    /// It is killed; the app detects that after this time of its own. For transports without a WebSocket.
    Killed { app_notices: Duration },
}

/// The reaction of a client to the proxy's 1012.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    /// It connects again.
    Reconnects,
    /// It connects again by a call of the page, which is given.
    ByCall(&'static str),
    /// It loads its page again.
    Reloads,
    /// It reports the end, and leaves the rest to its user.
    LeavesItToYou,
    /// It has no WebSocket that could end with 1012. A request that falls into the gap of a restart fails.
    NoWebSocket,
}

/// A setting of the app that it needs behind the proxy.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The value of `WITHOUT` with which the app leaves it out.
    pub(crate) name: &'static str,
    /// The setting and its purpose, as the table states them.
    pub(crate) shown: &'static str,
    pub(crate) without: Without,
}

/// The effect of a missing setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Without {
    /// The page is answered with this status.
    Status(u16),
    /// The page is loaded, and its WebSocket connects to an address without the proxy.
    NoWebSocket,
    /// The app's framework reports these fields, instead of those.
    Reports { without: &'static str, with: &'static str },
}

impl Row {
    /// Returns `package version` of each package, as in the lock file.
    pub(crate) fn versions(&self) -> Vec<String> {
        let path = project("works_with").join("package-lock.json");
        let lock = fs::read_to_string(path).expect("the lock file is readable");
        let lock: Value = serde_json::from_str(&lock).expect("the lock file is JSON");
        let version = |package: &str| lock["packages"][format!("node_modules/{package}")]["version"].as_str();
        let versions = self.packages.iter().map(|package| match version(package) {
            Some(version) => format!("{package} {version}"),
            None => panic!("{package} is not in package-lock.json"),
        });
        versions.collect()
    }
}
