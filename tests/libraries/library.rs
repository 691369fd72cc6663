//! What is known of a library. Every field is either used by a scenario or asserted by one.

use std::fmt::{self, Display};
use std::fs;
use std::time::Duration;

use pulsegate_test_kit::node::project;
use serde_json::Value;

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
    /// The name of its profile; empty where it has none.
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
    /// What the page surfaces of the Close after a missed heartbeat: these fields of its `close` event.
    pub(crate) hears_miss: &'static str,
    /// The same of the Close with which the proxy restarts.
    pub(crate) hears_restart: &'static str,
    /// Whether the page comes back by itself after each of [`ENDS`].
    pub(crate) comes_back: [ComesBack; ENDS.len()],
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

/// The last that a page receives of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A Close with this code.
    Close(u16),
    /// No Close: the page sees 1006.
    NoClose,
}

/// The ends that are tried with every library: the codes that a missed heartbeat could have, and none.
pub(crate) const ENDS: [End; 5] = [End::Close(1001), RESTART, End::Close(1013), End::Close(4408), End::NoClose];

/// The code of a missed heartbeat and of a restart.
pub(crate) const RESTART: End = End::Close(1012);

/// A library that comes back after every end.
pub(crate) const ALWAYS: [ComesBack; ENDS.len()] = [ComesBack::Yes; ENDS.len()];

/// A library that comes back after every end, where its first try succeeds.
pub(crate) const UNLESS_REFUSED: [ComesBack; ENDS.len()] = [ComesBack::UnlessRefused; ENDS.len()];

/// A library that leaves it to its user.
pub(crate) const NOT_ITS_JOB: [ComesBack; ENDS.len()] = [ComesBack::NotItsJob; ENDS.len()];

/// A library that takes 1001 for a deliberate end.
pub(crate) const BUT_AFTER_1001: [ComesBack; ENDS.len()] =
    [ComesBack::No, ComesBack::Yes, ComesBack::Yes, ComesBack::Yes, ComesBack::Yes];

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(code) => write!(f, "{code}"),
            Self::NoClose => f.write_str("no Close"),
        }
    }
}

/// Whether a library reconnects by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComesBack {
    /// It does, and goes on trying while it is refused.
    Yes,
    /// It does, and gives up when its first try fails.
    UnlessRefused,
    /// It could, and does not after this code.
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
    /// Whether the page comes back by itself after `end`, which is one of [`ENDS`].
    pub(crate) fn comes_back_after(&self, end: End) -> ComesBack {
        let ends = ENDS.iter().zip(self.comes_back);
        ends.into_iter().find(|(tried, _)| **tried == end).map(|(_, comes_back)| comes_back).expect("it is tried")
    }

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
