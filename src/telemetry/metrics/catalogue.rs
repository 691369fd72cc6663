//! Every metric there is: its name, its labels and what they may say, and what it means. The registry is filled from
//! here, and so is the table in the README.

use std::fmt::Write as _;

use prometheus_client::registry::{Metric as Registered, Registry};

use super::labels::{CLOSE_CODES, METHODS, STATUSES};
use crate::session::{EndReason, Initiator};

/// The prefix of all names.
pub(super) const PREFIX: &str = "pulsegate";

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name without the suffix that counters have, and without the prefix of the program's own metrics.
    pub(super) name: &'static str,
    /// True if it has that prefix; the names of `process_*` are the same in every program.
    pub(super) is_own: bool,
    pub(super) kind: MetricKind,
    pub(super) labels: &'static [Label],
    /// The help text of the exposition.
    pub(super) help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Up only.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution of observations.
    Histogram,
}

/// One dimension of a metric.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label; never chosen by a client.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these words.
    Closed(&'static [&'static str]),
    /// Something that the configuration names, in these words.
    Configured(&'static str),
}

impl Metric {
    /// Its name as a scraper sees it; that of a histogram has suffixes of its own there.
    pub fn full_name(&self) -> String {
        let suffix = if self.kind == MetricKind::Counter { "_total" } else { "" };
        format!("{}{suffix}", self.family())
    }

    /// Its name as `OpenMetrics` describes it.
    pub(super) fn family(&self) -> String {
        if self.is_own { format!("{PREFIX}_{}", self.name) } else { self.name.to_owned() }
    }

    /// Its type.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// Its dimensions, in the order in which they are written.
    pub fn labels(&self) -> &'static [Label] {
        self.labels
    }
}

impl MetricKind {
    /// The word for it in the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, is_own: true, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, is_own: true, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, is_own: true, kind: MetricKind::Histogram, labels, help }
}

const fn of_process(name: &'static str, kind: MetricKind, help: &'static str) -> Metric {
    Metric { name, is_own: false, kind, labels: &[], help }
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Closed(values) }
}

/// Bounds for what is done within a request, in seconds: from one on loopback to one that times out.
pub(super) const SHORT: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bounds for round trips.
pub(super) const ROUND_TRIPS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for the lives of sessions: from a second to a day.
pub(super) const LIVES: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0];

/// `in`: from clients; `out`: to them.
pub(super) const DIRECTIONS: &[&str] = &["in", "out"];
pub(super) const UPGRADE_OUTCOMES: &[&str] =
    &["opened", "rejected", "upstream_refused", "upstream_failed", "abandoned"];
pub(super) const REJECTIONS: &[&str] = &[
    "bad_request",
    "version",
    "origin",
    "path",
    "memory",
    "streams",
    "draining",
    "upstream_refused",
    "upstream_unreachable",
    "upstream_tls",
    "upstream_timeout",
    "upstream_closed",
    "upstream_invalid",
];
pub(super) const DIAL_FAILURES: &[&str] = &["resolve", "refused", "unreachable", "upstream_tls", "connect_timeout"];
pub(super) const UPSTREAM_FAILURES: &[&str] = &[
    "resolve",
    "refused",
    "unreachable",
    "upstream_tls",
    "connect_timeout",
    "closed",
    "invalid_response",
    "response_timeout",
];
/// The outcome of a handshake that did not fail.
pub(super) const HANDSHAKE_SUCCESS: &str = "ok";
pub(super) const HANDSHAKE_OUTCOMES: &[&str] = &[
    HANDSHAKE_SUCCESS,
    "timeout",
    "plain_http",
    "not_tls",
    "peer_gone",
    "alert",
    "unknown_name",
    "no_client_certificate",
    "bad_client_certificate",
    "acme_challenge",
    "refused",
    "draining",
];
pub(super) const TLS_VERSIONS: &[&str] = &["1.3", "1.2", "none"];
pub(super) const TLS_GROUPS: &[&str] = &["X25519MLKEM768", "X25519", "secp256r1", "secp384r1", "other", "none"];
pub(super) const CONNECTION_REFUSALS: &[&str] = &[
    "connections",
    "connections_per_ip",
    "handshakes_per_ip",
    "proxy_untrusted",
    "proxy_header",
    "proxy_cut",
    "untrusted_peer",
];
pub(super) const GOAWAYS: &[&str] =
    &["resets", "flood", "excessive", "header_timeout", "flow_control", "frame_size", "compression", "protocol_error"];
