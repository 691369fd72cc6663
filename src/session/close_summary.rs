//! The sentences that say, to people, why a session ended. [`cause_table`](super::cause_table) chooses one for each cause.

use std::time::Duration;

use super::ending::Ending;
use crate::heartbeat::{Mode, Policy, ProofOfLife};
use crate::ws::Sender;

/// The code that stands for a Close which was neither sent nor received (RFC 6455 §7.1.5).
const NO_CLOSE: u16 = 1006;
/// The code that stands for a Close without one.
const EMPTY_CLOSE: u16 = 1005;
/// The page was left, or the server goes (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

/// The time within which bytes count as received together with a pong.
const MOMENT: Duration = Duration::from_secs(1);

/// The figures and words of which a sentence is made.
pub(super) struct Summary<'a> {
    pub(super) ending: &'a Ending,
    /// The heartbeat of the session.
    pub(super) policy: &'a Policy,
    /// The fault in a few words.
    pub(super) detail: Option<&'static str>,
    /// The side that broke a rule or a limit.
    pub(super) offender: Option<Sender>,
}

impl Summary<'_> {
    /// The Close of the client's leg that began the end.
    pub(super) fn client_close(&self) -> String {
        with(self.ending.client_code, &self.ending.close_reason)
    }

    /// The Close of the app's leg that began the end.
    pub(super) fn app_close(&self) -> String {
        with(self.ending.upstream_code, &self.ending.close_reason)
    }

    /// The loss of a connection, behind its name.
    pub(super) fn lost(&self) -> String {
        match self.detail {
            Some(detail) => format!("broke without a Close: {detail}"),
            None => "ended without a Close".to_owned(),
        }
    }

    /// The code that the client was sent, and with it whether it is to come back.
    pub(super) fn sent_to_client(&self) -> String {
        match self.ending.client_code {
            NO_CLOSE => "client could not be told".to_owned(),
            code @ (1001 | 1012 | 1013) => format!("client was told to come back ({code})"),
            code => format!("client was told {code}"),
        }
    }

    /// The side that broke a rule or a limit.
    pub(super) fn offender(&self) -> &'static str {
        match self.offender {
            Some(Sender::Client) => "client",
            Some(Sender::Server) => "app",
            None => "one side",
        }
    }

    /// The fault in a few words.
    pub(super) fn detail(&self) -> &'static str {
        self.detail.unwrap_or_default()
    }
}

/// The sentence of a client that closed.
pub(super) fn client_closed(end: &Summary<'_>) -> String {
    match (end.ending.client_code, &*end.ending.close_reason) {
        (GOING_AWAY, "") => "client went away: its page was left, or its program ended (1001)".to_owned(),
        (code, text) => format!("client closed the session {}", with(code, text)),
    }
}

