//! The properties of a library. Every field is either used by a scenario or asserted by one.

use std::fmt::{self, Display};
use std::fs;
use std::time::Duration;

use pulsegate_test_kit::node::project;
use serde_json::Value;

/// A library and its behaviour behind the proxy.
#[derive(Debug)]
pub(crate) struct Library {
    /// The title of its row: the difference from other rows of the same package, or the package.
    pub(crate) title: &'static str,
    /// The npm packages that are tested, the page's first.
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
    /// The result of `profile = "auto"`.
    pub(crate) auto: Auto,
    /// Lines of `[heartbeat]` beyond [`super::matrix::WINDOWS`] that make the bound short enough for a test.
    pub(crate) heartbeat: &'static str,
    /// The longest time for which a client without heartbeats is held by the profile alone.
    pub(crate) hung: Hung,
    /// The expected fields of the app's `close` event after a missed heartbeat.
    pub(crate) app_hears: &'static str,
    /// The expected fields of the page's `close` event after a missed heartbeat.
    pub(crate) hears_miss: &'static str,
    /// The expected fields of the page's `close` event after a restart of the proxy.
    pub(crate) hears_restart: &'static str,
    /// The page's reaction to each of [`ENDS`].
    pub(crate) comes_back: [ComesBack; ENDS.len()],
}

/// The result of `profile = "auto"` for a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auto {
    /// It selects the profile, with these words in its reason.
    Picks(&'static str),
    /// The request does not identify the library, or not that its page sends its own heartbeat.
    CannotTell,
}

/// The kind of hang that the profile detects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hung {
    /// The page hangs while its network thread runs.
    Page {
        /// The definition of the bound, in the words of the table.
        bound: &'static str,
        /// The bound with the settings of the test.
        tried: Duration,
    },
    /// A hung page is not found, because the library never answers; the whole process has to stop.
    Process {
        /// As for a page.
        bound: &'static str,
        /// As for a page.
        tried: Duration,
    },
}

/// The end of a page's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A Close with this code.
    Close(u16),
    /// No Close: the page sees 1006.
    NoClose,
}

/// The ends that are tested with every library: the possible codes of a missed heartbeat, and none.
pub(crate) const ENDS: [End; 5] = [End::Close(1001), RESTART, End::Close(1013), End::Close(4408), End::NoClose];

/// The code of a missed heartbeat and of a restart.
pub(crate) const RESTART: End = End::Close(1012);

/// A library that reconnects after every end.
pub(crate) const ALWAYS: [ComesBack; ENDS.len()] = [ComesBack::Yes; ENDS.len()];

/// A library that reconnects after every end if its first attempt succeeds.
pub(crate) const UNLESS_REFUSED: [ComesBack; ENDS.len()] = [ComesBack::UnlessRefused; ENDS.len()];

/// A library that leaves reconnecting to its user.
pub(crate) const NOT_ITS_JOB: [ComesBack; ENDS.len()] = [ComesBack::NotItsJob; ENDS.len()];

/// A library that treats 1001 as a deliberate end.
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

/// The reaction of a library to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComesBack {
    /// It reconnects, and repeats the attempt while it is refused.
    Yes,
    /// It reconnects, and gives up if its first attempt fails.
    UnlessRefused,
    /// It can reconnect, but does not after this code.
    No,
    /// It has no such feature; its user implements it.
    NotItsJob,
}

impl ComesBack {
    /// Returns true if the page reconnects while the proxy accepts it.
    pub(crate) fn comes(self) -> bool {
        matches!(self, Self::Yes | Self::UnlessRefused)
    }
}

impl Library {
    /// Returns the page's reaction to `end`, which is one of [`ENDS`].
    pub(crate) fn comes_back_after(&self, end: End) -> ComesBack {
        let ends = ENDS.iter().zip(self.comes_back);
        ends.into_iter().find(|(tried, _)| **tried == end).map(|(_, comes_back)| comes_back).expect("it is tried")
    }

    /// Returns the time for which a client without heartbeats is held, with the settings of the test.
    pub(crate) fn bound(&self) -> Duration {
        let (Hung::Page { tried, .. } | Hung::Process { tried, .. }) = self.hung;
        tried
    }

    /// Returns `package version` of each package, from the lock file.
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
