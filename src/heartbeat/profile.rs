//! Profiles of application-level heartbeats: the messages sent and expected in each.

use std::fmt;
use std::time::Duration;

use super::pattern::{Matching, Pattern, RecordFormat};
use crate::ws::{Opcode, message_frame};

/// The maximum silence of a client if its profile does not define one: one and a half throttled minutes of a hidden
/// tab.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(90);

/// The default maximum length of a profile's heartbeat messages, in bytes.
pub const DEFAULT_MAX_LEN: usize = 256;

/// The profile of one application-level heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The name, or [`Self::CUSTOM`] for a profile spelled out in the configuration.
    pub name: &'static str,
    /// The message sent by the proxy in `app` and `answer` mode.
    pub send: Option<MessageTemplate>,
    /// The app's own probe, answered by the client; in `passive` mode the only probe. `None` if the client sends the
    /// probes.
    pub asks: Option<Pattern>,
    /// The client's heartbeat: its answer in `app` mode and to the app's probes, its probe in `answer` mode.
    pub expect: Vec<Pattern>,
    /// The message, of either side, after which the profile is in force.
    pub start_after: Option<Pattern>,
    /// The maximum length in bytes of a message that is matched.
    pub max_len: usize,
    /// The handshake in which the protocol itself negotiates intervals.
    pub handshake: Option<Handshake>,
    /// The proof of life in `passive` mode.
    pub proof: ProofOfLife,
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
    /// The name of profiles spelled out in the configuration.
    pub const CUSTOM: &str = "custom";
}

/// The proof of life of a client in `passive` mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofOfLife {
    /// An answer to the app's probe within `timeout`.
    Answers,
    /// At least one message in this time.
    Sends(Duration),
    /// At least one message in this time, counted from the last message of either side.
    SendsWhenIdle(Duration),
    /// A message in this time after the app has sent one; a frozen app sends none, and then nothing is expected.
    SendsAfterApp(Duration),
    /// Pongs, as its messages prove nothing: the client is pinged.
    Pongs,
}

impl fmt::Display for ProofOfLife {
    /// Writes the value of the log field `proof`, whose words are public.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers => f.write_str("Answers"),
            Self::Sends(window) => write!(f, "Speaks({window:?})"),
            Self::SendsWhenIdle(window) => write!(f, "SpeaksWhenQuiet({window:?})"),
            Self::SendsAfterApp(window) => write!(f, "SpeaksWhenSpokenTo({window:?})"),
            Self::Pongs => f.write_str("Pongs"),
        }
    }
}

impl ProofOfLife {
    /// Returns the maximum silence of a client that must send on its own.
    pub fn window(self) -> Option<Duration> {
        match self {
            Self::Sends(window) | Self::SendsWhenIdle(window) | Self::SendsAfterApp(window) => Some(window),
            Self::Answers | Self::Pongs => None,
        }
    }
}

/// A message sent by the proxy to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageTemplate {
    frame: Box<[u8]>,
}

impl MessageTemplate {
    /// Encodes the message `payload` with `opcode`, text or binary.
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        Self { frame: message_frame(opcode, payload) }
    }

    /// Returns the whole message as one unmasked frame.
    pub fn as_bytes(&self) -> &[u8] {
        &self.frame
    }
}

/// The role of the proxy in an application-level heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The proxy probes, the client answers.
    App,
    /// The client probes, the proxy answers.
    Answer,
    /// The proxy observes.
    Passive,
}

impl Role {
    /// Returns the name, which is that of the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Answer => "answer",
            Self::Passive => "passive",
        }
    }
}

/// The built-in profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Engine.IO 4, as used by Socket.IO and others.
    EngineIo,
    /// GraphQL over WebSocket with the protocol of `graphql-ws`.
    GraphqlTransportWs,
    /// GraphQL over WebSocket with the older protocol of `subscriptions-transport-ws`.
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
    /// All built-in profiles, in the order of the documentation.
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

    /// Returns the name for configuration and log lines.
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

    /// Returns the roles that the proxy can take; the first is the default.
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::GraphqlTransportWs | Self::ExpressText => &[Role::App, Role::Answer],
            _ => &[Role::Passive],
        }
    }

    /// Returns the profile for the proxy in `role`.
    pub fn profile(self, role: Role) -> Profile {
        const SECOND: Duration = Duration::from_secs(1);
        let text = |text: &str| fixed(Opcode::TEXT, text.as_bytes(), Matching::Exact);
        let json = |text: &str| fixed(Opcode::TEXT, text.as_bytes(), Matching::Json);
        let says = |text: &str| Some(MessageTemplate::new(Opcode::TEXT, text.as_bytes()));
        let base = Profile {
            name: self.name(),
            send: None,
            asks: None,
            expect: Vec::new(),
            start_after: None,
            max_len: DEFAULT_MAX_LEN,
            handshake: None,
            proof: ProofOfLife::Pongs,
        };
        match self {
            Self::EngineIo => {
                Profile { asks: Some(text("2")), expect: vec![text("3")], proof: ProofOfLife::Answers, ..base }
            }
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
                expect: vec![
                    Pattern::record(RecordFormat::SignalrJson),
                    Pattern::record(RecordFormat::SignalrMessagePack),
                ],
                proof: ProofOfLife::SendsAfterApp(30 * SECOND),
                ..base
            },
            Self::Stomp => Profile {
                expect: vec![Pattern::record(RecordFormat::StompText), Pattern::record(RecordFormat::StompBinary)],
                handshake: Some(Handshake::Stomp),
                ..base
            },
            Self::Mqtt => {
                Profile { expect: vec![Pattern::record(RecordFormat::Mqtt)], handshake: Some(Handshake::Mqtt), ..base }
            }
            Self::Phoenix => Profile {
                expect: vec![
                    json(r#"[null,null,"phoenix","heartbeat",null]"#),
                    json(r#"{"topic":"phoenix","event":"heartbeat"}"#),
                ],
                // One heartbeat every 30 s, or a minute after the last in a tab that has just been hidden.
                proof: ProofOfLife::Sends(120 * SECOND),
                ..base
            },
            Self::ActionCable => base,
            Self::Pusher => Profile {
                expect: vec![json(r#"{"event":"pusher:ping"}"#)],
                handshake: Some(Handshake::Pusher),
                proof: ProofOfLife::SendsWhenIdle(180 * SECOND),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_each_proof_by_its_public_word() {
        let window = Duration::from_millis(1500);
        let all = [
            ProofOfLife::Answers,
            ProofOfLife::Sends(window),
            ProofOfLife::SendsWhenIdle(window),
            ProofOfLife::SendsAfterApp(window),
            ProofOfLife::Pongs,
        ];
        let words = ["Answers", "Speaks(1.5s)", "SpeaksWhenQuiet(1.5s)", "SpeaksWhenSpokenTo(1.5s)", "Pongs"];
        assert_eq!(all.map(|proof| proof.to_string()), words);
    }
}
