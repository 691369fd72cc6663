//! The description of a route's heartbeat, as sentences and as facts.

use std::time::Duration;

use humantime::format_duration;
use serde_json::{Map, Value, json};

use crate::heartbeat::{
    Auto, Builtin, DETECTABLE, Handshake, Heartbeat, Liveness, Mode, Policy, Profile, ProofOfLife, Signs,
};
use crate::ws::Coding;

/// The longest time that the session of a vanished client is kept on an idle connection.
#[derive(Clone, Debug, PartialEq)]
enum Bound {
    /// Forever.
    None,
    /// This long at most.
    Within(Duration),
    /// As long as app and client agree on, as text.
    Agreed(String),
}

/// Describes `heartbeat` in sentences: the first applies to the route, each other one to one kind of session.
pub(super) fn sentences(heartbeat: &Heartbeat) -> Vec<String> {
    let auto = match heartbeat {
        Heartbeat::Fixed(policy) => return vec![sentence(policy)],
        Heartbeat::Auto(auto) => auto,
    };
    let lead = "the heartbeat selected by the upgrade:".to_owned();
    let kinds = kinds(heartbeat, auto);
    let kinds =
        kinds.iter().map(|(shown, policy)| format!("{}: {}", shown.unwrap_or("anything else"), sentence(policy)));
    [lead].into_iter().chain(kinds).collect()
}

/// Returns the facts of `heartbeat`: `heartbeat`, `profile`, `detection_s` and `compression`, for the route and, if the
/// upgrade decides them, for each kind of session in `sessions`.
pub(super) fn facts(heartbeat: &Heartbeat) -> Map<String, Value> {
    let auto = match heartbeat {
        Heartbeat::Fixed(policy) => return facts_of(policy),
        Heartbeat::Auto(auto) => auto,
    };
    let kinds = kinds(heartbeat, auto).into_iter().map(|(shown, policy)| {
        let mut facts = facts_of(policy);
        facts.insert("shown_by".to_owned(), json!(shown));
        facts
    });
    // Both are unknown before the upgrade.
    let (bound, compression) = (Value::Null, Value::Null);
    let mut facts = members("auto", Some("auto"), bound, compression);
    facts.insert("sessions".to_owned(), kinds.collect());
    facts
}

/// Returns the sign by which the upgrade shows each kind of session, and its policy; the last kind has no sign.
fn kinds<'a>(heartbeat: &'a Heartbeat, auto: &'a Auto) -> Vec<(Option<&'static str>, &'a Policy)> {
    let shown = DETECTABLE.into_iter().map(|(builtin, sign)| (Some(sign), &**auto.policy(builtin)));
    shown.chain([(None, &**heartbeat.policy())]).collect()
}

fn facts_of(policy: &Policy) -> Map<String, Value> {
    let bound = match bound(policy) {
        Bound::Within(bound) => json!(bound.as_secs_f64()),
        Bound::None | Bound::Agreed(_) => Value::Null,
    };
    let profile = policy.mode.profile().map(|profile| profile.name);
    members(policy.mode.as_str(), profile, bound, json!(!policy.mode.swallows()))
}

