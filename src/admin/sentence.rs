//! Why a session ended, in words for a person who was not there.

use std::time::Duration;

use crate::heartbeat::{Mode, Policy};
use crate::relay::{EndReason, Ending, Initiator};
use crate::ws::Sender;

/// No Close came or went (RFC 6455 §7.1.5).
const NO_CLOSE: u16 = 1006;
/// A Close came that says nothing.
const EMPTY_CLOSE: u16 = 1005;
/// The page was left, or the server goes (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

/// What comes together with a pong is not told apart from it.
const MOMENT: Duration = Duration::from_secs(1);

/// One sentence without a capital and a full stop, for it stands in tables.
pub(crate) fn sentence(ending: &Ending, policy: &Policy) -> String {
    let detail = |otherwise| ending.detail.unwrap_or(otherwise);
    match (ending.reason, ending.initiator) {
        (EndReason::Normal, Initiator::Client) => client_closed(ending),
        (EndReason::Normal, Initiator::Upstream) => {
            format!("app closed the session {}", with(ending.upstream_code, &ending.close_reason))
        }
        (EndReason::Normal, Initiator::Proxy) => "session ended".to_owned(),
        (EndReason::ClientLost, _) => format!("client's connection {}", lost(ending)),
        (EndReason::HeartbeatTimeout, _) => silent(ending, policy),
        (EndReason::SlowReader, _) => {
            format!("client stopped reading: it took nothing of what was sent to it for {}", span(policy.write_stall))
        }
        (EndReason::Trickle, _) => {
            format!("client sent one frame for longer than the {} that it may take", span(policy.frame_max_time))
        }
        (EndReason::Drain, _) => format!("proxy was drained; {}", told(ending)),
        (EndReason::UpstreamLost, Initiator::Upstream) => {
            format!("app's connection {}; {}", lost(ending), told(ending))
        }
        (EndReason::UpstreamLost, _) => {
            let what = detail("silent for too long");
            format!("app no longer answers: {}; {}", what.strip_prefix("app ").unwrap_or(what), told(ending))
        }
        (EndReason::ProtocolError, _) => {
            format!("{} broke the WebSocket protocol: {}", offender(ending), detail("invalid frame"))
        }
        (EndReason::TooBig, _) => format!("{} sent too much at once: {}", offender(ending), detail("over the limit")),
        (EndReason::Rate, _) => format!("client sent {}", detail("more messages a second than the limit")),
        (EndReason::Admin, _) => {
            format!("operator closed the session {}", with(ending.client_code, &ending.close_reason))
        }
        (EndReason::MaxAge, _) => {
            format!("session was closed for its age of {}; {}", span(ending.duration), told(ending))
        }
    }
}

fn client_closed(ending: &Ending) -> String {
    match ending.client_code {
        GOING_AWAY if ending.close_reason.is_empty() => {
            "client went away: its page was left, or its program ended (1001)".to_owned()
        }
        code => format!("client closed the session {}", with(code, &ending.close_reason)),
    }
}

/// How a connection was lost, behind its name.
fn lost(ending: &Ending) -> String {
    match ending.detail {
        Some(detail) => format!("broke without a Close: {detail}"),
        None => "ended without a Close".to_owned(),
    }
}

/// The heartbeat was missed: what the client last did.
fn silent(ending: &Ending, policy: &Policy) -> String {
    let figures = &ending.heartbeat;
    let answer = if policy.mode == Mode::Protocol { "pong" } else { "answer" };
    match (ending.last_pong_ago, figures.pings) {
        (Some(ago), _) => {
            // It may have spoken since: it need not answer while it does.
            let spoke = ending.last_seen_ago + MOMENT < ago;
            let heard = spoke.then(|| format!(", last byte {} ago", span(ending.last_seen_ago)));
            let rtt = figures.rtt_last.map(|rtt| format!(", RTT was {}", span(rtt)));
            let (heard, rtt) = (heard.unwrap_or_default(), rtt.unwrap_or_default());
            format!("client stopped answering: last {answer} {} ago{heard}{rtt}", span(ago))
        }
        (None, 0) => match policy.proof().and_then(crate::heartbeat::Proof::window) {
            Some(window) => format!("client fell silent: no heartbeat of its own for {}", span(window)),
            None => "client fell silent, and its network acknowledges nothing".to_owned(),
        },
        (None, pings) => {
            let probes = if pings == 1 { "1 probe".to_owned() } else { format!("{pings} probes") };
            let heard = if ending.from_client.bytes == 0 {
                String::new()
            } else {
                format!("; last byte {} ago", span(ending.last_seen_ago))
            };
            format!("client never answered: {probes} went out, and no {answer} came back{heard}")
        }
    }
}