pub(super) const ACME_ORDERS_RESULTS: &[&str] = &[
    "issued",
    "unreachable",
    "rate_limited",
    "refused",
    "challenge_failed",
    "invalid_response",
    "storage",
    "configuration",
    "internal",
];
pub(super) const RELOADS: &[&str] = &["ok", "partial", "failed", "unchanged"];

const ROUTE: Label =
    Label { name: "route", values: Values::Configured("host and path of a route, as in `/socket.io/`") };
const DIRECTION: Label = closed("direction", DIRECTIONS);

pub(super) const BUILD_INFO: Metric = gauge(
    "build_info",
    &[Label { name: "version", values: Values::Configured("the program's own version") }],
    "Which build this is; always 1",
);
pub(super) const CONNECTIONS_ACTIVE: Metric = gauge("connections_active", &[], "Open client connections");
pub(super) const CONNECTIONS_REFUSED: Metric = counter(
    "connections_refused",
    &[closed("reason", CONNECTION_REFUSALS)],
    "Client connections that were closed before their handshake, or that get 403 because only trusted proxies are served",
);
pub(super) const TLS_HANDSHAKES: Metric = counter(
    "tls_handshakes",
    &[closed("outcome", HANDSHAKE_OUTCOMES), closed("version", TLS_VERSIONS), closed("group", TLS_GROUPS)],
    "TLS handshakes with clients by how they ended and what was agreed on; none for one that failed",
);
pub(super) const TLS_HANDSHAKE_DURATION: Metric = histogram(
    "tls_handshake_duration_seconds",
    &[],
    "From a connection's arrival to the end of its handshake, of handshakes that succeeded",
);
pub(super) const TLS_CERTIFICATE_NOT_AFTER: Metric = gauge(
    "tls_certificate_not_after_timestamp_seconds",
    &[Label { name: "cert", values: Values::Configured("file of a certificate in `[tls]`, or its first name") }],
    "When a certificate that is presented to clients expires",
);
pub(super) const ACME_ORDERS: Metric = counter(
    "acme_orders",
    &[closed("result", ACME_ORDERS_RESULTS)],
    "Attempts to get a certificate from the authority of `[tls.acme]`, by their result",
);
pub(super) const ACME_NEXT_ORDER: Metric = gauge(
    "acme_next_order_timestamp_seconds",
    &[],
    "When the next attempt to get a certificate is due; 0 before the first is done, and without `[tls.acme]`",
);
pub(super) const HTTP_REQUESTS: Metric = counter(
    "http_requests",
    &[ROUTE, closed("method", METHODS), closed("code", STATUSES)],
    "Plain HTTP requests by route, method and status; 499 where the client left before there was an answer, route none where \
     the head could not be read",
);
pub(super) const HTTP_REQUEST_DURATION: Metric = histogram(
    "http_request_duration_seconds",
    &[ROUTE],
    "From the head of a plain HTTP request to the last byte of its answer; upgrades are not among them",
);
pub(super) const HTTP2_GOAWAYS: Metric = counter(
    "http2_goaways",
    &[closed("reason", GOAWAYS)],
    "HTTP/2 connections that were ended for a fault or an excess of the client",
);
pub(super) const UPGRADES: Metric = counter(
    "upgrades",
    &[ROUTE, closed("outcome", UPGRADE_OUTCOMES)],
    "Requests for a WebSocket by their outcome; abandoned where the client left before the answer",
);
pub(super) const UPGRADE_REJECTIONS: Metric = counter(
    "upgrade_rejections",
    &[closed("reason", REJECTIONS)],
    "Requests for a WebSocket that were answered with an error, by reason",
);
pub(super) const UPGRADE_DURATION: Metric = histogram(
    "upgrade_duration_seconds",
    &[ROUTE],
    "From a request for a WebSocket to the start of its session, the app's answer included",
);
pub(super) const WEBSOCKETS_ACTIVE: Metric = gauge("websockets_active", &[ROUTE], "Live WebSocket sessions");
pub(super) const WEBSOCKETS_CLOSED: Metric = counter(
    "websockets_closed",
    &[ROUTE, closed("initiator", Initiator::WORDS), closed("reason", EndReason::WORDS), closed("code", CLOSE_CODES)],
    "WebSocket sessions that ended, by initiator, reason, and the close code of the client's side",
);
pub(super) const WEBSOCKET_DURATION: Metric =
    histogram("websocket_duration_seconds", &[ROUTE], "Duration of WebSocket sessions that have ended");
