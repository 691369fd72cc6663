//! Each cause of an end, held against what `golden.txt` says of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::admin::sentence;
use crate::heartbeat::{Policy, Stats};
use crate::relay::{Ending, Traffic};

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

/// Every cause under a name, with the first Close and whether there was a Close at all.
fn all() -> Vec<(String, Cause, Option<Sender>, bool)> {
    let breakages =
        ["connection reset", "connection closed while writing", "connection timed out", "connection failed"];
    let mut all: Vec<(String, Cause, Option<Sender>, bool)> = vec![
        ("closed by the client".into(), Cause::Closed, Some(Sender::Client), true),
        ("closed by the app".into(), Cause::Closed, Some(Sender::Server), true),
        ("client ended".into(), Cause::Closed, None, false),
    ];
    let one = |name: &str, cause| (name.to_owned(), cause, None, true);
    all.extend(breakages.map(|detail| one(&format!("client lost: {detail}"), Cause::ClientLost { detail })));
    all.push(one("app ended", Cause::UpstreamLost { detail: None }));
    all.extend(breakages.map(|text| one(&format!("app lost: {text}"), Cause::UpstreamLost { detail: Some(text) })));
    all.extend([
        one("timeout", Cause::Verdict(Verdict::Timeout)),
        one("unanswered", Cause::ClientUnanswered),
        one("slow reader", Cause::Verdict(Verdict::SlowReader)),
        one("trickle", Cause::Verdict(Verdict::Trickle)),
        one("app stalled", Cause::Verdict(Verdict::UpstreamStalled)),
        one("app unresponsive", Cause::UpstreamUnresponsive),
        one("pings", Cause::PingFlood),
        one("beats", Cause::BeatFlood),
        one("messages", Cause::MessageFlood),
    ]);
    for by in [Sender::Client, Sender::Server] {
        all.extend(
            VIOLATIONS.map(|violation| one(&format!("{violation:?} by {by:?}"), Cause::Violation { by, violation })),
        );
    }
    all.extend([1001, 1012, 1013, 4000].map(|code| one(&format!("drain {code}"), Cause::Drain { code })));
    all.extend([
        one("drain aborted", Cause::Aborted(Abort::Drain)),
        one("age", Cause::MaxAge),
        one("admin", Cause::Admin(CloseSpec::new(1008, "maintenance"))),
        one("admin aborted", Cause::Aborted(Abort::Operator)),
    ]);
    all
}

fn row(name: &str, cause: &Cause, first: Option<Sender>, is_clean: bool) -> String {
    let mut text = String::new();
    let first = first.map(|by| FirstClose { by, code: 1000, reason: "".into() });
    let (initiator, reason) = (cause.initiator(first.as_ref()), cause.reason(is_clean));
    let (detail, offender) = (cause.detail(), cause.offender());
    writeln!(text, "{name}: {} by {}, {detail:?}, {offender:?}", reason.as_str(), initiator.as_str()).unwrap();
    let blames = (cause.blames_client(), cause.blames_app(), cause.lets_app_answer());
    writeln!(text, "  blames {blames:?}").unwrap();
    let own = OnMiss { client: CloseSpec::new(4408, "gone"), upstream: UpstreamEnd::Disconnect };
    if is_clean {
        for on_miss in [OnMiss::default(), own] {
            let (client, app) = cause.closes(&on_miss);
            writeln!(text, "  {client:?} | {app:?}").unwrap();
        }
    }
    for (client_code, close_reason) in [(1006, ""), (1005, ""), (1001, ""), (1012, "service restart"), (4000, "b")] {
        let ending = Ending {
            initiator,
            reason,
            detail,
            offender,
            client_code,
            upstream_code: client_code,
            close_reason: close_reason.into(),
            upstream_close_reason: Box::default(),
            from_client: Traffic::default(),
            from_upstream: Traffic::default(),
            heartbeat: Stats { pings: 2, ..Stats::default() },
            duration: Duration::from_secs(90),
            last_seen_ago: Duration::from_secs(45),
            last_pong_ago: Some(Duration::from_secs(45)),
        };
        writeln!(text, "  {client_code}: {}", sentence(&ending, &Policy::default())).unwrap();
    }
    text
}

#[test]
fn each_cause_is_reported_as_ever() {
    let text: String = all().iter().map(|(name, cause, first, is_clean)| row(name, cause, *first, *is_clean)).collect();
    assert_eq!(text, include_str!("golden.txt"));
}
