//! What of a session's messages matters to its heartbeat, and what it means.

use std::sync::Arc;

use super::handshake::Lesson;
use super::{Liveness, MAX_HANDSHAKE, Pattern, Policy, Profile, Proof};
use crate::ws::{Opcode, Sender};

/// Listens to the messages of one session that its heartbeat is about.
///
/// It is told of each message as far as it asks for: nothing of most, the whole of short ones that may be a heartbeat,
/// the beginning of those that may agree on times.
#[derive(Debug)]
pub struct Listener {
    profile: Arc<Profile>,
    /// Whether messages of the client are taken out, and must not pass before they are known.
    holds: bool,
    /// Whether the client's heartbeats are listened for once the profile is in force.
    client_beats: bool,
    /// Whether the profile is in force.
    started: bool,
    lesson: Option<Lesson>,
}

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing to the heartbeat.
    Nothing,
    /// The app asks its client.
    Question,
    /// The client beats, or answers.
    Beat,
    /// The profile comes into force behind it.
    Start,
    /// Both sides have agreed on how it shows that the client is alive.
    Agreed(Proof),
    /// Nobody can tell: it is compressed, and what was said before would be needed to read it.
    Unreadable,
}

impl Listener {
    /// A listener for sessions under `policy`, if there is anything to listen for.
    pub fn new(policy: &Policy) -> Option<Self> {
        let profile = Arc::clone(policy.mode.profile()?);
        let holds = policy.mode.swallows();
        let listener = Self {
            holds,
            // In passive mode the client's own words matter where nothing else counts, and as answers.
            client_beats: !profile.expect.is_empty()
                && (holds || profile.asks.is_some() || policy.liveness == Liveness::PongOnly),
            started: profile.start_after.is_none(),
            lesson: profile.handshake.map(Lesson::new),
            profile,
        };
        let attends = listener.attends(Sender::Client) || listener.attends(Sender::Server);
        attends.then_some(listener)
    }

    /// The heartbeat that it listens for.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Whether a message of `from` may ever matter again.
    pub fn attends(&self, from: Sender) -> bool {
        let beats = if from == Sender::Client { self.client_beats } else { self.profile.asks.is_some() };
        beats || !self.started || self.learns(from)
    }

    /// Whether messages of `from` must be held back until they are known.
    pub fn holds(&self, from: Sender) -> bool {
        self.holds && from == Sender::Client
    }

    /// How many bytes of a message of `from` are worth keeping.
    pub fn limit(&self, from: Sender) -> usize {
        if self.learns(from) { MAX_HANDSHAKE } else { self.profile.max_len }
    }

    /// Whether a message of at least `at_least` bytes that begins with `start` may matter. Of one whose bytes are
    /// compressed `start` is not known.
    pub fn may_matter(&self, from: Sender, opcode: Opcode, start: Option<&[u8]>, at_least: u64) -> bool {
        if self.learns(from) {
            return true;
        }
        let Some(at_least) = usize::try_from(at_least).ok().filter(|len| *len <= self.profile.max_len) else {
            return false;
        };
        self.patterns(from).any(|pattern| match start {
            Some(start) => pattern.may_match(opcode, start, at_least),
            // A short text does not become much longer by being compressed.
            None => at_least <= pattern.longest().saturating_add(COMPRESSION_OVERHEAD),
        })
    }

    /// What the message `payload` of `from` means; of one that is longer than [`Self::limit`] it is the beginning.
    pub fn hear(&mut self, from: Sender, opcode: Opcode, payload: &[u8], whole: bool) -> Heard {
        if let Some(lesson) = self.lesson.as_mut().filter(|lesson| lesson.awaits(from)) {
            let agreed = lesson.hear(from, payload);
            if !lesson.awaits(Sender::Client) && !lesson.awaits(Sender::Server) {
                self.lesson = None;
            }
            if let Some(agreed) = agreed {
                return Heard::Agreed(agreed);
            }
        }
        if !whole || payload.len() > self.profile.max_len {
            return Heard::Nothing;
        }
        if !self.started {
            self.started = self.profile.start_after.as_ref().is_none_or(|start| start.matches(opcode, payload));
            return if self.started { Heard::Start } else { Heard::Nothing };
        }
        // Of a message that is held for the heartbeat in it, everything would be taken out.
        let alone = self.holds(from);
        let fits = self
            .patterns(from)
            .any(|pattern| if alone { pattern.matches(opcode, payload) } else { pattern.is_in(opcode, payload) });
        match from {
            _ if !fits => Heard::Nothing,
            Sender::Client => Heard::Beat,
            Sender::Server => Heard::Question,
        }
    }

    /// A message of `from` that [`Self::may_matter`] cannot be read.
    pub fn cannot_read(&mut self, from: Sender) -> Heard {
        if self.learns(from) {
            self.lesson = None;
        }
        Heard::Unreadable
    }

    fn learns(&self, from: Sender) -> bool {
        self.lesson.as_ref().is_some_and(|lesson| lesson.awaits(from))
    }

    /// What messages of `from` are compared with.
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

/// What DEFLATE may add to a short message.
const COMPRESSION_OVERHEAD: usize = 16;