pub(super) const HEARTBEAT_PINGS: Metric =
    counter("heartbeat_pings", &[ROUTE], "Probes that were sent to clients, as pings or as messages");
pub(super) const HEARTBEAT_PONGS: Metric = counter("heartbeat_pongs", &[ROUTE], "Answers of clients to probes");
pub(super) const HEARTBEAT_MISSED: Metric =
    counter("heartbeat_missed", &[ROUTE], "Windows that passed without a sign of life of the client");
pub(super) const HEARTBEAT_TIMEOUTS: Metric =
    counter("heartbeat_timeouts", &[ROUTE], "Sessions that were given up because the client showed no sign of life");
pub(super) const HEARTBEAT_RTT: Metric =
    histogram("heartbeat_rtt_seconds", &[ROUTE], "Round trips from a probe to its answer");
pub(super) const RECONNECTS: Metric = counter(
    "reconnects",
    &[ROUTE],
    "WebSocket sessions that opened within a minute of the end of one with the same address and user agent, as far as closed \
     sessions are kept (admin.closed_sessions)",
);
pub(super) const MESSAGES: Metric =
    counter("messages", &[DIRECTION], "Whole WebSocket messages that were read: in from clients, out from apps");
pub(super) const PAYLOAD_BYTES: Metric = counter(
    "payload_bytes",
    &[DIRECTION],
    "Payload of WebSocket messages as read, compressed where it was: neither frame headers nor control frames",
);
pub(super) const BUFFERED_BYTES: Metric = gauge(
    "buffered_bytes",
    &[DIRECTION],
    "Bytes that are held because a peer does not take them: of sessions and of plain requests",
);
pub(super) const BACKPRESSURE_PAUSES: Metric = counter(
    "backpressure_pauses",
    &[DIRECTION],
    "Times that a session stopped reading from one peer because the other did not read what was sent to it",
);
pub(super) const UPSTREAM_CONNECT_DURATION: Metric = histogram(
    "upstream_connect_duration_seconds",
    &[],
    "Connects to apps that succeeded, name resolution and TLS included",
);
pub(super) const UPSTREAM_CONNECT_ERRORS: Metric =
    counter("upstream_connect_errors", &[closed("reason", DIAL_FAILURES)], "Connects to apps that failed");
pub(super) const UPSTREAM_ERRORS: Metric = counter(
    "upstream_errors",
    &[closed("reason", UPSTREAM_FAILURES)],
    "Requests and upgrades that got no valid answer from an app, failed connects included",
);
pub(super) const UPSTREAM_RTT: Metric = histogram(
    "upstream_rtt_seconds",
    &[ROUTE],
    "Round trips from a ping of the proxy to an app, on a session of the route, to the pong",
);
pub(super) const UPSTREAM_RESPONSE_DURATION: Metric = histogram(
    "upstream_response_duration_seconds",
    &[ROUTE],
    "From the hand-over of a plain HTTP request to the app's side to the head of the app's response",
);
pub(super) const UPSTREAM_MISSED: Metric =
    counter("upstream_missed", &[], "Probes of an app's own liveness that went unanswered");
pub(super) const CONFIG_LAST_RELOAD_SUCCESSFUL: Metric =
    gauge("config_last_reload_successful", &[], "Whether the last attempt to load the configuration succeeded: 1 or 0");
pub(super) const CONFIG_LAST_RELOAD_SUCCESS: Metric = gauge(
    "config_last_reload_success_timestamp_seconds",
    &[],
    "When the configuration was last loaded with success, at the start or later",
);
pub(super) const CONFIG_RELOADS: Metric =
    counter("config_reloads", &[closed("result", RELOADS)], "Attempts to reload the configuration, by their result");
