//! Each cause, held against `cause_table_golden.txt`, and the words against the catalogue of metrics and the documented
//! table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::heartbeat::{EngineVerdict, HeartbeatStats};
use crate::session::Traffic;
use crate::telemetry::metrics::{ALL, Values};

const VIOLATIONS: [Violation; 13] = [
    Violation::ReservedOpcode,
    Violation::ReservedBit,
    Violation::Unmasked,
    Violation::Masked,
    Violation::ControlTooLong,
    Violation::ControlFragmented,
    Violation::LengthOverflow,
    Violation::UnexpectedContinuation,
    Violation::UnfinishedMessage,
    Violation::BadClose,
    Violation::BadCloseReason,
    Violation::FrameTooBig,
    Violation::MessageTooBig,
];

const BREAKAGES: [Breakage; 4] = [Breakage::Reset, Breakage::ClosedWhileWriting, Breakage::TimedOut, Breakage::Failed];

/// Every cause under a name.
fn all() -> Vec<(String, CloseCause)> {
    let one = |name: &str, cause| (name.to_owned(), cause);
    let mut all = vec![
        one("closed by the client", CloseCause::Closed { by: Sender::Client }),
        one("closed by the app", CloseCause::Closed { by: Sender::Server }),
        one("client ended", CloseCause::ClientLost { breakage: None }),
    ];
    all.extend(
        BREAKAGES
            .map(|of| one(&format!("client lost: {}", of.as_str()), CloseCause::ClientLost { breakage: Some(of) })),
    );
    all.push(one("app ended", CloseCause::UpstreamLost { breakage: None }));
    all.extend(
        BREAKAGES.map(|of| one(&format!("app lost: {}", of.as_str()), CloseCause::UpstreamLost { breakage: Some(of) })),
    );
    all.extend([
        one("timeout", EngineVerdict::Timeout.into()),
        one("unanswered", CloseCause::ClientUnanswered),
        one("slow reader", EngineVerdict::SlowReader.into()),
        one("trickle", EngineVerdict::Trickle.into()),
        one("app stalled", EngineVerdict::UpstreamStalled.into()),
        one("app unresponsive", CloseCause::UpstreamUnresponsive),
        one("pings", CloseCause::PingFlood),
        one("beats", CloseCause::HeartbeatFlood),
        one("messages", CloseCause::MessageFlood),
    ]);
    for by in [Sender::Client, Sender::Server] {
        all.extend(
            VIOLATIONS
                .map(|violation| one(&format!("{violation:?} by {by:?}"), CloseCause::Violation { by, violation })),
        );
    }
    all.extend([1001, 1012, 1013, 4000].map(|code| one(&format!("drain {code}"), CloseCause::Drain { code })));
    all.extend([
        one("drain aborted", CloseCause::Aborted(Abort::Drain)),
        one("age", CloseCause::MaxAge),
        one("admin", CloseCause::Admin(CloseSpec::new(1008, "maintenance"))),
        one("admin aborted", CloseCause::Aborted(Abort::Operator)),
    ]);
    all
}

fn row(name: &str, cause: &CloseCause) -> String {
    let mut text = String::new();
    let (detail, offender) = (cause.detail(), cause.offender());
    let (reason, initiator) = (cause.reason().as_str(), cause.initiator().as_str());
    writeln!(text, "{name}: {reason} by {initiator}, {detail:?}, {offender:?}").unwrap();
    let blames = (cause.blames(Sender::Client), cause.blames(Sender::Server), cause.lets_app_answer());
    writeln!(text, "  blames {blames:?}").unwrap();
    let own = OnMiss { client: CloseSpec::new(4408, "gone"), upstream: UpstreamEnd::Disconnect };
    // A client that ended its half gets the end that a closing handshake has.
    if name != "client ended" {
        for on_miss in [OnMiss::default(), own] {
            let (client, app) = cause.closes(&on_miss);
            writeln!(text, "  {client:?} | {app:?}").unwrap();
        }
    }
    for (client_code, close_reason) in [(1006, ""), (1005, ""), (1001, ""), (1012, "service restart"), (4000, "b")] {
        let ending = Ending {
            cause: cause.clone(),
            client_code,
            upstream_code: client_code,
            close_reason: close_reason.into(),
            upstream_close_reason: Box::default(),
            from_client: Traffic::default(),
            from_upstream: Traffic::default(),
            heartbeat: HeartbeatStats { pings: 2, ..HeartbeatStats::default() },
            duration: Duration::from_secs(90),
            last_seen_ago: Duration::from_secs(45),
            last_pong_ago: Some(Duration::from_secs(45)),
        };
        writeln!(text, "  {client_code}: {}", close_summary(&ending, &Policy::default())).unwrap();
    }
    text
}

