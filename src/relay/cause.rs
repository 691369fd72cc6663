//! Why a session must end, and what each leg is told.

use std::io;

use super::rules::FirstClose;
use super::{Abort, EndReason, Initiator, Unanswered};
use crate::heartbeat::{CloseSpec, OnMiss, UpstreamEnd, Verdict};
use crate::ws::{Sender, Violation};

/// Service restart (IANA's registry): every client library of note reconnects after it.
pub const RESTART: u16 = 1012;
/// Policy violation (RFC 6455 §7.4.1).
const POLICY: u16 = 1008;

/// What ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The closing handshake is through, or one side has waited long enough for the other's half of it.
    Closed,
    /// The client's connection broke without a Close.
    ClientLost { detail: &'static str },
    /// The app's connection broke or ended without a Close; there is no detail where it just ended.
    UpstreamLost { detail: Option<&'static str> },
    /// The heartbeat engine gave up.
    Verdict(Verdict),
    /// The connection that the client's leg shares with others asked its peer for a sign of life in vain.
    ClientUnanswered,
    /// The client pinged more than 20 times in a second.
    PingFlood,
    /// The client sent more than 20 heartbeats of the application's in a second.
    BeatFlood,
    /// The client sent more messages than its route allows.
    MessageFlood,
    /// A peer broke RFC 6455, or a limit.
    Violation { by: Sender, violation: Violation },
    /// The proxy shuts down; the client is told `code`.
    Drain { code: u16 },
    /// The session has been open for long enough.
    MaxAge,
    /// The app as a whole has been silent for too long.
    UpstreamUnresponsive,
    /// An operator has asked for this Close.
    Admin(CloseSpec),
    /// Cut off at once: by an operator, or because a drain is out of time.
    Aborted(Abort),
}

/// How the last thing that goes to a leg looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LegClose {
    /// A Close, where a frame boundary allows it.
    Close(CloseSpec),
    /// No Close: a bare FIN.
    Fin,
    /// Nothing: the leg is gone already.
    Gone,
}

