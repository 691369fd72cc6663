//! The description of the settings for operators, as sentences and as facts: admin listeners, and the duration of a
//! shutdown.

use std::time::Duration;

use humantime::format_duration;
use serde_json::{Value, json};

use crate::config::{Admin, AdminSocket, Drain, Settings, Token};
use crate::drain::DRAIN_MARGIN;

/// Describes the settings for operators: a subject and its lines.
pub(super) fn sentences(settings: &Settings) -> Vec<(&'static str, Vec<String>)> {
    let Settings { drain, admin, otel, .. } = settings;
    let health = admin.health.map(|address| format!("{address} for probes and metrics, in plain HTTP"));
    let spans = otel.as_ref().map(|otel| format!("a span of each upgrade to {}", otel.endpoint));
    let said = [
        ("health on", health.into_iter().collect()),
        ("admin on", admin.socket.as_ref().map(|socket| door(socket, admin)).into_iter().collect()),
        ("ends within", end(drain, settings.close_grace())),
        ("sends", spans.into_iter().collect()),
    ];
    said.into_iter().filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty()).collect()
}

/// Returns the notes about settings that are valid and possibly intended, but have consequences.
pub(super) fn notes(admin: &Admin) -> Vec<String> {
    match (&admin.socket, &admin.token) {
        (Some(AdminSocket::Tcp(address)), None) => vec![format!(
            "every program on this machine can administer the proxy at {address}: \
             set `token_file` in [admin], or make `socket` the path of a unix socket"
        )],
        _ => Vec::new(),
    }
}

/// Returns the facts of these settings as JSON: each section under its name.
pub(super) fn facts(settings: &Settings) -> [(&'static str, Value); 4] {
    let Settings { drain, admin, log, otel, .. } = settings;
    let grace = settings.close_grace();
    [
        (
            "drain",
            json!({
                "delay_s": drain.delay.as_secs_f64(),
                "window_s": drain.window.as_secs_f64(),
                "close_grace_s": grace.as_secs_f64(),
                "margin_s": DRAIN_MARGIN.as_secs_f64(),
                "total_s": longest(drain, grace).as_secs_f64(),
                "code": drain.code,
                "max_connection_age_s": drain.max_connection_age.map(|age| age.as_secs_f64()),
            }),
        ),
        (
            "admin",
            json!({
                "health": admin.health,
                "socket": admin.socket.as_ref().map(ToString::to_string),
                "tls": admin.tls,
                "token_file": admin.token.as_ref().map(|token| token.file().display().to_string()),
                "closed_sessions": admin.closed_sessions,
            }),
        ),
        ("log", json!({ "level": log.level.to_string() })),
        ("otel", json!(otel.as_ref().map(|otel| &otel.endpoint))),
    ]
}

fn door(socket: &AdminSocket, admin: &Admin) -> String {
    let speaks = match socket {
        AdminSocket::Unix { required: true, .. } => ", for its own user",
        AdminSocket::Unix { required: false, .. } => ", for its own user, if it can be opened",
        AdminSocket::Tcp(_) if admin.tls => " by TLS",
        AdminSocket::Tcp(_) => "",
    };
    let asks = admin.token.as_ref().map(|token: &Token| format!(", with the token of {}", token.file().display()));
    format!("{socket}{speaks}{}", asks.unwrap_or_default())
}

/// Describes the duration of an orderly shutdown, and the grace period that a supervisor needs.
fn end(drain: &Drain, close_grace: Duration) -> Vec<String> {
    let total = longest(drain, close_grace);
    let [delay, window, grace, margin] = [drain.delay, drain.window, close_grace, DRAIN_MARGIN].map(format_duration);
    // In whole seconds, as Kubernetes and systemd count them, plus one for the process itself.
    let time_limit = total.as_secs() + u64::from(total.subsec_nanos() > 0) + 1;
    let age = drain.max_connection_age.map(|age| format!("closes WebSockets at the age of {}", format_duration(age)));
    let mut lines = vec![
        format!(
            "{}: {delay} announced, {window} to close WebSockets with {}, {grace} for the last answers, {margin} to spare",
            format_duration(total),
            drain.code
        ),
        format!("wait {time_limit} s before it is killed: terminationGracePeriodSeconds, TimeoutStopSec"),
    ];
    lines.extend(age);
    lines
}

fn longest(drain: &Drain, close_grace: Duration) -> Duration {
    drain.longest(close_grace) + DRAIN_MARGIN
}
