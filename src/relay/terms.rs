//! The terms on which a session is relayed.

use std::sync::Arc;
use std::time::Duration;

use super::memory::Memory;
use super::observer::Observer;
use crate::heartbeat::{Policy, UpstreamLiveness};
use crate::session::ConnId;
use crate::ws::Limits;

/// The terms of a session, on which the upgrade agreed.
#[derive(Debug)]
pub struct NegotiatedTerms {
    /// The heartbeat of the client leg.
    pub policy: Arc<Policy>,
    /// Frame rules of both directions, with the RSV bits that an extension has claimed.
    pub limits: Limits,
    /// The counter of bytes held for slow peers, shared by all sessions.
    pub memory: Arc<Memory>,
    /// The app's own liveness, shared by all sessions of one upstream.
    pub liveness: Arc<UpstreamLiveness>,
    /// The receiver of the session's events.
    pub observer: Arc<dyn Observer>,
    /// The session's id in log lines.
    pub id: ConnId,
    /// Randomness for nonces and jitter.
    pub seed: u64,
    /// The age at which the session ends, as soon as no frame is under way.
    pub max_age: Option<Duration>,
}