#[test]
fn each_cause_is_reported_as_ever() {
    let text: String = all().iter().map(|(name, cause)| row(name, cause)).collect();
    assert_eq!(text, include_str!("../cause_table_golden.txt"));
}

/// A number for each variant; a new one does not compile until it has its own, and then is missing in [`all`].
fn variant(cause: &CloseCause) -> usize {
    match cause {
        CloseCause::Closed { .. } => 0,
        CloseCause::ClientLost { .. } => 1,
        CloseCause::UpstreamLost { .. } => 2,
        CloseCause::HeartbeatTimeout => 3,
        CloseCause::ClientUnanswered => 4,
        CloseCause::SlowReader => 5,
        CloseCause::Trickle => 6,
        CloseCause::UpstreamStalled => 7,
        CloseCause::UpstreamUnresponsive => 8,
        CloseCause::PingFlood => 9,
        CloseCause::HeartbeatFlood => 10,
        CloseCause::MessageFlood => 11,
        CloseCause::Violation { .. } => 12,
        CloseCause::Drain { .. } => 13,
        CloseCause::MaxAge => 14,
        CloseCause::Admin(_) => 15,
        CloseCause::Aborted(_) => 16,
    }
}

#[test]
fn the_table_has_every_word_of_the_metric_and_of_the_documented_list() {
    let all = all();
    let variants: BTreeSet<usize> = all.iter().map(|(_, cause)| variant(cause)).collect();
    assert!(variants.iter().copied().eq(0..17), "not every variant: {variants:?}");
    let pairs: BTreeSet<(&str, &str)> =
        all.iter().map(|(_, cause)| (cause.reason().as_str(), cause.initiator().as_str())).collect();
    let metric = ALL.iter().find(|metric| metric.full_name() == "pulsegate_websockets_closed_total");
    let values = |name: &str| -> BTreeSet<&str> {
        let label = metric.and_then(|metric| metric.labels().iter().find(|label| label.name == name));
        match label.map(|label| label.values) {
            Some(Values::Closed(words)) => words.iter().copied().collect(),
            other => panic!("{name}: {other:?}"),
        }
    };
    assert_eq!(pairs.iter().map(|pair| pair.0).collect::<BTreeSet<_>>(), values("reason"));
    assert_eq!(pairs.iter().map(|pair| pair.1).collect::<BTreeSet<_>>(), values("initiator"));
    let documented = documented();
    let documented: BTreeSet<(&str, &str)> =
        documented.iter().map(|(reason, initiator)| (&**reason, &**initiator)).collect();
    assert_eq!(documented, pairs);
}

/// Reason and initiator of each row of the documented table, which stands in one of these files.
fn documented() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["deploy/CLOSE_REASONS.md", "README.md"];
    let text: String = files.iter().filter_map(|file| std::fs::read_to_string(root.join(file)).ok()).collect();
    let rows = text.lines().skip_while(|line| !line.starts_with("| reason | initiator |")).skip(2);
    let cells = rows.map_while(|line| line.strip_prefix('|')).map(|line| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
    });
    cells.collect()
}
