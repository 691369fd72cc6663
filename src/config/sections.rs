//! The sections of the configuration, and the keys of the heartbeat and of routes.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::acme;
use super::codec::{self, AutoOr, BOOLEAN, Codec, DURATION, OneOf, SHARE, Scalar};
use super::descriptions::Descriptions;
use super::forwarded::Forwarded;
use super::heartbeat_mode::{HeartbeatMode, read_mode, visit_mode};
use super::host::HostPattern;
use super::json_schema::{DIALECT, SchemaTable};
use super::listener;
use super::operations;
use super::origins::OriginPolicy;
use super::parse::{Given, Problem, Read, Words, one_of, or_table, whole};
use super::parse_names::HOST;
use super::reader::{KeyValue, Table};
use super::schema::{Visitor, decode};
use super::settings::{
    Admin, Drain, EdgeLimits, Listen, Log, Route, SessionLimits, Settings, TlsMode, TlsSettings, UpstreamSettings,
    UpstreamTarget,
};
use super::tls_files::TlsFault;
use super::upstream::{self, AppReader};
use super::value_types::{CLOSE_CODE, CLOSE_REASON, PREFIX};
use crate::heartbeat::{ClientPing, CloseSpec, Heartbeat, Liveness, OnMiss, Policy, UpstreamEnd};

const LIVENESS: Words<Liveness> =
    &[("any_bytes", Liveness::AnyBytes), ("any_frame", Liveness::AnyFrame), ("pong_only", Liveness::PongOnly)];
const CLIENT_PING: Words<ClientPing> = &[("forward", ClientPing::Forward), ("answer", ClientPing::Answer)];
const DISCONNECT: Words<()> = &[("disconnect", ())];

/// The settings of every session that its route may override.
#[derive(Debug)]
struct Common {
    /// The kind of heartbeat.
    mode: HeartbeatMode,
    /// Its settings.
    policy: Policy,
    /// Both together.
    heartbeat: Heartbeat,
    limits: SessionLimits,
    origins: Arc<OriginPolicy>,
}

/// The values of all sections.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    pub(super) settings: Settings,
    /// The settings of every path for which there is no other route.
    pub(super) common: Arc<Route>,
    /// The other routes as they were written, table by table.
    pub(super) written: Vec<Arc<Route>>,
}

/// The sections in the order of the documented file, each with the function that visits its keys.
pub(super) const SECTIONS: [(&str, VisitSection); 11] = [
    ("listen", |v, all| listener::visit_listen(v, &mut all.settings.listen)),
    ("tls", |v, all| listener::visit_tls(v, &mut all.settings.tls)),
    ("upstream", |v, all| upstream::visit_upstream(v, Arc::make_mut(&mut all.settings.upstream))),
    ("heartbeat", |v, all| visit_heartbeat(v, &all.common.heartbeat)),
    ("limits", |v, all| {
        listener::visit_limits(v, &mut all.settings.limits);
        listener::visit_session_limits(v, &mut Arc::make_mut(&mut all.common).limits);
    }),
    ("origins", |v, all| listener::visit_origins(v, &mut Arc::make_mut(&mut all.common).origins)),
    ("forwarded", |v, all| listener::visit_forwarded(v, &mut all.settings.forwarded)),
    ("drain", |v, all| operations::visit_drain(v, &mut all.settings.drain)),
    ("admin", |v, all| operations::visit_admin(v, &mut all.settings.admin)),
    ("log", |v, all| operations::visit_log(v, &mut all.settings.log)),
    ("otel", |v, all| operations::visit_otel(v, &mut all.settings.otel)),
];

