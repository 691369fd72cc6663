//! The heartbeats that applications speak: what the proxy says and hears in each of them.

use std::time::Duration;

use super::pattern::{Format, Matching, Pattern};
use crate::ws::{Opcode, message_frame};

/// Silence that a client may keep where its profile knows no better: one and a half throttled minutes of a hidden tab.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(90);

/// The longest heartbeat message of a profile unless it says otherwise.
pub const DEFAULT_MAX_LEN: usize = 256;

/// One heartbeat as an application speaks it.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name, or [`Self::CUSTOM`] for one that the configuration spells out.
    pub name: &'static str,
    /// What the proxy says in `app` and `answer` mode.
    pub send: Option<Say>,
    /// The app's own question of this kind: answered by the client, and in `passive` mode the only one. `None` where it
    /// is the client that asks.
    pub asks: Option<Pattern>,
    /// The client's heartbeat: its answer in `app` mode and to the app's questions, its question in `answer` mode.
    pub expect: Vec<Pattern>,
    /// The message, of either side, with which the profile comes into force.
    pub start_after: Option<Pattern>,
    /// Bytes of the longest message that is looked at.
    pub max_len: usize,
    /// Where the protocol itself agrees on times.
    pub handshake: Option<Handshake>,
    /// What tells in `passive` mode that a client is alive.
    pub proof: Proof,
}

/// A protocol whose first messages negotiate the interval of the client's heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// STOMP: the header `heart-beat` of the client's CONNECT and the app's CONNECTED.
    Stomp,
    /// MQTT: the keep-alive of the client's CONNECT, which an app of version 5 may override in its CONNACK.
    Mqtt,
    /// Pusher: `activity_timeout` in the app's `pusher:connection_established`.
    Pusher,
}

impl Profile {
    /// The name of profiles that the configuration spells out.
    pub const CUSTOM: &str = "custom";
}

/// What tells in `passive` mode that a client is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It answers the app's question within `timeout`.
    Answers,
    /// It speaks at least once in this time.
    Speaks(Duration),
    /// It speaks at least once in this time, counted from the last word of either side.
    SpeaksWhenQuiet(Duration),
    /// It speaks within this time once the app has spoken to it; what a frozen app does not ask for is not missed.
    SpeaksWhenSpokenTo(Duration),
    /// Nothing that it says, for it never answers: it is pinged.
    Pongs,
}

impl Proof {
    /// How long a client may be silent that has to speak by itself.
    pub fn window(self) -> Option<Duration> {
        match self {
            Self::Speaks(window) | Self::SpeaksWhenQuiet(window) | Self::SpeaksWhenSpokenTo(window) => Some(window),
            Self::Answers | Self::Pongs => None,
        }
    }
}

/// A message of the proxy's own to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    frame: Box<[u8]>,
}

impl Say {
    /// The message `payload` of the kind `opcode`, text or binary.
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        Self { frame: message_frame(opcode, payload) }
    }

    /// The whole message as one unmasked frame, ready for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.frame
    }
}

/// The role that the proxy takes in an application's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asks, the client answers.
    App,
    /// The client asks, it answers.
    Answer,
    /// It watches.
    Passive,
}

impl Role {
    /// The word for it, which is that of the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Answer => "answer",
            Self::Passive => "passive",
        }
    }
}

/// The profiles that need not be spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Socket.IO and whatever else runs on Engine.IO 4.
    EngineIo,
    /// GraphQL over WebSocket as `graphql-ws` speaks it.
    GraphqlTransportWs,
    /// GraphQL over WebSocket as `subscriptions-transport-ws` spoke it.
    GraphqlWs,
    /// The hub protocol of ASP.NET Core.
    Signalr,
    /// STOMP 1.1 and 1.2.
    Stomp,
    /// MQTT 3.1.1 and 5.
    Mqtt,
    /// Phoenix channels.
    Phoenix,
    /// Rails' Action Cable.
    ActionCable,
    /// Pusher Channels.
    Pusher,
    /// A text `ping`, answered by a text `pong`.
    ExpressText,
}