fn members(mode: &str, profile: Option<&str>, bound: Value, compression: Value) -> Map<String, Value> {
    let members =
        [("heartbeat", json!(mode)), ("profile", json!(profile)), ("detection_s", bound), ("compression", compression)];
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn sentence(policy: &Policy) -> String {
    let mut parts = vec![Some(does(policy)), held(policy)];
    parts.push(policy.mode.swallows().then(|| "no compression".to_owned()));
    parts.push(unreadable(policy).map(str::to_owned));
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Describes the treatment of messages that need to be read but cannot be.
fn unreadable(policy: &Policy) -> Option<&'static str> {
    let takeover = Coding::Deflate { client_takeover: true, server_takeover: true };
    let plainest = Signs { subprotocols: &[], path: "/", query: "" };
    if Heartbeat::from(policy.clone()).select(&plainest, takeover).degraded.is_some() {
        return Some("pinged instead where the app compresses its messages with context takeover");
    }
    let reads = policy.liveness == Liveness::PongOnly
        && matches!(policy.mode, Mode::Passive(_))
        && policy.proof() != Some(ProofOfLife::Pongs);
    reads.then_some("a compressed message whose content cannot be read counts as a heartbeat")
}

/// Describes the proxy's action.
fn does(policy: &Policy) -> String {
    let quiet = format!("after {} of silence", format_duration(policy.interval));
    let name = policy.mode.profile().map_or("", |profile| profile.name);
    let does = match &policy.mode {
        Mode::Off => "no heartbeat".to_owned(),
        Mode::Protocol => format!("pinged {quiet}"),
        Mode::App(_) => format!("probed ({name}) {quiet}"),
        Mode::Answer(_) => format!("answered ({name})"),
        Mode::Passive(profile) if is_pinged(policy, profile) => format!("watched ({name}) and pinged {quiet}"),
        Mode::Passive(profile) if agrees_late(profile) => {
            format!("watched ({name}), pinged {quiet} until the handshake has agreed on a heartbeat")
        }
        Mode::Passive(_) => format!("watched ({name})"),
    };
    if starts_late(policy) { format!("{does} once `start_after` has passed and pinged until then") } else { does }
}

/// Describes the time after which the session of a dead client ends.
fn held(policy: &Policy) -> Option<String> {
    let within = match bound(policy) {
        Bound::None => return None,
        Bound::Within(bound) => seconds(bound),
        Bound::Agreed(words) => words,
    };
    let asked = matches!(policy.proof(), Some(ProofOfLife::Pongs | ProofOfLife::Answers));
    let longer = if policy.adaptive && asked { " (more where round trips are long)" } else { "" };
    let from = match policy.proof() {
        Some(ProofOfLife::SendsWhenIdle(_)) => " of the last message of either side",
        _ => "",
    };
    Some(format!("a dead client is gone within {within}{from}{longer}"))
}

/// Returns the longest time that a dead client's session is kept, unless app and client agree on another; `None`
/// without such a bound.
pub(super) fn longest(heartbeat: &Heartbeat) -> Option<Duration> {
    match bound(heartbeat.policy()) {
        Bound::Within(bound) => Some(bound),
        Bound::None | Bound::Agreed(_) => None,
    }
}

fn bound(policy: &Policy) -> Bound {
    let pinged = policy.interval + policy.timeout * policy.max_missed;
    let Some(proof) = policy.proof() else { return Bound::None };
    let (watched, handshake) = match &policy.mode {
        Mode::Passive(profile) => (true, profile.handshake),
        _ => (false, None),
    };
    match (proof, handshake, policy.window) {
        (ProofOfLife::Pongs, Some(handshake), None) => {
            let agreed = match handshake {
                Handshake::Stomp => "3 × the interval",
                Handshake::Mqtt => "1.5 × the keep-alive",
                Handshake::Pusher => "1.5 × the activity timeout",
            };
            Bound::Agreed(format!("{agreed} that it has agreed on, {} while it is pinged", seconds(pinged)))
        }
        (ProofOfLife::Pongs, Some(_), Some(window)) => Bound::Within(window.max(pinged)),
        (ProofOfLife::Answers, ..) if watched => Bound::Agreed(asked_by_app(policy)),
        (ProofOfLife::Pongs | ProofOfLife::Answers, ..) => Bound::Within(pinged),
        (ProofOfLife::SendsWhenIdle(window), Some(_), None) => {
            Bound::Agreed(format!("1.5 × the app's activity timeout ({} where it names none)", seconds(window)))
        }
        // A client to which the app sends nothing needs to send nothing.
        (ProofOfLife::SendsAfterApp(window), ..) => {
            Bound::Agreed(format!("{} of the app's next message", seconds(window)))
        }
        (ProofOfLife::Sends(window) | ProofOfLife::SendsWhenIdle(window), ..) => {
            // A session that begins with pings may end during that phase.
            Bound::Within(if starts_late(policy) { window.max(pinged) } else { window })
        }
    }
}

/// Describes the bound if the app sends the probes, at an interval of its own.
fn asked_by_app(policy: &Policy) -> String {
    let engine_io = policy.mode.profile().is_some_and(|profile| profile.name == Builtin::EngineIo.name());
    let usual = if engine_io { " (25 s by Socket.IO's default)" } else { "" };
    let missed = match policy.max_missed {
        1 => String::new(),
        many => format!("{many} × "),
    };
    format!("the app's own interval{usual} + {missed}{}", seconds(policy.timeout))
}

/// Returns whether the profile applies only after a certain message.
fn starts_late(policy: &Policy) -> bool {
    policy.mode.profile().is_some_and(|profile| profile.start_after.is_some())
}

/// Returns whether pings are the only probes, in every phase.
fn is_pinged(policy: &Policy, profile: &Profile) -> bool {
    policy.proof() == Some(ProofOfLife::Pongs) && profile.handshake.is_none()
}

/// Returns whether clients are pinged until app and client have agreed on a heartbeat.
fn agrees_late(profile: &Profile) -> bool {
    profile.proof == ProofOfLife::Pongs
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
