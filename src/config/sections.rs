//! The sections of the configuration: every key once, with its form and its default.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::form::{Problem, Words, auto_or, boolean, duration, off_or, one_of, or_table, share, size, whole};
use super::reader::{Entry, Table};
use super::settings::{EdgeLimits, Level, Listen, Log, LogFormat, Route, SessionLimits, Settings, Tls, Upstream};
use super::spoken::{Spoken, spoken};
use super::value::{address, all_cores, close_code, close_reason, file, header_bytes, prefix, upstream, workers};
use crate::heartbeat::{ClientPing, CloseSpec, Heartbeat, Liveness, OnMiss, Policy, UpstreamEnd, UpstreamPolicy};

const LIVENESS: Words<Liveness> =
    &[("any_bytes", Liveness::AnyBytes), ("any_frame", Liveness::AnyFrame), ("pong_only", Liveness::PongOnly)];
const CLIENT_PING: Words<ClientPing> = &[("forward", ClientPing::Forward), ("answer", ClientPing::Answer)];
const DISCONNECT: Words<()> = &[("disconnect", ())];
const LEVELS: Words<Level> = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];
const FORMATS: Words<LogFormat> = &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

/// What the sections say of every session, and its route may say otherwise.
#[derive(Debug)]
struct Common {
    /// Which heartbeat is spoken.
    spoken: Spoken,
    /// Its settings.
    policy: Policy,
    /// Both together.
    heartbeat: Heartbeat,
    limits: SessionLimits,
}

/// Every section. `None` where something required is missing; values that do not fit are reported by the reader,
/// and their defaults stand in for them.
pub(super) fn settings(root: &Table<'_>, certificates: impl Fn(&Tls) -> Result<(), String>) -> Option<Settings> {
    let listen = listen(&root.table("listen"));
    let tls = tls(&root.table("tls"), certificates);
    let upstream = to_app(&root.table("upstream"));
    let table = root.table("heartbeat");
    let spoken = spoken(&table, &Spoken::Protocol);
    let policy = policy(&table, &Policy::default());
    let heartbeat = spoken.heartbeat(&policy);
    let table = root.table("limits");
    let limits = edge(&table);
    let common = Common { spoken, policy, heartbeat, limits: session(&table, SessionLimits::default()) };
    let log = log(&root.table("log"));
    let routes = routes(&root.tables("route"), &common);
    Some(Settings { listen, tls: tls?, upstream: upstream?, routes, limits, log })
}

fn listen(t: &Table<'_>) -> Listen {
    Listen {
        address: t.or("address", address, ([0, 0, 0, 0], 8443).into()),
        workers: t.or("workers", workers, all_cores()),
    }
}

fn tls(t: &Table<'_>, certificates: impl Fn(&Tls) -> Result<(), String>) -> Option<Tls> {
    let certificate = t.required("certificate", file, "the PEM file of the server's certificate chain");
    let private_key = t.required("private_key", file, "the PEM file of the certificate's key");
    let tls = Tls { certificate: certificate?, private_key: private_key? };
    if let Err(error) = certificates(&tls) {
        t.refuse(&["certificate"], Problem::new(format!("and its key cannot be used: {error}")));
    }
    Some(tls)
}

fn to_app(t: &Table<'_>) -> Option<Upstream> {
    let base = UpstreamPolicy::default();
    let target = t.required("url", upstream, "where the app listens");
    let connect_timeout = t.or("connect_timeout", duration, Duration::from_secs(5));
    let response_timeout = t.or("response_timeout", duration, Duration::from_secs(60));
    let heartbeat = UpstreamPolicy {
        interval: t.or("interval", off_or(duration), base.interval),
        timeout: t.or("timeout", duration, base.timeout),
        give_up: t.or("give_up", duration, base.give_up),
    };
    if heartbeat.give_up <= heartbeat.timeout {
        let [give_up, timeout] = [heartbeat.give_up, heartbeat.timeout].map(humantime::format_duration);
        let what = format!("does not fit: give_up ({give_up}) must be longer than timeout ({timeout})");
        t.refuse(&["give_up", "timeout"], Problem::new(what));
    }
    Some(Upstream { target: target?, connect_timeout, response_timeout, heartbeat })
}