/// What the client was told, that it may know what to do next.
fn told(ending: &Ending) -> String {
    match ending.client_code {
        NO_CLOSE => "client could not be told".to_owned(),
        1001 | 1012 | 1013 => format!("client was told to come back ({})", ending.client_code),
        code => format!("client was told {code}"),
    }
}

/// Who broke a rule.
fn offender(ending: &Ending) -> &'static str {
    match ending.offender {
        Some(Sender::Client) => "client",
        Some(Sender::Server) => "app",
        None => "one side",
    }
}

/// A Close in words.
fn with(code: u16, text: &str) -> String {
    match (code, text) {
        (NO_CLOSE, _) => "without a Close".to_owned(),
        (EMPTY_CLOSE, _) => "without a code".to_owned(),
        (code, "") => format!("with {code}"),
        (code, text) => format!("with {code} {text:?}"),
    }
}

/// A time as people say it: `41 ms`, `45.2 s`, `10 min`, `3.5 h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        ..0.0995 => (seconds * 1000.0, "ms"),
        ..0.9995 => ((seconds * 1000.0).round(), "ms"),
        ..119.95 => (seconds, "s"),
        ..7197.0 => (seconds / 60.0, "min"),
        _ => (seconds / 3600.0, "h"),
    };
    let text = if unit == "ms" && value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::heartbeat::{Builtin, Role, Stats};
    use crate::relay::Traffic;

    fn ending(initiator: Initiator, reason: EndReason) -> Ending {
        Ending {
            initiator,
            reason,
            detail: None,
            offender: None,
            client_code: 1012,
            upstream_code: 1006,
            close_reason: Box::default(),
            upstream_close_reason: Box::default(),
            from_client: Traffic::default(),
            from_upstream: Traffic::default(),
            heartbeat: Stats::default(),
            duration: Duration::from_secs(3 * 3600 + 1800),
            last_pong_ago: None,
            last_seen_ago: Duration::ZERO,
        }
    }

    fn said(ending: &Ending) -> String {
        sentence(ending, &Policy::default())
    }

    /// A client whose heartbeat was missed, and who was last heard and answered last so many milliseconds ago.
    fn dead(pings: u64, rtt: Option<u64>, pong_ago: Option<u64>, seen_ago: u64) -> Ending {
        Ending {
            heartbeat: Stats { pings, rtt_last: rtt.map(Duration::from_millis), ..Stats::default() },
            last_pong_ago: pong_ago.map(Duration::from_millis),
            last_seen_ago: Duration::from_millis(seen_ago),
            ..ending(Initiator::Proxy, EndReason::HeartbeatTimeout)
        }
    }

    #[test]
    fn a_silent_client_is_told_by_what_it_did_last() {
        for (ending, expected) in [
            (dead(9, Some(41), Some(45_210), 45_210), "client stopped answering: last pong 45.2 s ago, RTT was 41 ms"),
            (
                dead(9, Some(41), Some(98_000), 45_210),
                "client stopped answering: last pong 98 s ago, last byte 45.2 s ago, RTT was 41 ms",
            ),
            (dead(1, None, None, 45_000), "client never answered: 1 probe went out, and no pong came back"),
            (dead(3, None, None, 45_000), "client never answered: 3 probes went out, and no pong came back"),
        ] {
            assert_eq!(said(&ending), expected);
        }
        let spoke = Ending { from_client: Traffic { bytes: 9, ..Traffic::default() }, ..dead(3, None, None, 45_000) };
        assert_eq!(said(&spoke), "client never answered: 3 probes went out, and no pong came back; last byte 45 s ago");
        let by_itself = Policy { mode: Builtin::ExpressText.mode(Role::Answer), ..Policy::default() };
        assert_eq!(
            sentence(&dead(0, None, None, 90_000), &by_itself),
            "client fell silent: no heartbeat of its own for 90 s"
        );
        let asked = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
        assert!(sentence(&dead(9, Some(41), Some(2000), 2000), &asked).contains("last answer 2 s ago"));
    }

    #[test]
    fn who_leaves_is_told_by_how() {
        let left = |code, text: &str| Ending {
            client_code: code,
            upstream_code: code,
            close_reason: text.into(),
            ..ending(Initiator::Client, EndReason::Normal)
        };
        let lost = |initiator, reason, detail| Ending { client_code: 1006, detail, ..ending(initiator, reason) };
        let (client, app) = (Initiator::Client, Initiator::Upstream);
        let reset = Some("connection reset");
        for (ending, expected) in [
            (left(1000, ""), "client closed the session with 1000"),
            (left(1005, ""), "client closed the session without a code"),
            (left(1001, ""), "client went away: its page was left, or its program ended (1001)"),
            (left(4001, "so \"long\""), r#"client closed the session with 4001 "so \"long\"""#),
            (lost(client, EndReason::ClientLost, reset), "client's connection broke without a Close: connection reset"),
            (lost(client, EndReason::ClientLost, None), "client's connection ended without a Close"),
            (
                lost(app, EndReason::UpstreamLost, reset),
                "app's connection broke without a Close: connection reset; client could not be told",
            ),
            (
                lost(app, EndReason::UpstreamLost, None),
                "app's connection ended without a Close; client could not be told",
            ),
        ] {
            assert_eq!(said(&ending), expected);
        }
        let app = Ending { initiator: Initiator::Upstream, ..left(4003, "banned") };
        assert_eq!(said(&app), r#"app closed the session with 4003 "banned""#);
    }

    #[test]
    fn the_offender_is_named() {
        let by =
            |offender, reason, detail| Ending { offender, detail: Some(detail), ..ending(Initiator::Proxy, reason) };
        let (client, app) = (Some(Sender::Client), Some(Sender::Server));
        for (ending, expected) in [
            (
                by(client, EndReason::ProtocolError, "unmasked client frame"),
                "client broke the WebSocket protocol: unmasked client frame",
            ),
            (
                by(app, EndReason::ProtocolError, "masked server frame"),
                "app broke the WebSocket protocol: masked server frame",
            ),
            (
                by(client, EndReason::TooBig, "message over the limit"),
                "client sent too much at once: message over the limit",
            ),
            (by(client, EndReason::Rate, "more than 20 pings a second"), "client sent more than 20 pings a second"),
            (
                by(None, EndReason::UpstreamLost, "app silent for too long"),
                "app no longer answers: silent for too long; client was told to come back (1012)",
            ),
            (
                Ending {
                    client_code: 1008,
                    close_reason: "maintenance".into(),
                    ..ending(Initiator::Proxy, EndReason::Admin)
                },
                r#"operator closed the session with 1008 "maintenance""#,
            ),
        ] {
            assert_eq!(said(&ending), expected);
        }
    }

    #[test]
    fn every_end_has_a_sentence_of_its_own() {
        use EndReason::{
            Admin, ClientLost, Drain, HeartbeatTimeout, MaxAge, Normal, ProtocolError, Rate, SlowReader, TooBig,
            Trickle, UpstreamLost,
        };
        use Initiator::{Client, Proxy, Upstream};
        let mut seen = BTreeSet::new();
        let by_proxy = [
            Normal,
            HeartbeatTimeout,
            SlowReader,
            Trickle,
            Drain,
            UpstreamLost,
            ProtocolError,
            TooBig,
            Rate,
            Admin,
            MaxAge,
        ];
        let all = by_proxy.map(|reason| (Proxy, reason)).into_iter().chain([
            (Client, Normal),
            (Client, ClientLost),
            (Upstream, Normal),
            (Upstream, UpstreamLost),
        ]);
        for (initiator, reason) in all {
            let said = said(&ending(initiator, reason));
            assert!(!said.is_empty() && !said.ends_with('.') && !said.contains("  "), "{said}");
            assert!(seen.insert(said.clone()), "{said:?} is said of two ends");
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        for (micros, expected) in [
            (0, "0 ms"),
            (840, "0.8 ms"),
            (41_000, "41 ms"),
            (999_400, "999 ms"),
            (999_600, "1 s"),
            (45_210_000, "45.2 s"),
            (90_000_000, "90 s"),
            (600_000_000, "10 min"),
            (7_200_000_000, "2 h"),
            (12_600_000_000, "3.5 h"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), expected);
        }
    }
}
