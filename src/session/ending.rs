//! The end of a session: its cause, the codes on the wire, and the final figures.

use std::time::Duration;

use super::close_cause::CloseCause;
use super::live_stats::Traffic;
use crate::heartbeat::HeartbeatStats;

/// The end of one session, reported once.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The cause.
    pub cause: CloseCause,
    /// The code of the Close that the client sent or was sent; 1006 when there was none (RFC 6455 §7.1.5).
    pub client_code: u16,
    /// The code of the Close that the app sent or was sent; 1006 when there was none.
    pub upstream_code: u16,
    /// The reason text of the Close that began the end.
    pub close_reason: Box<str>,
    /// The reason text of the Close that the app sent or was sent; empty when there was none.
    pub upstream_close_reason: Box<str>,
    /// Traffic read from the client.
    pub from_client: Traffic,
    /// Traffic read from the app.
    pub from_upstream: Traffic,
    /// Heartbeat figures.
    pub heartbeat: HeartbeatStats,
    /// The time from the upgrade to the end of both legs.
    pub duration: Duration,
    /// The time since the client's last byte when the end was decided.
    pub last_seen_ago: Duration,
    /// The time since the client's last answer to a probe, or its last own heartbeat; `None` without any.
    pub last_pong_ago: Option<Duration>,
}
