//! What a route asks of the heartbeat: every setting, validated, with its default.

use std::sync::Arc;
use std::time::Duration;

use super::{DEFAULT_WINDOW, Profile, Proof};

/// Which heartbeat the proxy speaks on the client leg.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    /// RFC 6455 §5.5.2 Ping frames, answered by every conforming client on its own.
    #[default]
    Protocol,
    /// Messages of the application's own that the proxy sends, and whose answers it swallows.
    App(Arc<Profile>),
    /// Messages of the application's own that the client sends, and that the proxy answers and swallows.
    Answer(Arc<Profile>),
    /// Heartbeats that client and app exchange, and that the proxy watches.
    Passive(Arc<Profile>),
    /// No probes and no enforcement; frames are relayed and validated only.
    Off,
}

impl Mode {
    /// The word for it, in the configuration and in log lines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::App(_) => "app",
            Self::Answer(_) => "answer",
            Self::Passive(_) => "passive",
            Self::Off => "off",
        }
    }

    /// The application's heartbeat that it is about.
    pub fn profile(&self) -> Option<&Arc<Profile>> {
        match self {
            Self::App(profile) | Self::Answer(profile) | Self::Passive(profile) => Some(profile),
            Self::Protocol | Self::Off => None,
        }
    }

    /// Whether messages of the client are taken out, which an extension that compresses them would not survive: the
    /// app's window would lack what the client's has (RFC 7692 §7.2.3.2).
    pub fn swallows(&self) -> bool {
        matches!(self, Self::App(_) | Self::Answer(_))
    }
}

/// What counts as a sign of life from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Any inbound byte, even in the middle of a frame.
    #[default]
    AnyBytes,
    /// The last byte of any frame.
    AnyFrame,
    /// A Pong, whatever its payload.
    PongOnly,
}

/// Who answers a Ping that the client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientPing {
    /// The app: the Ping is relayed, so that a frozen app is not hidden.
    #[default]
    Forward,
    /// The proxy: the Ping is swallowed and answered on the spot.
    Answer,
}

/// The code and reason of a Close frame (RFC 6455 §5.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseSpec {
    /// A code that may stand on a wire: 1000–4999 without 1004, 1005, 1006 and 1015.
    pub code: u16,
    /// UTF-8, at most 123 bytes.
    pub reason: Box<str>,
}

impl CloseSpec {
    /// A Close with `code` and `reason`.
    pub fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// How the app learns that its client is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEnd {
    /// A Close frame, unless a client frame is half-forwarded.
    Close(CloseSpec),
    /// A bare FIN: the app sees 1006.
    Disconnect,
}

/// What is sent on each leg when the client misses its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnMiss {
    /// The Close sent to the client, unless a frame to it is half-written.
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

/// The heartbeat of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which heartbeat is spoken.
    pub mode: Mode,
    /// Quiet time since the last inbound byte before a probe is sent.
    pub interval: Duration,
    /// How long after a probe left for the wire a sign of life must be seen.
    pub timeout: Duration,
    /// How long a client may be silent where it beats by itself; `None` is what its profile or the protocol's handshake
    /// says, and otherwise [`DEFAULT_WINDOW`].
    pub window: Option<Duration>,
    /// Probes in a row that may go unanswered before teardown; at least 1.
    pub max_missed: u32,
    /// Each delay is multiplied by a draw from `[1 - jitter, 1]`; 0 to 1.
    pub jitter: f64,
    /// What counts as a sign of life.
    pub liveness: Liveness,
    /// A probe is sent this long after the last one even under inbound traffic.
    pub probe_when_busy: Duration,
    /// No write or ACK progress for this long is death.
    pub write_stall: Duration,
    /// The longest that a deadline may stay frozen.
    pub max_deferral: Duration,
    /// The longest that one client frame may take.
    pub frame_max_time: Duration,
    /// Whether the window follows the measured round trip (RFC 6298 estimators); it only lengthens.
    pub adaptive: bool,
    /// A timer this late means that the process was stopped or starved.
    pub stall_guard: Duration,
    /// Who answers the client's own Pings.
    pub client_ping: ClientPing,
    /// What is sent when the window passes.
    pub on_miss: OnMiss,
    /// Close sent → reads drained → FIN → after this long RST.
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
    /// What tells that a client is alive, before a handshake of the protocol agrees on something else.
    pub fn proof(&self) -> Option<Proof> {
        match &self.mode {
            Mode::Off => None,
            Mode::Protocol => Some(Proof::Pongs),
            Mode::App(_) => Some(Proof::Answers),
            Mode::Answer(_) => Some(Proof::Speaks(self.window.unwrap_or(DEFAULT_WINDOW))),
            Mode::Passive(profile) => Some(self.proof_of(profile.proof)),
        }
    }

    /// `proof` with the window that the configuration insists on.
    pub(super) fn proof_of(&self, proof: Proof) -> Proof {
        match (proof, self.window) {
            (Proof::Speaks(_), Some(window)) => Proof::Speaks(window),
            (Proof::SpeaksWhenQuiet(_), Some(window)) => Proof::SpeaksWhenQuiet(window),
            (Proof::SpeaksWhenSpokenTo(_), Some(window)) => Proof::SpeaksWhenSpokenTo(window),
            (proof, _) => proof,
        }
    }
}

/// The heartbeat of one upstream process: one probe at a time, never one per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Silence of the whole process before one of its sessions is probed; `None` is off.
    pub interval: Option<Duration>,
    /// How long the answer may take before the process counts as unresponsive.
    pub timeout: Duration,
    /// After this much silence its clients get Close 1012.
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