/// A function that visits the keys of one section.
pub(super) type VisitSection = fn(&mut Visitor<'_>, &mut Sections);

/// The number of pings in a row that may go unanswered.
const MAX_MISSED: Scalar<u32> =
    Scalar { decode: max_missed, encode: |missed| i64::from(*missed).into(), schema: || codec::whole_schema(1, 1000) };

/// Visits `[heartbeat]`, or that of a route, for a listing or a description.
pub(super) fn visit_heartbeat(v: &mut Visitor<'_>, heartbeat: &Heartbeat) {
    visit_mode(v, heartbeat);
    visit_policy(v, &mut Policy::clone(heartbeat.policy()));
}

/// Visits the keys of a heartbeat but `mode` and `profile`.
fn visit_policy(v: &mut Visitor<'_>, policy: &mut Policy) {
    v.key("window", &AutoOr(DURATION), &mut policy.window);
    v.key("interval", &DURATION, &mut policy.interval);
    v.key("timeout", &DURATION, &mut policy.timeout);
    v.key("max_missed", &MAX_MISSED, &mut policy.max_missed);
    v.key("jitter", &SHARE, &mut policy.jitter);
    v.key("liveness", &OneOf(LIVENESS), &mut policy.liveness);
    v.key("probe_when_busy", &DURATION, &mut policy.probe_when_busy);
    v.key("write_stall", &DURATION, &mut policy.write_stall);
    v.key("max_deferral", &DURATION, &mut policy.max_deferral);
    v.key("frame_max_time", &DURATION, &mut policy.frame_max_time);
    v.key("adaptive", &BOOLEAN, &mut policy.adaptive);
    v.key("stall_guard", &DURATION, &mut policy.stall_guard);
    v.key("client_ping", &OneOf(CLIENT_PING), &mut policy.client_ping);
    visit_on_miss(&mut v.table("on_miss"), &mut policy.on_miss);
    v.describe("on_miss", "the end of a session whose client has missed its heartbeat");
    v.key("close_grace", &DURATION, &mut policy.close_grace);
}

/// Visits `on_miss`. The app gets a Close, or `"disconnect"` without one.
fn visit_on_miss(v: &mut Visitor<'_>, on_miss: &mut OnMiss) {
    const KEY: &str = "upstream";
    visit_close(&mut v.table("client"), &mut on_miss.client);
    match v {
        Visitor::Read(table) => on_miss.upstream = upstream_end(table, &on_miss.upstream),
        Visitor::List(table) => match &mut on_miss.upstream {
            UpstreamEnd::Disconnect => table.set(KEY, OneOf(DISCONNECT).encode(&())),
            UpstreamEnd::Close(close) => visit_close(&mut Visitor::List(table.under(KEY)), close),
        },
        Visitor::Describe(table) => {
            table.table_or(KEY, &OneOf(DISCONNECT).schema(), None, |t| {
                if let UpstreamEnd::Close(close) = &mut on_miss.upstream {
                    visit_close(&mut Visitor::Describe(t), close);
                }
            });
        }
        Visitor::Record(_) | Visitor::Restore(_) => {}
    }
}

/// Visits a Close.
fn visit_close(v: &mut Visitor<'_>, close: &mut CloseSpec) {
    v.key("code", &CLOSE_CODE, &mut close.code);
    v.key("reason", &CLOSE_REASON, &mut close.reason);
    v.describe("code", "the status code of the Close (RFC 6455 §7.4)");
    v.describe("reason", "the reason in the Close, at most 123 bytes");
}

/// Visits `[[route]]`, for a listing or a description.
pub(super) fn visit_route(v: &mut Visitor<'_>, route: &mut Route) {
    visit_request_match(&mut v.alone_if(true), &mut route.path, &mut route.host);
    match v {
        Visitor::Describe(table) => upstream::describe_of_route(table),
        _ => upstream::visit_upstream(&mut v.table("upstream"), Arc::make_mut(&mut route.upstream)),
    }
    visit_heartbeat(&mut v.table("heartbeat"), &route.heartbeat);
    listener::visit_session_limits(&mut v.table("limits"), &mut route.limits);
    listener::visit_origins(&mut v.table("origins"), &mut route.origins);
}

/// Visits the keys that say which requests a route is for. Returns whether they can be used.
fn visit_request_match(v: &mut Visitor<'_>, path: &mut Box<str>, host: &mut Option<HostPattern>) -> bool {
    let has_path = v.required("path", &PREFIX, "the prefix of the paths that the route is for", path);
    match v {
        Visitor::Read(table) => match table.entry("host", decode(&HOST)).optional() {
            Ok(read) => *host = read,
            Err(_) => return false,
        },
        Visitor::List(_) if host.is_none() => {}
        _ => v.optional("host", &HOST, host),
    }
    v.describe(
        "host",
        "the host that the route is for, or \"*.\" and a domain for every name below it; any host unless set",
    );
    has_path
}

/// Returns the JSON Schema (draft 2020-12) of a configuration file.
///
/// Required keys are required in lists of tables alone: elsewhere the environment or a flag may set them.
pub(super) fn json_schema() -> Json {
    let upstream = Arc::new(UpstreamSettings::at(UpstreamTarget::Unix(PathBuf::new())));
    let route = Route::to(Arc::clone(&upstream));
    let settings = Settings {
        listen: Listen::default(),
        tls: TlsSettings::of("", "").into(),
        upstream,
        routes: Vec::new(),
        limits: EdgeLimits::default(),
        forwarded: Forwarded::default(),
        drain: Drain::default(),
        admin: Admin::default(),
        log: Log::default(),
        otel: None,
    };
    let mut defaults = Sections { settings, common: Arc::new(route.clone()), written: Vec::new() };
    let texts = Descriptions::read();
    let mut schema = Json::Null;
    let mut root = SchemaTable::new(&mut schema, &texts, "", false);
    for (name, visit) in SECTIONS {
        visit(&mut Visitor::Describe(root.table(name)), &mut defaults);
    }
    root.tables("route", |table| visit_route(&mut Visitor::Describe(table), &mut route.clone()));
    schema["$schema"] = DIALECT.into();
    schema["title"] = json!("pulsegate configuration");
    schema
}

/// Reads every section. `None` where something required is missing; values that do not fit are reported by the reader,
/// and their defaults stand in for them.
pub(super) fn read(
    root: &Table<'_>,
    certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>,
    app: impl Fn(&UpstreamSettings) -> Vec<TlsFault>,
) -> Option<Sections> {
    let listen_table = root.table("listen");
    let listen = listener::listen(root);
    let tls = listener::tls(&root.table("tls"), certificates);
    let (mut apps, is_known) = AppReader::read(&root.table("upstream"), &app);
    let table = root.table("heartbeat");
    let mode = read_mode(&table, &HeartbeatMode::Protocol);
    let policy = policy(&table, &Policy::default());
    let heartbeat = mode.heartbeat(&policy);
    let table = root.table("limits");
    let limits = listener::limits(&table);
    let session = listener::session_limits(&table, SessionLimits::default());
    let origins = listener::origins(&root.table("origins"), &Arc::default());
    let common = Common { mode, policy, heartbeat, limits: session, origins };
    let forwarded = listener::forwarded(&root.table("forwarded"));
    let drain = operations::drain(&root.table("drain"));
    let admin = operations::admin(&root.table("admin"), &listen_table, &listen);
    if tls == Some(TlsMode::Off) {
        listener::check_without_tls(root, &listen, &forwarded, &limits);
        operations::check_without_tls(&root.table("admin"), &admin);
    }
    if let Some(tls) = &tls {
        acme::check(root, &listen, tls);
    }
    let log = operations::log(&root.table("log"));
    let otel = operations::otel(&root.table("otel"));
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

/// Reads the settings of a heartbeat over those of `base`.
fn policy(t: &Table<'_>, base: &Policy) -> Policy {
    let mut policy = base.clone();
    visit_policy(&mut Visitor::Read(t.clone()), &mut policy);
    policy
}

fn max_missed(given: &Given<'_>) -> Read<u32> {
    whole(1..=1000)(given).map_err(|problem| match given.integer() {
        Some(0) => problem.with_help("write 1 to end a session at its first miss, or mode = \"off\" for no heartbeat"),
        _ => problem,
    })
}

/// Reads the end of the app's side, which was `base` so far.
fn upstream_end(t: &Table<'_>, base: &UpstreamEnd) -> UpstreamEnd {
    let table = match t.table_or("upstream", or_table(one_of(DISCONNECT))) {
        Ok(table) => table,
        Err(KeyValue::Unset) => t.table("upstream"),
        Err(KeyValue::Is(()) | KeyValue::Refused) => return UpstreamEnd::Disconnect,
    };
    // A route that names one key of a Close turns a global "disconnect" back into the default Close.
    let mut end = match base {
        UpstreamEnd::Disconnect if table.is_set() => OnMiss::default().upstream,
        base => base.clone(),
    };
    if let UpstreamEnd::Close(close) = &mut end {
        visit_close(&mut Visitor::Read(table), close);
    }
    end
}

/// Reads the routes as they are written.
fn routes(tables: &[Table<'_>], common: &Common, apps: &mut AppReader<'_>) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = Vec::new();
    for t in tables {
        let (mut path, mut host) = (Box::default(), None);
        let is_usable = visit_request_match(&mut Visitor::Read(t.clone()), &mut path, &mut host);
        let upstream = apps.of_route(t);
        let heartbeat = heartbeat(&t.table("heartbeat"), common);
        let limits = listener::session_limits(&t.table("limits"), common.limits);
        let origins = listener::origins(&t.table("origins"), &common.origins);
        if !is_usable {
            continue;
        }
        if routes.iter().any(|route| route.path == path && route.host == host) {
            t.refuse(&["path"], Problem::new("is that of an earlier route").with_help("make one route of both"));
        }
        routes.push(Arc::new(Route { path, host, upstream, heartbeat, limits, origins }));
    }
    routes
}

/// Returns the routes in the order in which they are tried; the last one is for everything else.
fn in_order(written: &[Arc<Route>], common: &Arc<Route>) -> Vec<Arc<Route>> {
    let mut routes = written.to_vec();
    if !routes.iter().any(|route| route.path == common.path && route.host.is_none()) {
        routes.push(Arc::clone(common));
    }
    routes.sort_by_key(|route| precedence(route));
    routes
}

/// Returns the precedence of a route, lowest first: one host before a wildcard before any host, then the longer prefix.
fn precedence(route: &Route) -> impl Ord + use<> {
    let host = match &route.host {
        Some(HostPattern::Exact(_)) => (0, Reverse(0)),
        Some(HostPattern::Subdomains(suffix)) => (1, Reverse(suffix.len())),
        None => (2, Reverse(0)),
    };
    (host, Reverse(route.path.len()))
}

/// Reads the heartbeat of a route over the common one, which is shared where the route changes nothing.
fn heartbeat(t: &Table<'_>, common: &Common) -> Heartbeat {
    let own = read_mode(t, &common.mode).heartbeat(&policy(t, &common.policy));
    if own == common.heartbeat { common.heartbeat.clone() } else { own }
}