pub(super) const READY: Metric = gauge("ready", &[], "Whether `/readyz` succeeds: 1 or 0");
pub(super) const DRAINING: Metric = gauge("draining", &[], "Whether a drain has been announced: 1 or 0");

pub(super) const PROCESS_CPU: Metric =
    of_process("process_cpu_seconds", MetricKind::Counter, "Processor time of this process, in user and kernel mode");
pub(super) const PROCESS_MEMORY: Metric =
    of_process("process_resident_memory_bytes", MetricKind::Gauge, "Memory of this process that is in RAM");
pub(super) const PROCESS_VIRTUAL_MEMORY: Metric =
    of_process("process_virtual_memory_bytes", MetricKind::Gauge, "Address space of this process");
pub(super) const PROCESS_THREADS: Metric = of_process("process_threads", MetricKind::Gauge, "Threads of this process");
pub(super) const PROCESS_OPEN_FDS: Metric =
    of_process("process_open_fds", MetricKind::Gauge, "Open file descriptors of this process");
pub(super) const PROCESS_MAX_FDS: Metric =
    of_process("process_max_fds", MetricKind::Gauge, "File descriptors that this process may have open");
pub(super) const PROCESS_START_TIME: Metric =
    of_process("process_start_time_seconds", MetricKind::Gauge, "When this process started");

/// Every metric, in the order of a connection's life.
pub const ALL: &[&Metric] = &[
    &BUILD_INFO,
    &CONNECTIONS_ACTIVE,
    &CONNECTIONS_REFUSED,
    &TLS_HANDSHAKES,
    &TLS_HANDSHAKE_DURATION,
    &TLS_CERTIFICATE_NOT_AFTER,
    &ACME_ORDERS,
    &ACME_NEXT_ORDER,
    &HTTP_REQUESTS,
    &HTTP_REQUEST_DURATION,
    &HTTP2_GOAWAYS,
    &UPGRADES,
    &UPGRADE_REJECTIONS,
    &UPGRADE_DURATION,
    &WEBSOCKETS_ACTIVE,
    &WEBSOCKETS_CLOSED,
    &WEBSOCKET_DURATION,
    &HEARTBEAT_PINGS,
    &HEARTBEAT_PONGS,
    &HEARTBEAT_MISSED,
    &HEARTBEAT_TIMEOUTS,
    &HEARTBEAT_RTT,
    &RECONNECTS,
    &MESSAGES,
    &PAYLOAD_BYTES,
    &BUFFERED_BYTES,
    &BACKPRESSURE_PAUSES,
    &UPSTREAM_CONNECT_DURATION,
    &UPSTREAM_CONNECT_ERRORS,
    &UPSTREAM_ERRORS,
    &UPSTREAM_RESPONSE_DURATION,
    &UPSTREAM_RTT,
    &UPSTREAM_MISSED,
    &CONFIG_LAST_RELOAD_SUCCESSFUL,
    &CONFIG_LAST_RELOAD_SUCCESS,
    &CONFIG_RELOADS,
    &READY,
    &DRAINING,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
    &PROCESS_VIRTUAL_MEMORY,
    &PROCESS_THREADS,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
    &PROCESS_START_TIME,
];

/// Registers `metric`, whose handles the caller keeps, under the name and with the help of its `entry`.
pub(super) fn register(registry: &mut Registry, entry: &Metric, metric: &(impl Registered + Clone)) {
    registry.register(entry.name, entry.help, metric.clone());
}

/// All of them as a Markdown table.
pub fn markdown() -> String {
    let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in ALL {
        let labels: Vec<_> = metric.labels.iter().map(Label::markdown).collect();
        let (name, kind, help) = (metric.full_name(), metric.kind.as_str(), metric.help);
        writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join("; ")).expect("a String takes everything");
    }
    table
}

impl Label {
    fn markdown(&self) -> String {
        match self.values {
            Values::Closed(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                format!("`{}`: {}", self.name, words.join(" "))
            }
            Values::Configured(what) => format!("`{}`: {what}", self.name),
        }
    }
}