/// The sentence of a client that missed its heartbeat: its last signs of life.
pub(super) fn silent(Summary { ending, policy, .. }: &Summary<'_>) -> String {
    let figures = &ending.heartbeat;
    let answer = if policy.mode == Mode::Protocol { "pong" } else { "answer" };
    match (ending.last_pong_ago, figures.pings) {
        (Some(ago), _) => {
            // A client that sends need not answer: it may have sent bytes since.
            let spoke = ending.last_seen_ago + MOMENT < ago;
            let last_byte = spoke.then(|| format!(", last byte {} ago", span(ending.last_seen_ago)));
            let rtt = figures.rtt_last.map(|rtt| format!(", RTT was {}", span(rtt)));
            let (last_byte, rtt) = (last_byte.unwrap_or_default(), rtt.unwrap_or_default());
            format!("client stopped answering: last {answer} {} ago{last_byte}{rtt}", span(ago))
        }
        (None, 0) => match policy.proof().and_then(ProofOfLife::window) {
            Some(window) => format!("client fell silent: no heartbeat of its own for {}", span(window)),
            None => "client fell silent, and its network acknowledges nothing".to_owned(),
        },
        (None, pings) => {
            let probes = if pings == 1 { "1 probe".to_owned() } else { format!("{pings} probes") };
            let last_byte = if ending.from_client.bytes == 0 {
                String::new()
            } else {
                format!("; last byte {} ago", span(ending.last_seen_ago))
            };
            format!("client never answered: {probes} went out, and no {answer} came back{last_byte}")
        }
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

/// Returns a time as people write it: `41 ms`, `45.2 s`, `10 min`, `3.5 h`.
pub(crate) fn span(time: Duration) -> String {
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
    use crate::heartbeat::{Builtin, CloseSpec, HeartbeatStats, Role};
    use crate::session::{Breakage, CloseCause, Traffic, close_summary};
    use crate::ws::Violation;

    fn ending(cause: CloseCause) -> Ending {
        Ending {
            cause,
            client_code: 1012,
            upstream_code: 1006,
            close_reason: Box::default(),
            upstream_close_reason: Box::default(),
            from_client: Traffic::default(),
            from_upstream: Traffic::default(),
            heartbeat: HeartbeatStats::default(),
            duration: Duration::from_secs(3 * 3600 + 1800),
            last_pong_ago: None,
            last_seen_ago: Duration::ZERO,
        }
    }

    fn summary(ending: &Ending) -> String {
        close_summary(ending, &Policy::default())
    }

    /// A client whose heartbeat was missed, and who was last heard and answered last so many milliseconds ago.
    fn dead(pings: u64, rtt: Option<u64>, pong_ago: Option<u64>, seen_ago: u64) -> Ending {
        Ending {
            heartbeat: HeartbeatStats { pings, rtt_last: rtt.map(Duration::from_millis), ..HeartbeatStats::default() },
            last_pong_ago: pong_ago.map(Duration::from_millis),
            last_seen_ago: Duration::from_millis(seen_ago),
            ..ending(CloseCause::HeartbeatTimeout)
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
            assert_eq!(summary(&ending), expected);
        }
        let spoke = Ending { from_client: Traffic { bytes: 9, ..Traffic::default() }, ..dead(3, None, None, 45_000) };
        assert_eq!(
            summary(&spoke),
            "client never answered: 3 probes went out, and no pong came back; last byte 45 s ago"
        );
        let by_itself = Policy { mode: Builtin::ExpressText.mode(Role::Answer), ..Policy::default() };
        assert_eq!(
            close_summary(&dead(0, None, None, 90_000), &by_itself),
            "client fell silent: no heartbeat of its own for 90 s"
        );
        let asked = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
        assert!(close_summary(&dead(9, Some(41), Some(2000), 2000), &asked).contains("last answer 2 s ago"));
    }

    #[test]
    fn who_leaves_is_told_by_how() {
        let left = |code, text: &str| Ending {
            client_code: code,
            upstream_code: code,
            close_reason: text.into(),
            ..ending(CloseCause::Closed { by: Sender::Client })
        };
        let client = |breakage| Ending { client_code: 1006, ..ending(CloseCause::ClientLost { breakage }) };
        let app = |breakage| Ending { client_code: 1006, ..ending(CloseCause::UpstreamLost { breakage }) };
        let reset = Some(Breakage::Reset);
        for (ending, expected) in [
            (left(1000, ""), "client closed the session with 1000"),
            (left(1005, ""), "client closed the session without a code"),
            (left(1001, ""), "client went away: its page was left, or its program ended (1001)"),
            (left(4001, "so \"long\""), r#"client closed the session with 4001 "so \"long\"""#),
            (client(reset), "client's connection broke without a Close: connection reset"),
            (client(None), "client's connection ended without a Close"),
            (app(reset), "app's connection broke without a Close: connection reset; client could not be told"),
            (app(None), "app's connection ended without a Close; client could not be told"),
        ] {
            assert_eq!(summary(&ending), expected);
        }
        let app = Ending { cause: CloseCause::Closed { by: Sender::Server }, ..left(4003, "banned") };
        assert_eq!(summary(&app), r#"app closed the session with 4003 "banned""#);
    }

    #[test]
    fn the_offender_is_named() {
        let by = |by, violation| ending(CloseCause::Violation { by, violation });
        let (client, app) = (Sender::Client, Sender::Server);
        for (ending, expected) in [
            (by(client, Violation::Unmasked), "client broke the WebSocket protocol: unmasked client frame"),
            (by(app, Violation::Masked), "app broke the WebSocket protocol: masked server frame"),
            (by(client, Violation::MessageTooBig), "client sent too much at once: message over the limit"),
            (ending(CloseCause::PingFlood), "client sent more than 20 pings a second"),
            (
                ending(CloseCause::UpstreamUnresponsive),
                "app no longer answers: silent for too long; client was told to come back (1012)",
            ),
            (
                Ending {
                    client_code: 1008,
                    close_reason: "maintenance".into(),
                    ..ending(CloseCause::Admin(CloseSpec::new(1008, "maintenance")))
                },
                r#"operator closed the session with 1008 "maintenance""#,
            ),
        ] {
            assert_eq!(summary(&ending), expected);
        }
    }

    #[test]
    fn every_end_has_a_sentence_of_its_own() {
        use CloseCause::{
            Admin, ClientLost, Closed, Drain, HeartbeatFlood, HeartbeatTimeout, MaxAge, MessageFlood, PingFlood,
            SlowReader, Trickle, UpstreamLost, UpstreamStalled, UpstreamUnresponsive,
        };
        let mut seen = BTreeSet::new();
        let broken = |violation| CloseCause::Violation { by: Sender::Client, violation };
        let all = [
            Closed { by: Sender::Client },
            Closed { by: Sender::Server },
            ClientLost { breakage: None },
            UpstreamLost { breakage: None },
            HeartbeatTimeout,
            SlowReader,
            Trickle,
            UpstreamStalled,
            UpstreamUnresponsive,
            PingFlood,
            HeartbeatFlood,
            MessageFlood,
            broken(Violation::Masked),
            broken(Violation::FrameTooBig),
            Drain { code: 1012 },
            MaxAge,
            Admin(CloseSpec::new(1008, "maintenance")),
        ];
        for cause in all {
            let summary = summary(&ending(cause));
            assert!(!summary.is_empty() && !summary.ends_with('.') && !summary.contains("  "), "{summary}");
            assert!(seen.insert(summary.clone()), "{summary:?} is said of two ends");
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
