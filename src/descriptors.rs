//! The limit of open files (`RLIMIT_NOFILE`), divided among client connections, app connections and a reserve.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{ConnectionLimit, Settings};

/// The maximum number of idle connections of one worker to one app; above it the oldest is closed.
pub const POOLED: usize = 64;

/// Descriptors of the whole process: standard streams, health and admin clients, files that a reload reads and watches,
/// name resolution.
const OF_THE_PROCESS: u64 = 64;
/// Descriptors of one worker: its runtime and listeners.
const OF_A_WORKER: u64 = 8;
/// Descriptors of a client connection: its own, and one to the app.
const OF_A_CONNECTION: u64 = 2;

/// The soft limit that macOS takes where it says that the hard limit is unlimited (`OPEN_MAX`, setrlimit(2)).
const OPEN_MAX: u64 = 10_240;

/// Raises the soft limit to the hard limit; the usual soft limit of 1024 exists for programs that use `select(2)`.
/// Returns the resulting limit; `None` is unlimited.
pub fn raise_limit() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let raised = [before.maximum, Some(OPEN_MAX)].into_iter().find(|current| {
        let is_lower = current.is_some_and(|current| before.current.is_none_or(|before| current < before));
        !is_lower && setrlimit(Resource::Nofile, Rlimit { current: *current, ..before }).is_ok()
    });
    raised.unwrap_or(before.current)
}

/// Returns the limit that [`raise_limit`] would set; `None` is unlimited.
pub fn highest_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// The division of a limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The limit of open files.
    pub limit: u64,
    /// The descriptors reserved for everything except client connections: at most half of the limit.
    pub reserve: u64,
    /// The part of the reserve that is not for idle app connections: at most a quarter of the limit.
    own: u64,
}

impl Budget {
    /// Divides `limit` among everything that `settings` open; `None` without a limit.
    pub fn of(limit: Option<u64>, settings: &Settings) -> Option<Self> {
        let limit = limit?;
        let pools = POOLED as u64 * settings.upstreams().len() as u64;
        let workers = settings.listen.workers.get() as u64;
        let own = OF_THE_PROCESS + workers * OF_A_WORKER;
        Some(Self { limit, reserve: (own + workers * pools).min(limit / 2), own: own.min(limit / 4) })
    }

    /// Returns the number of app connections that fit beside `clients` client connections, at least one. A client
    /// connection of HTTP/2 may need many app connections, so they have a bound of their own.
    pub fn upstream_connections(self, clients: usize) -> usize {
        let left = self.limit.saturating_sub(self.own).saturating_sub(clients as u64);
        usize::try_from(left).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the number of client connections that fit beside the reserve, at least one.
    pub fn connections(self) -> usize {
        usize::try_from((self.limit - self.reserve) / OF_A_CONNECTION).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the limit of open files needed for `connections` client connections.
    pub fn needed(self, connections: usize) -> u64 {
        (connections as u64).saturating_mul(OF_A_CONNECTION).saturating_add(self.reserve)
    }
}

/// Divides a limit of `open_files` between client and app connections and sets the bound of the latter. Returns the
/// value of `limits.connections = "auto"`; `None` is unlimited.
pub fn divide(settings: &Settings, open_files: Option<u64>) -> Option<usize> {
    let budget = Budget::of(open_files, settings)?;
    if let ConnectionLimit::AtMost(most) = settings.limits.connections
        && budget.needed(most) > budget.limit
    {
        let mend = "raise the limit of open files (ulimit -n, LimitNOFILE), or lower limits.connections";
        tracing::warn!(connections = most, open_files = budget.limit, needed = budget.needed(most), mend, "open files");
    }
    match settings.limits.connections {
        ConnectionLimit::Auto => allow_upstream(budget.upstream_connections(budget.connections())),
        ConnectionLimit::AtMost(most) if budget.needed(most) <= budget.limit => {
            allow_upstream(budget.upstream_connections(most));
        }
        ConnectionLimit::AtMost(_) | ConnectionLimit::Off => {}
    }
    Some(budget.connections())
}

/// A static, as the limit of open files and the count of open app connections are those of the process.
static UPSTREAM: Slots = Slots { most: AtomicUsize::new(usize::MAX), open: AtomicUsize::new(0) };

/// Sets the maximum number of open app connections to `most`.
fn allow_upstream(most: usize) {
    UPSTREAM.most.store(most, Ordering::Relaxed);
}

/// Takes a slot for an app connection; `None` at the maximum.
pub fn upstream_slot() -> Option<UpstreamSlot> {
    UPSTREAM.take().then_some(UpstreamSlot(&UPSTREAM))
}

/// The slot of an app connection, released on drop.
#[derive(Debug)]
pub struct UpstreamSlot(&'static Slots);

#[derive(Debug)]
struct Slots {
    most: AtomicUsize,
    open: AtomicUsize,
}

impl Slots {
    fn take(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let bounded = |open: usize| (open < most).then(|| open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bounded).is_ok()
    }
}

impl Drop for UpstreamSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::testing::settings;

    fn budget(limit: u64, workers: u32) -> Budget {
        let mut settings = settings("");
        settings.listen.workers = usize::try_from(workers).ok().and_then(std::num::NonZeroUsize::new).expect("some");
        Budget::of(Some(limit), &settings).expect("a limit")
    }

    #[test]
    fn connections_take_what_the_reserve_leaves() {
        let two_workers = 64 + 2 * (8 + 64);
        assert_eq!(budget(1024, 2), Budget { limit: 1024, reserve: two_workers, own: 80 });
        assert_eq!(budget(1024, 2).upstream_connections(408), 1024 - 80 - 408);
        assert_eq!(budget(1024, 2).connections(), 408);
        assert_eq!(budget(1_048_576, 2).connections(), 524_184);
        assert_eq!(budget(1024, 2).needed(408), 1024);
        assert_eq!(budget(1024, 2).needed(20_000), 40_208);
        assert_eq!(Budget::of(None, &settings("")), None);
    }

    #[test]
    fn slots_are_so_many_and_given_back() {
        let slots: &'static Slots = Box::leak(Box::new(Slots { most: AtomicUsize::new(2), open: AtomicUsize::new(0) }));
        let one = slots.take().then_some(UpstreamSlot(slots)).expect("the first");
        let _other = slots.take().then_some(UpstreamSlot(slots)).expect("the second");
        assert!(!slots.take(), "full");
        drop(one);
        assert!(slots.take(), "there is room again");
    }

    #[test]
    fn a_small_limit_is_halved() {
        assert_eq!(budget(300, 2), Budget { limit: 300, reserve: 150, own: 75 });
        assert_eq!(budget(300, 2).upstream_connections(75), 150);
        assert_eq!(budget(300, 2).connections(), 75);
        assert_eq!(budget(2, 2).connections(), 1);
    }
}