impl Cause {
    /// A read or a write on the client leg failed.
    pub(super) fn client_lost(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut if is_unanswered(error) => Self::ClientUnanswered,
            // The kernel, or the connection that the leg shares with others, has seen no acknowledgement for too long.
            io::ErrorKind::TimedOut => Self::Verdict(Verdict::SlowReader),
            _ => Self::ClientLost { detail: breakage(error) },
        }
    }

    /// The app's leg has ended without a Close, or failed with `error`.
    pub(super) fn upstream_lost(error: Option<&io::Error>) -> Self {
        Self::UpstreamLost { detail: error.map(breakage) }
    }

    pub(super) fn initiator(&self, first_close: Option<&FirstClose>) -> Initiator {
        match self {
            Self::Closed => match first_close {
                Some(FirstClose { by: Sender::Server, .. }) => Initiator::Upstream,
                _ => Initiator::Client,
            },
            Self::ClientLost { .. } => Initiator::Client,
            Self::UpstreamLost { .. } => Initiator::Upstream,
            _ => Initiator::Proxy,
        }
    }

    /// Why the session ended. `is_clean` says of an end by the peers themselves whether there was a Close: where there was none,
    /// the client's connection has ended, for nothing else begins such an end.
    pub(super) fn reason(&self, is_clean: bool) -> EndReason {
        match self {
            Self::Closed if is_clean => EndReason::Normal,
            Self::Closed | Self::ClientLost { .. } => EndReason::ClientLost,
            Self::Verdict(Verdict::Timeout) | Self::ClientUnanswered => EndReason::HeartbeatTimeout,
            Self::Verdict(Verdict::SlowReader) => EndReason::SlowReader,
            Self::Verdict(Verdict::Trickle) => EndReason::Trickle,
            Self::UpstreamLost { .. } | Self::UpstreamUnresponsive | Self::Verdict(Verdict::UpstreamStalled) => {
                EndReason::UpstreamLost
            }
            Self::PingFlood | Self::BeatFlood | Self::MessageFlood => EndReason::Rate,
            Self::Violation { violation: Violation::FrameTooBig | Violation::MessageTooBig, .. } => EndReason::TooBig,
            Self::Violation { .. } => EndReason::ProtocolError,
            Self::Drain { .. } | Self::Aborted(Abort::Drain) => EndReason::Drain,
            Self::MaxAge => EndReason::MaxAge,
            Self::Admin(_) | Self::Aborted(Abort::Operator) => EndReason::Admin,
        }
    }

    pub(super) fn offender(&self) -> Option<Sender> {
        match self {
            Self::Violation { by, .. } => Some(*by),
            Self::PingFlood | Self::BeatFlood | Self::MessageFlood => Some(Sender::Client),
            _ => None,
        }
    }

    pub(super) fn detail(&self) -> Option<&'static str> {
        match self {
            Self::ClientLost { detail } => Some(*detail),
            Self::UpstreamLost { detail } => *detail,
            Self::Violation { violation, .. } => Some(violation.as_str()),
            Self::PingFlood => Some("more than 20 pings a second"),
            Self::BeatFlood => Some("more than 20 heartbeats a second"),
            Self::MessageFlood => Some("more messages a second than the limit"),
            Self::UpstreamUnresponsive => Some("app silent for too long"),
            Self::Verdict(Verdict::UpstreamStalled) => Some("app takes no bytes"),
            Self::Aborted(Abort::Drain) => Some("out of time"),
            _ => None,
        }
    }

    /// Whether the client is to blame: its leg gets no time beyond `close_grace`.
    pub(super) fn blames_client(&self) -> bool {
        match self {
            Self::Verdict(verdict) => *verdict != Verdict::UpstreamStalled,
            Self::Violation { by, .. } => *by == Sender::Client,
            Self::ClientUnanswered | Self::PingFlood | Self::BeatFlood | Self::MessageFlood | Self::Admin(_) => true,
            _ => false,
        }
    }

    /// Whether the app is to blame.
    pub(super) fn blames_app(&self) -> bool {
        match self {
            Self::Violation { by, .. } => *by == Sender::Server,
            Self::UpstreamLost { .. } | Self::UpstreamUnresponsive | Self::Verdict(Verdict::UpstreamStalled) => true,
            _ => false,
        }
    }

    /// Whether the client broke a rule behind messages that the app may be about to answer.
    pub(super) fn lets_app_answer(&self) -> bool {
        matches!(self, Self::Violation { by: Sender::Client, violation }
            if !matches!(violation, Violation::FrameTooBig | Violation::MessageTooBig))
    }

    /// What the client is sent last, and what the app is sent last.
    pub(super) fn closes(&self, on_miss: &OnMiss) -> (LegClose, LegClose) {
        let close = |code, reason| LegClose::Close(CloseSpec::new(code, reason));
        match self {
            Self::Closed => (LegClose::Fin, LegClose::Fin),
            Self::ClientLost { .. } => (LegClose::Gone, LegClose::Fin),
            Self::UpstreamLost { .. } => (close(RESTART, "upstream lost"), LegClose::Gone),
            Self::Verdict(Verdict::Timeout) | Self::ClientUnanswered => missed(on_miss, None),
            Self::Verdict(Verdict::SlowReader) => missed(on_miss, Some("slow reader")),
            Self::Verdict(Verdict::Trickle) => missed(on_miss, Some("frame took too long")),
            Self::Verdict(Verdict::UpstreamStalled) | Self::UpstreamUnresponsive => {
                (close(RESTART, "upstream unresponsive"), close(RESTART, "upstream unresponsive"))
            }
            Self::PingFlood => (close(POLICY, "too many pings"), close(POLICY, "too many pings")),
            Self::BeatFlood => (close(POLICY, "too many heartbeats"), close(POLICY, "too many heartbeats")),
            Self::MessageFlood => (close(POLICY, "too many messages"), close(POLICY, "too many messages")),
            Self::Violation { by: Sender::Client, violation } => {
                let told = close(violation.code(), violation.as_str());
                (told.clone(), told)
            }
            // To the client a broken app is a lost one: it may come back to a better one.
            Self::Violation { by: Sender::Server, violation } => {
                (close(RESTART, "upstream protocol error"), close(violation.code(), violation.as_str()))
            }
            // The code is for the client, which must know when and where to come back; the app has only to let go.
            Self::Drain { code } => (close(*code, drained(*code)), close(RESTART, drained(RESTART))),
            Self::MaxAge => (close(RESTART, "maximum age"), close(RESTART, "maximum age")),
            Self::Admin(spec) => (LegClose::Close(spec.clone()), LegClose::Close(spec.clone())),
            Self::Aborted(_) => (LegClose::Gone, LegClose::Gone),
        }
    }
}

/// How a connection broke, in a few words.
fn breakage(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::BrokenPipe => "connection closed while writing",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "connection failed",
    }
}

/// Whether it was not the kernel that gave up, but the connection that a leg shares with others.
fn is_unanswered(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Unanswered>)
}

/// The name of a code in IANA's registry, as far as a drain may use it.
fn drained(code: u16) -> &'static str {
    match code {
        1001 => "going away",
        1013 => "try again later",
        _ => "service restart",
    }
}

/// The configured end, with another reason where the miss was of another kind.
fn missed(on_miss: &OnMiss, reason: Option<&str>) -> (LegClose, LegClose) {
    let told = |spec: &CloseSpec| LegClose::Close(CloseSpec::new(spec.code, reason.unwrap_or(&spec.reason)));
    let upstream = match &on_miss.upstream {
        UpstreamEnd::Close(spec) => told(spec),
        UpstreamEnd::Disconnect => LegClose::Fin,
    };
    (told(&on_miss.client), upstream)
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
