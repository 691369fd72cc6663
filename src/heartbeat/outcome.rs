//! What the engine is told of a read, and what it answers: figures, verdicts, and the fate of single frames.

use std::sync::Arc;
use std::time::Duration;

use super::Profile;
use crate::ws::ControlFrame;

/// What was among the bytes that were read from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of a data message.
    pub data: bool,
    /// The end of a frame.
    pub ended_frame: bool,
    /// The beginning of a frame whose end is still to come, at their own end.
    pub inside_frame: bool,
}

/// Where the stream to the client stands, and what may be put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Between two frames of one message: control frames only (RFC 6455 §5.4).
    Frame,
    /// Between two messages.
    Message,
}

/// A frame of the heartbeat's own for the client.
#[derive(Clone, Debug)]
pub enum Transmit {
    /// A Ping.
    Control(ControlFrame),
    /// What the proxy says in this profile.
    Message(Arc<Profile>),
}

impl Transmit {
    /// The frame as it goes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Control(frame) => frame.as_bytes(),
            Self::Message(profile) => profile.send.as_ref().map_or(&[], |say| say.as_bytes()),
        }
    }
}

/// Heartbeat figures of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Own probes that left for the client.
    pub pings: u64,
    /// Answers to them.
    pub pongs: u64,
    /// Windows that passed without a sign of life.
    pub missed: u64,
    /// Pongs that answer no known ping: unsolicited, or with a damaged payload.
    pub strays: u64,
    /// The last measured round trip.
    pub rtt_last: Option<Duration>,
}

/// Why the engine gives a session up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The window passed without a sign of life.
    Timeout,
    /// The client takes no bytes any more.
    SlowReader,
    /// One client frame took longer than `frame_max_time`.
    Trickle,
    /// The app has not taken the client's bytes for `max_deferral`.
    UpstreamStalled,
}

/// The event that a session waits for until its next deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaited {
    /// None: the heartbeat is off, or a Close has passed.
    #[default]
    Nothing,
    /// The end of the quiet time: a probe becomes due.
    Probe,
    /// A gap for a probe that is due, behind bytes that the client has not taken yet.
    Gap,
    /// The answer to a probe.
    Answer,
    /// A heartbeat that the client sends unasked.
    Beat,
    /// The app's own question to the client.
    Question,
    /// The app, which does not take the client's bytes.
    App,
}

impl Awaited {
    /// Every value, at the index that it has as a number.
    pub const ALL: [Self; 7] =
        [Self::Nothing, Self::Probe, Self::Gap, Self::Answer, Self::Beat, Self::Question, Self::App];
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing, or only a probe that [`poll_transmit`](super::Engine::poll_transmit) gives.
    Nothing,
    /// Read the client's socket once more, then tell [`looked`](super::Engine::looked) what the kernel knows.
    Look,
    /// The end of the session.
    End(Verdict),
}

/// What to do with a Pong of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PongFate {
    /// Relay it byte for byte.
    Forward,
    /// It is ours.
    Swallow {
        /// Payload of a Pong that the app is owed by RFC 6455 §5.5.3 and must be given instead.
        owed: Option<Box<[u8]>>,
    },
    /// It answers a ping of the app's that was sent twice, and whose pong has been forwarded: throw it away.
    Surplus,
}

/// What to do with a Ping of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingFate {
    /// Relay it.
    Forward,
    /// Swallow it and answer in the app's place.
    Answer,
    /// End the session: more than 20 a second.
    Flood,
}

/// What to do with a message of the client that its profile expects of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatFate {
    /// Relay it byte for byte.
    Forward,
    /// It answers the proxy's own question.
    Swallow,
    /// Swallow it and say what the profile says.
    Answer,
    /// End the session: more than 20 a second.
    Flood,
}
