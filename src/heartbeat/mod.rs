//! The heartbeat engine without input or output.

mod policy;

use std::time::Duration;

pub use policy::{ClientPing, CloseSpec, Liveness, Mode, OnMiss, Policy, UpstreamEnd, UpstreamPolicy};

/// Heartbeat figures of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Own probes that left for the client.
    pub pings: u64,
    /// Answers to them.
    pub pongs: u64,
    /// Windows that passed without a sign of life.
    pub missed: u64,
    /// The last measured round trip.
    pub rtt_last: Option<Duration>,
}

/// The liveness of one upstream process, shared by all its sessions.
#[derive(Debug, Default)]
pub struct UpstreamPulse;
