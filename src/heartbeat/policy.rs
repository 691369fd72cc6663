//! The heartbeat policy of a route: every setting, validated, with its default.

use std::sync::Arc;
use std::time::Duration;

use super::{DEFAULT_WINDOW, Profile, ProofOfLife};

/// The kind of heartbeat on the client leg.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    /// RFC 6455 §5.5.2 Ping frames, which every conforming client answers automatically.
    #[default]
    Protocol,
    /// Application messages sent by the proxy, whose answers it swallows.
    App(Arc<Profile>),
    /// Application messages sent by the client, which the proxy answers and swallows.
    Answer(Arc<Profile>),
    /// Heartbeats exchanged by client and app, which the proxy observes.
    Passive(Arc<Profile>),
    /// No probes and no enforcement; frames are only relayed and validated.
    Off,
}

impl Mode {
    /// Returns the name for configuration and log lines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::App(_) => "app",
            Self::Answer(_) => "answer",
            Self::Passive(_) => "passive",
            Self::Off => "off",
        }
    }

    /// Returns the profile of an application-level heartbeat.
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        match self {
            Self::App(profile) | Self::Answer(profile) | Self::Passive(profile) => Some(profile),
            Self::Protocol | Self::Off => None,
        }
    }

    /// Returns whether client messages may be removed. Compression would not survive that: the app's sliding window
    /// would lack data that the client's refers to (RFC 7692 §7.2.3.2).
    pub fn swallows(&self) -> bool {
        matches!(self, Self::App(_) | Self::Answer(_))
    }
}

/// The events that count as a sign of life from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Any inbound byte, even in the middle of a frame.
    #[default]
    AnyBytes,
    /// The last byte of any frame.
    AnyFrame,
    /// A Pong with any payload.
    PongOnly,
}

/// The peer that answers a client's Ping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientPing {
    /// The app: the Ping is forwarded, so that a frozen app is not hidden.
    #[default]
    Forward,
    /// The proxy: the Ping is swallowed and answered at once.
    Answer,
}

/// The code and reason of a Close frame (RFC 6455 §5.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseSpec {
    /// A code that may be sent: 1000–4999 except 1004, 1005, 1006 and 1015.
    pub code: u16,
    /// The reason: UTF-8, at most 123 bytes.
    pub reason: Box<str>,
}

impl CloseSpec {
    /// Creates a Close with `code` and `reason`.
    pub fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// The end of the app leg when the client is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEnd {
    /// A Close frame, unless a client frame is only partly forwarded.
    Close(CloseSpec),
    /// A bare FIN: the app reports 1006.
    Disconnect,
}

/// The ends of both legs when the client misses its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnMiss {
    /// The Close sent to the client, unless a frame to it is only partly written.
    pub client: CloseSpec,
    /// The end of the upstream leg.
    pub upstream: UpstreamEnd,
}

impl Default for OnMiss {
    fn default() -> Self {
        Self {
            client: CloseSpec::new(1012, "heartbeat timeout"),
            upstream: UpstreamEnd::Close(CloseSpec::new(4408, "heartbeat timeout")),
        }
    }
}

/// The heartbeat policy of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The kind of heartbeat.
    pub mode: Mode,
    /// The idle time after the last inbound byte until a probe is sent.
    pub interval: Duration,
    /// The time for a sign of life after a probe was sent.
    pub timeout: Duration,
    /// The maximum silence of a client that sends heartbeats on its own; `None` is the value of its profile or of the
    /// protocol's handshake, or else [`DEFAULT_WINDOW`].
    pub window: Option<Duration>,
    /// The number of consecutive unanswered probes that ends the session; at least 1.
    pub max_missed: u32,
    /// The jitter: each delay is multiplied by a random factor from `[1 - jitter, 1]`; 0 to 1.
    pub jitter: f64,
    /// The events that count as a sign of life.
    pub liveness: Liveness,
    /// The time after the last probe until the next is sent even under inbound traffic.
    pub probe_when_busy: Duration,
    /// The time without write or ACK progress after which the client counts as dead.
    pub write_stall: Duration,
    /// The maximum time for which a deadline may be frozen.
    pub max_deferral: Duration,
    /// The maximum duration of one client frame.
    pub frame_max_time: Duration,
    /// True if the window follows the measured round trip (RFC 6298 estimators); it only lengthens.
    pub adaptive: bool,
    /// The lateness of a timer from which the process counts as stopped or starved.
    pub stall_guard: Duration,
    /// The peer that answers the client's own Pings.
    pub client_ping: ClientPing,
    /// The ends of both legs after a miss.
    pub on_miss: OnMiss,
    /// The time for the peer to close after Close, drained reads and FIN; RST follows.
    pub close_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Protocol,
            interval: Duration::from_secs(25),
            timeout: Duration::from_secs(20),
            window: None,
            max_missed: 1,
            jitter: 0.2,
            liveness: Liveness::AnyBytes,
            probe_when_busy: Duration::from_secs(100),
            write_stall: Duration::from_secs(45),
            max_deferral: Duration::from_mins(5),
            frame_max_time: Duration::from_mins(10),
            adaptive: false,
            stall_guard: Duration::from_secs(2),
            client_ping: ClientPing::Forward,
            on_miss: OnMiss::default(),
            close_grace: Duration::from_secs(2),
        }
    }
}

impl Policy {
    /// Returns the proof of life in force before any handshake of the protocol; `None` in mode `off`.
    pub fn proof(&self) -> Option<ProofOfLife> {
        match &self.mode {
            Mode::Off => None,
            Mode::Protocol => Some(ProofOfLife::Pongs),
            Mode::App(_) => Some(ProofOfLife::Answers),
            Mode::Answer(_) => Some(ProofOfLife::Sends(self.window.unwrap_or(DEFAULT_WINDOW))),
            Mode::Passive(profile) => Some(self.proof_of(profile.proof)),
        }
    }

    /// Returns `proof` with the configured window, if any.
    pub(super) fn proof_of(&self, proof: ProofOfLife) -> ProofOfLife {
        match (proof, self.window) {
            (ProofOfLife::Sends(_), Some(window)) => ProofOfLife::Sends(window),
            (ProofOfLife::SendsWhenIdle(_), Some(window)) => ProofOfLife::SendsWhenIdle(window),
            (ProofOfLife::SendsAfterApp(_), Some(window)) => ProofOfLife::SendsAfterApp(window),
            (proof, _) => proof,
        }
    }
}

/// The liveness policy of one upstream process: one probe at a time, never one per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// The silence of the whole process until one of its sessions is probed; `None` is off.
    pub interval: Option<Duration>,
    /// The time for an answer until the process counts as unresponsive.
    pub timeout: Duration,
    /// The silence after which its clients get Close 1012.
    pub give_up: Duration,
}

impl Default for UpstreamPolicy {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(15)),
            timeout: Duration::from_secs(10),
            give_up: Duration::from_mins(1),
        }
    }
}
