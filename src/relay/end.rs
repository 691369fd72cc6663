//! An end that is under way.

use std::time::{Duration, Instant};

use crate::session::{CloseCause, Ending};
use crate::suspension::PauseMeter;

/// The state of an end that is decided.
#[derive(Debug)]
pub(super) struct End {
    pub(super) cause: CloseCause,
    pub(super) decided: Instant,
    /// The pauses of the process since the deadlines of the end were last moved by them.
    pub(super) pauses: PauseMeter,
    /// The client's silence until then; bytes that it sends afterwards are no sign of life.
    pub(super) last_seen_ago: Duration,
    pub(super) last_pong_ago: Option<Duration>,
    /// The time until which a frame that is under way may be completed, and the bytes read when that was set.
    pub(super) gap_until: Option<(Instant, u64)>,
    /// The time until which the app may answer what the client had sent before it broke a rule.
    pub(super) answers_until: Option<Instant>,
    /// The time until which a client that cannot be written to is read.
    pub(super) reads_until: Option<Instant>,
    /// The ending, once everything that was written is known.
    pub(super) ending: Option<Ending>,
}
