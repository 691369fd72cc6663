//! The matcher of a session's messages: detects those that concern its heartbeat.

use std::sync::Arc;

use super::handshake::HandshakeParser;
use super::{Liveness, MAX_HANDSHAKE, Pattern, Policy, Profile, ProofOfLife};
use crate::ws::{Opcode, Sender};

/// The matcher of the heartbeat messages of one session.
///
/// The relay passes only as much of each message as the matcher requests: nothing of most, the whole of short ones that
/// may be a heartbeat, the beginning of those that may be a handshake.
#[derive(Debug)]
pub struct MessageMatcher {
    profile: Arc<Profile>,
    /// True if client messages may be removed, so that they must not be forwarded before they are matched.
    holds: bool,
    /// True if the client's heartbeats are matched once the profile is in force.
    client_beats: bool,
    /// True once the profile is in force.
    started: bool,
    handshake: Option<HandshakeParser>,
}

/// The meaning of a message for the heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Not a heartbeat message.
    Nothing,
    /// A probe sent by the app to the client.
    AppProbe,
    /// A heartbeat or an answer of the client.
    Heartbeat,
    /// The message after which the profile is in force.
    Start,
    /// The end of a handshake that has negotiated this proof of life.
    Negotiated(ProofOfLife),
    /// Unknown: the message is compressed with a reference to earlier data, without which it cannot be read.
    Unreadable,
}

impl MessageMatcher {
    /// Creates the matcher of a session under `policy`; `None` if its messages do not matter.
    pub fn new(policy: &Policy) -> Option<Self> {
        let profile = Arc::clone(policy.mode.profile()?);
        let holds = policy.mode.swallows();
        let listener = Self {
            holds,
            // In passive mode the client's heartbeats matter as answers, and if no other message counts.
            client_beats: !profile.expect.is_empty()
                && (holds || profile.asks.is_some() || policy.liveness == Liveness::PongOnly),
            started: profile.start_after.is_none(),
            handshake: profile.handshake.map(HandshakeParser::new),
            profile,
        };
        let attends = listener.may_need(Sender::Client) || listener.may_need(Sender::Server);
        attends.then_some(listener)
    }

    /// Returns the profile that is matched.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Returns whether a later message of `from` can matter.
    pub fn may_need(&self, from: Sender) -> bool {
        let beats = if from == Sender::Client { self.client_beats } else { self.profile.asks.is_some() };
        beats || !self.started || self.in_handshake(from)
    }

    /// Returns whether messages of `from` must be held back until they are matched.
    pub fn holds(&self, from: Sender) -> bool {
        self.holds && from == Sender::Client
    }

    /// Returns the maximum number of bytes to keep of a message of `from`.
    pub fn limit(&self, from: Sender) -> usize {
        if self.in_handshake(from) { MAX_HANDSHAKE } else { self.profile.max_len }
    }

    /// Returns whether a message of at least `at_least` bytes that begins with `start` may matter. For a compressed
    /// message `start` is `None`.
    pub fn may_matter(&self, from: Sender, opcode: Opcode, start: Option<&[u8]>, at_least: u64) -> bool {
        if self.in_handshake(from) {
            return true;
        }
        let Some(at_least) = usize::try_from(at_least).ok().filter(|len| *len <= self.profile.max_len) else {
            return false;
        };
        self.patterns(from).any(|pattern| match start {
            Some(start) => pattern.may_match(opcode, start, at_least),
            // A short text grows only little by compression.
            None => at_least <= pattern.longest().saturating_add(COMPRESSION_OVERHEAD),
        })
    }

    /// Returns the meaning of the message `payload` of `from`; of a message longer than [`Self::limit`] it is the
    /// beginning.
    pub fn classify(&mut self, from: Sender, opcode: Opcode, payload: &[u8], whole: bool) -> MessageKind {
        if let Some(parser) = self.handshake.as_mut().filter(|parser| parser.awaits(from)) {
            let agreed = parser.parse(from, payload);
            if !parser.awaits(Sender::Client) && !parser.awaits(Sender::Server) {
                self.handshake = None;
            }
            if let Some(agreed) = agreed {
                return MessageKind::Negotiated(agreed);
            }
        }
        if !whole || payload.len() > self.profile.max_len {
            return MessageKind::Nothing;
        }
        if !self.started {
            self.started = self.profile.start_after.as_ref().is_none_or(|start| start.matches(opcode, payload));
            return if self.started { MessageKind::Start } else { MessageKind::Nothing };
        }
        // A held message is removed as a whole, so it must consist of heartbeats only.
        let alone = self.holds(from);
        let fits = self
            .patterns(from)
            .any(|pattern| if alone { pattern.matches(opcode, payload) } else { pattern.is_in(opcode, payload) });
        match from {
            _ if !fits => MessageKind::Nothing,
            Sender::Client => MessageKind::Heartbeat,
            Sender::Server => MessageKind::AppProbe,
        }
    }

    /// Records that a message of `from` for which [`Self::may_matter`] is true cannot be read.
    pub fn unreadable(&mut self, from: Sender) -> MessageKind {
        if self.in_handshake(from) {
            self.handshake = None;
        }
        MessageKind::Unreadable
    }

    fn in_handshake(&self, from: Sender) -> bool {
        self.handshake.as_ref().is_some_and(|parser| parser.awaits(from))
    }

    /// Returns the patterns for messages of `from`.
    fn patterns(&self, from: Sender) -> impl Iterator<Item = &Pattern> {
        let Self { profile, started, client_beats, .. } = self;
        let start = if *started { None } else { profile.start_after.as_ref() };
        let beats: &[Pattern] = match from {
            Sender::Client if *started && *client_beats => &profile.expect,
            _ => &[],
        };
        let asks = if *started && from == Sender::Server { profile.asks.as_ref() } else { None };
        start.into_iter().chain(beats).chain(asks)
    }
}

/// The maximum growth of a short message by DEFLATE, in bytes.
const COMPRESSION_OVERHEAD: usize = 16;
