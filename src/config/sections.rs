//! The sections of the configuration: every key once, with its form and its default.

use std::cmp::Reverse;
use std::sync::Arc;

use super::app::Apps;
use super::edge;
use super::form::{Given, Problem, Read, Words, auto_or, boolean, duration, one_of, or_table, share, whole};
use super::host::HostPattern;
use super::names::host;
use super::operate;
use super::origins::OriginPolicy;
use super::reader::{Entry, Table};
use super::settings::{Route, SessionLimits, Settings, Tls, TlsMode, Upstream};
use super::spoken::{Spoken, spoken};
use super::tls_files::TlsFault;
use super::value::{close_code, close_reason, prefix};
use crate::heartbeat::{ClientPing, CloseSpec, Heartbeat, Liveness, OnMiss, Policy, UpstreamEnd};

pub(super) const LIVENESS: Words<Liveness> =
    &[("any_bytes", Liveness::AnyBytes), ("any_frame", Liveness::AnyFrame), ("pong_only", Liveness::PongOnly)];
pub(super) const CLIENT_PING: Words<ClientPing> = &[("forward", ClientPing::Forward), ("answer", ClientPing::Answer)];
const DISCONNECT: Words<()> = &[("disconnect", ())];

/// What the sections say of every session, and its route may say otherwise.
#[derive(Debug)]
struct Common {
    /// The kind of heartbeat.
    spoken: Spoken,
    /// Its settings.
    policy: Policy,
    /// Both together.
    heartbeat: Heartbeat,
    limits: SessionLimits,
    origins: Arc<OriginPolicy>,
}

/// What all sections come to.
#[derive(Debug)]
pub(super) struct Sections {
    pub(super) settings: Settings,
    /// What the sections say of every path: the route of those for which there is no other.
    pub(super) common: Arc<Route>,
    /// The other routes as they were written, table by table.
    pub(super) written: Vec<Arc<Route>>,
}

/// Every section. `None` where something required is missing; values that do not fit are reported by the reader,
/// and their defaults stand in for them.
pub(super) fn read(
    root: &Table<'_>,
    certificates: impl Fn(&Tls) -> Vec<TlsFault>,
    app: impl Fn(&Upstream) -> Vec<TlsFault>,
) -> Option<Sections> {
    let listen_table = root.table("listen");
    let listen = edge::listen(&listen_table);
    let tls = edge::tls(&root.table("tls"), certificates);
    let (mut apps, is_known) = Apps::read(&root.table("upstream"), &app);
    let table = root.table("heartbeat");
    let spoken = spoken(&table, &Spoken::Protocol);
    let policy = policy(&table, &Policy::default());
    let heartbeat = spoken.heartbeat(&policy);
    let table = root.table("limits");
    let limits = edge::limits(&table);
    let session = edge::session_limits(&table, SessionLimits::default());
    let origins = edge::origins(&root.table("origins"), &Arc::default());
    let common = Common { spoken, policy, heartbeat, limits: session, origins };
    let forwarded = edge::forwarded(&root.table("forwarded"));
    let drain = operate::drain(&root.table("drain"));
    let admin = operate::admin(&root.table("admin"), &listen_table, &listen);
    if tls == Some(TlsMode::Off) {
        edge::beside_no_tls(root, &listen, &forwarded, &limits);
        operate::beside_no_tls(&root.table("admin"), &admin);
    }
    let log = operate::log(&root.table("log"));
    let otel = operate::otel(&root.table("otel"));
    let written = routes(&root.tables("route"), &common, &mut apps);
    let upstream = is_known.then(|| Arc::clone(apps.default()))?;
    let common = Arc::new(Route {
        heartbeat: common.heartbeat,
        limits: common.limits,
        origins: common.origins,
        ..Route::to(Arc::clone(&upstream))
    });
    let routes = in_order(&written, &common);
    let settings = Settings { listen, tls: tls?, upstream, routes, limits, forwarded, drain, admin, log, otel };
    Some(Sections { settings, common, written })
}

/// The settings of a route's heartbeat over those of `base`, whichever is spoken.
fn policy(t: &Table<'_>, base: &Policy) -> Policy {
    Policy {
        mode: base.mode.clone(),
        window: t.or("window", auto_or(duration), base.window),
        interval: t.or("interval", duration, base.interval),
        timeout: t.or("timeout", duration, base.timeout),
        max_missed: t.or("max_missed", max_missed, base.max_missed),
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

fn max_missed(given: &Given<'_>) -> Read<u32> {
    whole(1..=1000)(given).map_err(|problem| match given.integer() {
        Some(0) => problem.with_help("write 1 to end a session at its first miss, or mode = \"off\" for no heartbeat"),
        _ => problem,
    })
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

/// The routes as they are written.
fn routes(tables: &[Table<'_>], common: &Common, apps: &mut Apps<'_>) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = Vec::new();
    for t in tables {
        let path = t.required("path", prefix, "the prefix of the paths that the route is for");
        let host = t.entry("host", host).optional();
        let upstream = apps.of_route(t);
        let heartbeat = heartbeat(&t.table("heartbeat"), common);
        let limits = edge::session_limits(&t.table("limits"), common.limits);
        let origins = edge::origins(&t.table("origins"), &common.origins);
        let (Some(path), Ok(host)) = (path, host) else { continue };
        if routes.iter().any(|route| route.path == path && route.host == host) {
            t.refuse(&["path"], Problem::new("is that of an earlier route").with_help("make one route of both"));
        }
        routes.push(Arc::new(Route { path, host, upstream, heartbeat, limits, origins }));
    }
    routes
}

/// The routes in the order in which they are tried, and behind them the one for everything else.
fn in_order(written: &[Arc<Route>], common: &Arc<Route>) -> Vec<Arc<Route>> {
    let mut routes = written.to_vec();
    if !routes.iter().any(|route| route.path == common.path && route.host.is_none()) {
        routes.push(Arc::clone(common));
    }
    routes.sort_by_key(|route| precedence(route));
    routes
}

/// Less for what is tried earlier: one host before many before all, then the longer prefix.
fn precedence(route: &Route) -> impl Ord + use<> {
    let host = match &route.host {
        Some(HostPattern::Exact(_)) => (0, Reverse(0)),
        Some(HostPattern::Subdomains(suffix)) => (1, Reverse(suffix.len())),
        None => (2, Reverse(0)),
    };
    (host, Reverse(route.path.len()))
}

/// The heartbeat of a route over the common one, which is shared where the route says nothing else.
fn heartbeat(t: &Table<'_>, common: &Common) -> Heartbeat {
    let own = spoken(t, &common.spoken).heartbeat(&policy(t, &common.policy));
    if own == common.heartbeat { common.heartbeat.clone() } else { own }
}
