//! What is known of a library. Every field is either used by a scenario or asserted by one.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::node::project;

/// A library, and how it behaves behind the proxy.
#[derive(Debug)]
pub(crate) struct Library {
    /// The title of its row: what sets it apart from other rows of the same package, or the package.
    pub(crate) title: &'static str,
    /// The npm packages that are tried, page's first.
    pub(crate) packages: &'static [&'static str],
    /// Its folder in `tests/libraries`.
    pub(crate) folder: &'static str,
    /// The path at which its page connects.
    pub(crate) path: &'static str,
    /// Flags for its `page.js`.
    pub(crate) flags: &'static [&'static str],
    /// The name of its profile.
    pub(crate) profile: &'static str,
    /// The mode that the profile implies.
    pub(crate) mode: &'static str,
    /// Whether `profile = "auto"` leads to this profile and mode.
    pub(crate) auto: Auto,
    /// Lines of `[heartbeat]` beyond [`super::matrix::WINDOWS`] that make the bound short enough for a test.
    pub(crate) heartbeat: &'static str,
    /// The longest that a client which beats no more is held, beside the profile alone.
    pub(crate) hung: Hung,
    /// What the app surfaces of a missed heartbeat: these fields of its `close` event.
    pub(crate) app_hears: &'static str,
    /// What the page surfaces of the proxy's 1001, and what it does then.
    pub(crate) after_1001: After,
    /// What the page surfaces of the proxy's 1012, and what it does then.
    pub(crate) after_1012: After,
}

/// What `profile = "auto"` makes of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auto {
    /// It picks the profile, and says why in these words, among others.
    Picks(&'static str),
    /// Nothing in the request gives the library away, or not that its page beats by itself.
    CannotTell,
}

/// What the profile finds when nothing runs any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hung {
    /// The page hangs, and the network beside it lives.
    Page {
        /// How the bound comes about, in the words of the table.
        bound: &'static str,
        /// The bound with the settings of the test.
        tried: Duration,
    },
    /// A page that hangs is not found, for the library never answers; the whole process has to stop.
    Process {
        /// As for a page.
        bound: &'static str,
        /// As for a page.
        tried: Duration,
    },
}

/// What a page does after its connection has been closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct After {
    /// Fields of its `close` event.
    pub(crate) hears: &'static str,
    /// Whether it comes back.
    pub(crate) comes_back: ComesBack,
}

/// Whether a library reconnects by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComesBack {
    /// It does, and goes on trying while it is refused.
    Yes,
    /// It does, and gives up when its first try fails.
    UnlessRefused,
    /// It could, and does not after this code.
    #[expect(dead_code, reason = "no library is like that so far")]
    No,
    /// The library has no such thing; its user writes it.
    NotItsJob,
}

impl ComesBack {
    /// Whether a page is back where nothing is in its way.
    pub(crate) fn comes(self) -> bool {
        matches!(self, Self::Yes | Self::UnlessRefused)
    }
}

impl Library {
    /// How long a client that beats no more is held, with the settings of the test.
    pub(crate) fn bound(&self) -> Duration {
        let (Hung::Page { tried, .. } | Hung::Process { tried, .. }) = self.hung;
        tried
    }

    /// `package version` of each package, as the lock file has it.
    pub(crate) fn versions(&self) -> Vec<String> {
        let path = project("libraries").join("package-lock.json");
        let lock = fs::read_to_string(path).expect("the lock file is there");
        let lock: Value = serde_json::from_str(&lock).expect("the lock file is JSON");
        let version = |package: &str| lock["packages"][format!("node_modules/{package}")]["version"].as_str();
        let versions = self.packages.iter().map(|package| match version(package) {
            Some(version) => format!("{package} {version}"),
            None => panic!("{package} is not in package-lock.json"),
        });
        versions.collect()
    }
}
