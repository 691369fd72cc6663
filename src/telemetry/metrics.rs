//! Counters of the process.

/// The counters of this process.
#[derive(Debug, Default)]
pub struct Metrics;

/// One thing that is there now; gone when dropped.
#[derive(Debug)]
pub struct Active;

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        Self
    }

    /// Counts an upgrade that was refused.
    pub fn rejected(&self, _reason: &'static str) {}

    /// Counts a session that ended.
    pub fn closed(&self, _initiator: &'static str, _reason: &'static str, _code: u16) {}

    /// Counts a plain request by the status it was answered with.
    pub fn request(&self, _code: u16) {}

    /// Counts an exchange that failed on the upstream side.
    pub fn upstream_error(&self, _reason: &'static str) {}

    /// Counts a session as long as the returned value lives.
    pub fn websocket(&self) -> Active {
        Active
    }
}
