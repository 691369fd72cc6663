//! The heartbeat engine, without I/O.
//!
//! The relay reports events with their time (`now` is always an argument); the engine returns the action and the next
//! deadline. It never reads a clock, spawns, logs or touches a socket, so all of its semantics can be tested with
//! arbitrary instants.
//!
//! ```text
//! Quiet → Queued → Sent → (a sign of life) Quiet
//!                       → (the window passes) missed: Queued again, or the end
//! ```
//!
//! Two conditions freeze a deadline, each for at most `max_deferral`: a *stalled* path (the client's bytes are not read
//! because the app is slow, or the probe is behind a backlog that still moves), and a *suspended* process (the timer
//! fired much too late). A probe that waits for the end of one long frame is frozen without that limit, as long as the
//! client accepts the frame.

mod app_probes;
mod detection;
mod downlink;
mod engine;
mod handshake;
mod ledger;
mod message_matcher;
mod outcome;
mod pattern;
mod phase;
mod policy;
mod profile;
mod random;
mod rate;
mod rtt;
mod selection;
mod upstream_liveness;

pub use detection::{DETECTABLE, Signs, detect};
pub use downlink::Delivery;
pub use engine::Engine;
pub use handshake::MAX_HANDSHAKE;
pub use ledger::{Ledger, MAX_OUTSTANDING, PongMatch};
pub use message_matcher::{MessageKind, MessageMatcher};
pub use outcome::{
    Awaited, Due, EngineVerdict, Gap, HeartbeatAction, HeartbeatStats, PingAction, PongAction, ReadSummary, Transmit,
};
pub use pattern::{Matching, Pattern, PatternError, RecordFormat};
pub use policy::{ClientPing, CloseSpec, Liveness, Mode, OnMiss, Policy, UpstreamEnd, UpstreamPolicy};
pub use profile::{Builtin, DEFAULT_MAX_LEN, DEFAULT_WINDOW, Handshake, MessageTemplate, Profile, ProofOfLife, Role};
pub use selection::{Auto, Heartbeat, Selected};
pub use upstream_liveness::{
    ConnectOutcome, HealthCheck, HealthCheckResult, LivenessMonitor, ProbeSessions, Tick, UpstreamLiveness,
};
