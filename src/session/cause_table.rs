//! The table of causes: for each, the words of logs and metrics, the Close of either leg, and the sentence for people.
//!
//! A new cause is a variant of [`CloseCause`] and its row in [`CloseCause::row`]; everything else follows from the row.

use super::close_cause::{Abort, Breakage, CloseCause, EndReason, Initiator, RESTART};
use super::close_summary::{Summary, client_closed, silent, span};
use super::ending::Ending;
use crate::heartbeat::{CloseSpec, OnMiss, Policy, UpstreamEnd};
use crate::ws::{Sender, Violation};

/// Policy violation (RFC 6455 §7.4.1).
const POLICY: u16 = 1008;

/// The last thing that a leg is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LegClose {
    /// A Close, where a frame boundary allows it.
    Close(CloseSpec),
    /// No Close: a bare FIN.
    Fin,
    /// Nothing: the leg is gone already.
    Gone,
}

/// One row of the table.
struct Row<'a> {
    reason: EndReason,
    initiator: Initiator,
    /// The fault in a few words, where the reason alone does not give it.
    detail: Option<&'static str>,
    /// The side that broke a rule or a limit.
    offender: Option<Sender>,
    /// The side to blame, whose leg gets no time beyond `close_grace`.
    blamed: Option<Sender>,
    to_client: Last<'a>,
    to_app: Last<'a>,
    /// Writes the sentence for people.
    summary: Sentence,
}

type Sentence = fn(&Summary<'_>) -> String;

/// The last thing that a leg is sent, by code and text.
#[derive(Clone, Copy)]
enum Last<'a> {
    Close(u16, &'a str),
    /// The configured end of a missed heartbeat, with another text where the miss was of another kind.
    OnMiss(Option<&'a str>),
    Fin,
    Gone,
}

impl CloseCause {
    /// The table.
    #[expect(clippy::too_many_lines, reason = "one table is read as a whole, and is one match for the compiler")]
    fn row(&self) -> Row<'_> {
        let by_proxy = Row {
            reason: EndReason::Normal,
            initiator: Initiator::Proxy,
            detail: None,
            offender: None,
            blamed: None,
            to_client: Last::Gone,
            to_app: Last::Gone,
            summary: |_| "session ended".to_owned(),
        };
        match *self {
            Self::Closed { by: Sender::Client } => Row {
                initiator: Initiator::Client,
                to_client: Last::Fin,
                to_app: Last::Fin,
                summary: client_closed,
                ..by_proxy
            },
            Self::Closed { by: Sender::Server } => Row {
                initiator: Initiator::Upstream,
                to_client: Last::Fin,
                to_app: Last::Fin,
                summary: |end| format!("app closed the session {}", end.app_close()),
                ..by_proxy
            },
            Self::ClientLost { breakage } => Row {
                reason: EndReason::ClientLost,
                initiator: Initiator::Client,
                detail: breakage.map(Breakage::as_str),
                to_app: Last::Fin,
                summary: |end| format!("client's connection {}", end.lost()),
                ..by_proxy
            },
            Self::UpstreamLost { breakage } => Row {
                reason: EndReason::UpstreamLost,
                initiator: Initiator::Upstream,
                detail: breakage.map(Breakage::as_str),
                blamed: Some(Sender::Server),
                to_client: Last::Close(RESTART, "upstream lost"),
                summary: |end| format!("app's connection {}; {}", end.lost(), end.sent_to_client()),
                ..by_proxy
            },
            Self::HeartbeatTimeout | Self::ClientUnanswered => Row {
                reason: EndReason::HeartbeatTimeout,
                blamed: Some(Sender::Client),
                to_client: Last::OnMiss(None),
                to_app: Last::OnMiss(None),
                summary: silent,
                ..by_proxy
            },
            Self::SlowReader => Row {
                reason: EndReason::SlowReader,
                blamed: Some(Sender::Client),
                to_client: Last::OnMiss(Some("slow reader")),
                to_app: Last::OnMiss(Some("slow reader")),
                summary: |end| {
                    let time = span(end.policy.write_stall);
                    format!("client stopped reading: it took nothing of what was sent to it for {time}")
                },
                ..by_proxy
            },
            Self::Trickle => Row {
                reason: EndReason::Trickle,
                blamed: Some(Sender::Client),
                to_client: Last::OnMiss(Some("frame took too long")),
                to_app: Last::OnMiss(Some("frame took too long")),
                summary: |end| {
                    let time = span(end.policy.frame_max_time);
                    format!("client sent one frame for longer than the {time} that it may take")
                },
                ..by_proxy
            },
            Self::UpstreamStalled => Row {
                reason: EndReason::UpstreamLost,
                detail: Some("app takes no bytes"),
                blamed: Some(Sender::Server),
                to_client: Last::Close(RESTART, "upstream unresponsive"),
                to_app: Last::Close(RESTART, "upstream unresponsive"),
                summary: |end| format!("app no longer answers: takes no bytes; {}", end.sent_to_client()),
                ..by_proxy
            },
            Self::UpstreamUnresponsive => Row {
                reason: EndReason::UpstreamLost,
                detail: Some("app silent for too long"),
                blamed: Some(Sender::Server),
                to_client: Last::Close(RESTART, "upstream unresponsive"),
                to_app: Last::Close(RESTART, "upstream unresponsive"),
                summary: |end| format!("app no longer answers: silent for too long; {}", end.sent_to_client()),
                ..by_proxy
            },
            Self::PingFlood => flood("more than 20 pings a second", "too many pings"),
            Self::HeartbeatFlood => flood("more than 20 heartbeats a second", "too many heartbeats"),
            Self::MessageFlood => flood("more messages a second than the limit", "too many messages"),
            Self::Violation { by, violation } => {
                let (reason, summary): (_, Sentence) = if is_over_limit(violation) {
                    (EndReason::TooBig, |end| format!("{} sent too much at once: {}", end.offender(), end.detail()))
                } else {
                    (EndReason::ProtocolError, |end| {
                        format!("{} broke the WebSocket protocol: {}", end.offender(), end.detail())
                    })
                };
                let close = Last::Close(violation.code(), violation.as_str());
                Row {
                    reason,
                    detail: Some(violation.as_str()),
                    offender: Some(by),
                    blamed: Some(by),
                    // To the client a broken app is a lost one: it may come back to a better one.
                    to_client: match by {
                        Sender::Client => close,
                        Sender::Server => Last::Close(RESTART, "upstream protocol error"),
                    },
                    to_app: close,
                    summary,
                    ..by_proxy
                }
            }
            Self::Drain { code } => Row {
                reason: EndReason::Drain,
                // The code tells the client when and where to come back; the app has only to release the session.
                to_client: Last::Close(code, drain_text(code)),
                to_app: Last::Close(RESTART, drain_text(RESTART)),
                summary: |end| format!("proxy was drained; {}", end.sent_to_client()),
                ..by_proxy
            },
            Self::Aborted(Abort::Drain) => Row {
                reason: EndReason::Drain,
                detail: Some("out of time"),
                summary: |end| format!("proxy was drained; {}", end.sent_to_client()),
                ..by_proxy
            },
            Self::MaxAge => Row {
                reason: EndReason::MaxAge,
                to_client: Last::Close(RESTART, "maximum age"),
                to_app: Last::Close(RESTART, "maximum age"),
                summary: |end| {
                    let age = span(end.ending.duration);
                    format!("session was closed for its age of {age}; {}", end.sent_to_client())
                },
                ..by_proxy
            },
            Self::Admin(CloseSpec { code, ref reason }) => Row {
                reason: EndReason::Admin,
                blamed: Some(Sender::Client),
                to_client: Last::Close(code, reason),
                to_app: Last::Close(code, reason),
                summary: |end| format!("operator closed the session {}", end.client_close()),
                ..by_proxy
            },
            Self::Aborted(Abort::Operator) => Row {
                reason: EndReason::Admin,
                summary: |end| format!("operator closed the session {}", end.client_close()),
                ..by_proxy
            },
        }
    }

    /// Returns the reason, for logs and metrics.
    pub fn reason(&self) -> EndReason {
        self.row().reason
    }

    /// Returns the side that ended the session, for logs and metrics.
    pub fn initiator(&self) -> Initiator {
        self.row().initiator
    }

    /// Returns the fault in a few words, where the reason alone does not give it.
    pub fn detail(&self) -> Option<&'static str> {
        self.row().detail
    }

    /// Returns the side that broke a rule or a limit.
    pub fn offender(&self) -> Option<Sender> {
        self.row().offender
    }

    /// Returns whether `side` is to blame: its leg gets no time beyond `close_grace`.
    pub(crate) fn blames(&self, side: Sender) -> bool {
        self.row().blamed == Some(side)
    }

    /// Returns whether the client broke a rule behind messages that the app may be about to answer.
    pub(crate) fn lets_app_answer(&self) -> bool {
        matches!(*self, Self::Violation { by: Sender::Client, violation } if !is_over_limit(violation))
    }

    /// Returns what the client is sent last, and what the app is sent last.
    pub(crate) fn closes(&self, on_miss: &OnMiss) -> (LegClose, LegClose) {
        let Row { to_client, to_app, .. } = self.row();
        let app_on_miss = match &on_miss.upstream {
            UpstreamEnd::Close(spec) => Some(spec),
            UpstreamEnd::Disconnect => None,
        };
        (to_client.resolve(Some(&on_miss.client)), to_app.resolve(app_on_miss))
    }
}

