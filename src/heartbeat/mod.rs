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

mod choice;
mod downlink;
mod draw;
mod engine;
mod handshake;
mod ledger;
mod listener;
mod outcome;
mod pattern;
mod phase;
mod policy;
mod profile;
mod questions;
mod rate;
mod recognition;
mod rtt;
mod upstream;

pub use choice::{Auto, Heartbeat, Picked};
pub use downlink::Delivery;
pub use engine::Engine;
pub use handshake::MAX_HANDSHAKE;
pub use ledger::{Answer, Ledger, MAX_OUTSTANDING};
pub use listener::{Heard, Listener};
pub use outcome::{Awaited, BeatFate, Due, Gap, PingFate, PongFate, Seen, Stats, Transmit, Verdict};
pub use pattern::{Format, Matching, Pattern, PatternError};
pub use policy::{ClientPing, CloseSpec, Liveness, Mode, OnMiss, Policy, UpstreamEnd, UpstreamPolicy};
pub use profile::{Builtin, DEFAULT_MAX_LEN, DEFAULT_WINDOW, Handshake, Profile, Proof, Role, Say};
pub use recognition::{RECOGNISABLE, Signs, recognise};
pub use upstream::{CheckResult, ConnectOutcome, HealthCheck, ProbeSessions, Tick, UpstreamPulse, Watch};