/// The settings of a route's heartbeat over those of `base`, whichever is spoken.
fn policy(t: &Table<'_>, base: &Policy) -> Policy {
    Policy {
        mode: base.mode.clone(),
        window: t.or("window", auto_or(duration), base.window),
        interval: t.or("interval", duration, base.interval),
        timeout: t.or("timeout", duration, base.timeout),
        max_missed: t.or("max_missed", whole(1..=1000), base.max_missed),
        jitter: t.or("jitter", share, base.jitter),
        liveness: t.or("liveness", one_of(LIVENESS), base.liveness),
        probe_when_busy: t.or("probe_when_busy", duration, base.probe_when_busy),
        write_stall: t.or("write_stall", duration, base.write_stall),
        max_deferral: t.or("max_deferral", duration, base.max_deferral),
        frame_max_time: t.or("frame_max_time", duration, base.frame_max_time),
        adaptive: t.or("adaptive", boolean, base.adaptive),
        stall_guard: t.or("stall_guard", duration, base.stall_guard),
        client_ping: t.or("client_ping", one_of(CLIENT_PING), base.client_ping),
        on_miss: on_miss(&t.table("on_miss"), &base.on_miss),
        close_grace: t.or("close_grace", duration, base.close_grace),
    }
}

fn on_miss(t: &Table<'_>, base: &OnMiss) -> OnMiss {
    let client = close(&t.table("client"), &base.client);
    let table = match t.table_or("upstream", or_table(one_of(DISCONNECT))) {
        Ok(table) => table,
        Err(Entry::Unset) => t.table("upstream"),
        Err(Entry::Is(()) | Entry::Refused) => return OnMiss { client, upstream: UpstreamEnd::Disconnect },
    };
    // A route that names one key of a Close turns a global "disconnect" back into the default Close.
    let base = match &base.upstream {
        UpstreamEnd::Disconnect if table.is_set() => OnMiss::default().upstream,
        base => base.clone(),
    };
    let upstream = match base {
        UpstreamEnd::Close(base) => UpstreamEnd::Close(close(&table, &base)),
        UpstreamEnd::Disconnect => UpstreamEnd::Disconnect,
    };
    OnMiss { client, upstream }
}

fn close(t: &Table<'_>, base: &CloseSpec) -> CloseSpec {
    CloseSpec { code: t.or("code", close_code, base.code), reason: t.or("reason", close_reason, base.reason.clone()) }
}

fn edge(t: &Table<'_>) -> EdgeLimits {
    let base = EdgeLimits::default();
    EdgeLimits {
        handshake: t.or("handshake", duration, base.handshake),
        header_read: t.or("header_read", duration, base.header_read),
        headers: t.or("headers", whole(1..=4096), base.headers),
        header_bytes: t.or("header_bytes", header_bytes, base.header_bytes),
    }
}

/// The limits of a route's sessions over those of `base`.
fn session(t: &Table<'_>, base: SessionLimits) -> SessionLimits {
    let limits = SessionLimits {
        frame: t.or("frame", off_or(size), base.frame),
        message: t.or("message", off_or(size), base.message),
    };
    if let (Some(frame), Some(message)) = (limits.frame, limits.message)
        && frame > message
    {
        let what = format!("does not fit: a frame ({frame} bytes) may not be larger than a message ({message} bytes)");
        t.refuse(&["frame", "message"], Problem::new(what));
    }
    limits
}

fn log(t: &Table<'_>) -> Log {
    let base = Log::default();
    Log { level: t.or("level", one_of(LEVELS), base.level), format: t.or("format", one_of(FORMATS), base.format) }
}

/// The routes, longest prefix first, and behind them the one for everything else.
fn routes(tables: &[Table<'_>], common: &Common) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = Vec::new();
    for t in tables {
        let path = t.required("path", prefix, "the prefix of the paths that the route is for");
        let heartbeat = heartbeat(&t.table("heartbeat"), common);
        let limits = session(&t.table("limits"), common.limits);
        let Some(path) = path else { continue };
        if routes.iter().any(|route| route.path == path) {
            t.refuse(&["path"], Problem::new("is that of an earlier route").with_help("make one route of both"));
        }
        routes.push(Arc::new(Route { path, heartbeat, limits }));
    }
    if routes.iter().all(|route| *route.path != *"/") {
        let heartbeat = common.heartbeat.clone();
        routes.push(Arc::new(Route { path: "/".into(), heartbeat, limits: common.limits }));
    }
    routes.sort_by_key(|route| Reverse(route.path.len()));
    routes
}

/// The heartbeat of a route over the common one, which is shared where the route says nothing else.
fn heartbeat(t: &Table<'_>, common: &Common) -> Heartbeat {
    let own = spoken(t, &common.spoken).heartbeat(&policy(t, &common.policy));
    if own == common.heartbeat { common.heartbeat.clone() } else { own }
}