/// Returns why the session ended, in one sentence without a capital and a full stop, for tables. `policy` is its heartbeat.
pub(crate) fn close_summary(ending: &Ending, policy: &Policy) -> String {
    let Row { detail, offender, summary, .. } = ending.cause.row();
    summary(&Summary { ending, policy, detail, offender })
}

impl Last<'_> {
    /// The last thing that a leg is sent, whose Close of a missed heartbeat is `on_miss`.
    fn resolve(self, on_miss: Option<&CloseSpec>) -> LegClose {
        match (self, on_miss) {
            (Self::Close(code, text), _) => LegClose::Close(CloseSpec::new(code, text)),
            (Self::OnMiss(text), Some(spec)) => {
                LegClose::Close(CloseSpec::new(spec.code, text.unwrap_or(&spec.reason)))
            }
            (Self::OnMiss(_), None) | (Self::Fin, _) => LegClose::Fin,
            (Self::Gone, _) => LegClose::Gone,
        }
    }
}

/// The row of a client that sent more in a second than it may.
fn flood(detail: &'static str, text: &'static str) -> Row<'static> {
    Row {
        reason: EndReason::Rate,
        initiator: Initiator::Proxy,
        detail: Some(detail),
        offender: Some(Sender::Client),
        blamed: Some(Sender::Client),
        to_client: Last::Close(POLICY, text),
        to_app: Last::Close(POLICY, text),
        summary: |end| format!("client sent {}", end.detail()),
    }
}

fn is_over_limit(violation: Violation) -> bool {
    matches!(violation, Violation::FrameTooBig | Violation::MessageTooBig)
}

/// Returns the name of a code in IANA's registry, as far as a drain may use it.
fn drain_text(code: u16) -> &'static str {
    match code {
        1001 => "going away",
        1013 => "try again later",
        _ => "service restart",
    }
}

#[cfg(test)]
mod tests;
