//! The engine's inputs and outputs: the summary of a read, statistics, verdicts, and the handling of single frames.

use std::sync::Arc;
use std::time::Duration;

use super::Profile;
use crate::ws::ControlFrame;

/// The summary of a read from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// True if it contained bytes of a data message.
    pub data: bool,
    /// True if it contained the end of a frame.
    pub ended_frame: bool,
    /// True if it ended inside a frame.
    pub inside_frame: bool,
}

/// The position in the stream to the client, which determines the frames allowed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Between two frames of one message: control frames only (RFC 6455 §5.4).
    Frame,
    /// Between two messages.
    Message,
}

/// A frame of the heartbeat itself for the client.
#[derive(Clone, Debug)]
pub enum Transmit {
    /// A Ping.
    Control(ControlFrame),
    /// The proxy's message in this profile.
    Message(Arc<Profile>),
}

impl Transmit {
    /// Returns the encoded frame.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Control(frame) => frame.as_bytes(),
            Self::Message(profile) => profile.send.as_ref().map_or(&[], |say| say.as_bytes()),
        }
    }
}

/// The heartbeat statistics of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatStats {
    /// Probes of the proxy sent to the client.
    pub pings: u64,
    /// Answers to them.
    pub pongs: u64,
    /// Windows without a sign of life.
    pub missed: u64,
    /// Pongs that answer no known ping: unsolicited, or with a corrupted payload.
    pub strays: u64,
    /// The last measured round trip.
    pub rtt_last: Option<Duration>,
}

/// The engine's reason to end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineVerdict {
    /// The window passed without a sign of life.
    Timeout,
    /// The client accepts no more bytes.
    SlowReader,
    /// One client frame took longer than `frame_max_time`.
    Trickle,
    /// The app has not accepted the client's bytes for `max_deferral`.
    UpstreamStalled,
}

/// The event expected before the session's next deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaited {
    /// None: the heartbeat is off, or a Close has passed.
    #[default]
    Nothing,
    /// The end of the idle interval: a probe becomes due.
    Probe,
    /// A gap for a probe that is due, behind bytes that the client has not accepted yet.
    Gap,
    /// The answer to a probe.
    Answer,
    /// A heartbeat that the client sends on its own.
    Beat,
    /// A probe sent by the app.
    AppProbe,
    /// Progress of the app, which does not accept the client's bytes.
    App,
}

impl Awaited {
    /// Every value, at the index equal to its discriminant.
    pub const ALL: [Self; 7] =
        [Self::Nothing, Self::Probe, Self::Gap, Self::Answer, Self::Beat, Self::AppProbe, Self::App];
}

/// The action required by a passed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// None, or only a probe, returned by [`poll_transmit`](super::Engine::poll_transmit).
    Nothing,
    /// Read the client's socket once more, then report the kernel's information to [`delivery_checked`](super::Engine::delivery_checked).
    Look,
    /// End the session.
    End(EngineVerdict),
}

/// The handling of a client's Pong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PongAction {
    /// Forward it byte for byte.
    Forward,
    /// Swallow it: it answers a ping of the proxy.
    Swallow {
        /// The payload of a Pong to send to the app instead, as RFC 6455 §5.5.3 entitles it to one.
        owed: Option<Box<[u8]>>,
    },
    /// Drop it: it answers a ping of the app that was sent twice, and whose pong has been forwarded.
    Surplus,
}

/// The handling of a client's Ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingAction {
    /// Forward it.
    Forward,
    /// Swallow it and answer in place of the app.
    Answer,
    /// End the session: more than 20 a second.
    Flood,
}

/// The handling of a client message that its profile expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatAction {
    /// Forward it byte for byte.
    Forward,
    /// Swallow it: it answers a probe of the proxy.
    Swallow,
    /// Swallow it and send the profile's message.
    Answer,
    /// End the session: more than 20 a second.
    Flood,
}