impl Builtin {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::EngineIo,
        Self::GraphqlTransportWs,
        Self::GraphqlWs,
        Self::Signalr,
        Self::Stomp,
        Self::Mqtt,
        Self::Phoenix,
        Self::ActionCable,
        Self::Pusher,
        Self::ExpressText,
    ];

    /// The name in the configuration and in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::EngineIo => "engine.io",
            Self::GraphqlTransportWs => "graphql-transport-ws",
            Self::GraphqlWs => "graphql-ws",
            Self::Signalr => "signalr",
            Self::Stomp => "stomp",
            Self::Mqtt => "mqtt",
            Self::Phoenix => "phoenix",
            Self::ActionCable => "actioncable",
            Self::Pusher => "pusher",
            Self::ExpressText => "express-text",
        }
    }

    /// The roles that the proxy can take in it; the first is the one it takes unless it is told otherwise.
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::GraphqlTransportWs | Self::ExpressText => &[Role::App, Role::Answer],
            _ => &[Role::Passive],
        }
    }

    /// The profile itself, for the proxy in `role`.
    pub fn profile(self, role: Role) -> Profile {
        const SECOND: Duration = Duration::from_secs(1);
        let text = |text: &str| fixed(Opcode::TEXT, text.as_bytes(), Matching::Exact);
        let json = |text: &str| fixed(Opcode::TEXT, text.as_bytes(), Matching::Json);
        let says = |text: &str| Some(Say::new(Opcode::TEXT, text.as_bytes()));
        let base = Profile {
            name: self.name(),
            send: None,
            asks: None,
            expect: Vec::new(),
            start_after: None,
            max_len: DEFAULT_MAX_LEN,
            handshake: None,
            proof: Proof::Pongs,
        };
        match self {
            Self::EngineIo => Profile { asks: Some(text("2")), expect: vec![text("3")], proof: Proof::Answers, ..base },
            Self::GraphqlTransportWs => {
                let (question, answer) = (r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
                match role {
                    Role::Answer => Profile { send: says(answer), expect: vec![json(question)], ..base },
                    _ => {
                        Profile { send: says(question), asks: Some(json(question)), expect: vec![json(answer)], ..base }
                    }
                }
            }
            Self::GraphqlWs => base,
            Self::Signalr => Profile {
                expect: vec![Pattern::record(Format::SignalrJson), Pattern::record(Format::SignalrMessagePack)],
                proof: Proof::SpeaksWhenSpokenTo(30 * SECOND),
                ..base
            },
            Self::Stomp => Profile {
                expect: vec![Pattern::record(Format::StompText), Pattern::record(Format::StompBinary)],
                handshake: Some(Handshake::Stomp),
                ..base
            },
            Self::Mqtt => {
                Profile { expect: vec![Pattern::record(Format::Mqtt)], handshake: Some(Handshake::Mqtt), ..base }
            }
            Self::Phoenix => Profile {
                expect: vec![
                    json(r#"[null,null,"phoenix","heartbeat",null]"#),
                    json(r#"{"topic":"phoenix","event":"heartbeat"}"#),
                ],
                // Every 30 s, and in a tab that has just been hidden a minute later.
                proof: Proof::Speaks(120 * SECOND),
                ..base
            },
            Self::ActionCable => base,
            Self::Pusher => Profile {
                expect: vec![json(r#"{"event":"pusher:ping"}"#)],
                handshake: Some(Handshake::Pusher),
                proof: Proof::SpeaksWhenQuiet(180 * SECOND),
                ..base
            },
            Self::ExpressText => match role {
                Role::Answer => Profile { send: says("pong"), expect: vec![text("ping")], ..base },
                _ => Profile { send: says("ping"), asks: Some(text("ping")), expect: vec![text("pong")], ..base },
            },
        }
    }
}

fn fixed(opcode: Opcode, text: &[u8], matching: Matching) -> Pattern {
    Pattern::new(opcode, text, matching).expect("the patterns of the built-in profiles are valid")
}
