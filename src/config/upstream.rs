//! The app: where it listens, how it is reached, and the apps of single routes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use figment::value::Value;
use http::Uri;
use http::uri::PathAndQuery;
use serde_json::json;

use super::codec::{self, AtLeast, Codec, DURATION, OffOr, OneOf, Scalar, display};
use super::json_schema::SchemaTable;
use super::listing::ListedTable;
use super::parse::{Given, Problem, Read, Words, or_table};
use super::parse_names::{SERVER_NAME, SOURCE_ADDRESS};
use super::pin::Pin;
use super::reader::{KeyValue, Table};
use super::report::Location;
use super::schema::{Visitor, decode};
use super::settings::{UpstreamProbe, UpstreamSettings, UpstreamTarget, UpstreamTls};
use super::tls_files::{self, TlsFault};
use super::value_types::{FILE, port_help, socket_path};
use crate::heartbeat::UpstreamPolicy;

/// The shortest `interval` and `timeout`: below that a healthy app and a busy machine look alike.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The shortest `give_up`: a healthy app may pause for hundreds of milliseconds.
const SHORTEST_GIVE_UP: Duration = Duration::from_secs(1);

/// The versions of the PROXY protocol that are written.
const PROXY_PROTOCOL: Words<bool> = &[("off", false), ("v2", true)];

/// The place of an app: a host and port with or without TLS, or a unix socket.
#[derive(Clone, Debug, PartialEq)]
struct Url {
    target: UpstreamTarget,
    /// Set for https, with nothing in it.
    tls: Option<UpstreamTls>,
}

/// The URL of an app.
const URL: Scalar<Url> = Scalar {
    decode: url,
    encode: |Url { target, tls }| match target {
        UpstreamTarget::Unix(socket) => format!("unix:{}", codec::absolute(socket)).into(),
        UpstreamTarget::Tcp { .. } if tls.is_some() => format!("https://{target}").into(),
        UpstreamTarget::Tcp { .. } => format!("http://{target}").into(),
    },
    schema: || codec::pattern("^(?:https?://[^/?#@\\s]+/?|unix:.+)$"),
};

/// The request of the health check.
const PROBE: Scalar<UpstreamProbe> =
    Scalar { decode: probe, encode: display, schema: || codec::pattern("^(?:auto|off|/\\S*)$") };

/// The keys that the app's certificate may have: one pin, or a list of them.
const PINS: Scalar<Vec<Pin>> = Scalar {
    decode: pins,
    encode: |pins| pins.iter().map(ToString::to_string).collect(),
    schema: || {
        let pin = codec::pattern("^sha256/[0-9A-Za-z+/]{43}=$");
        json!({ "anyOf": [pin, { "type": "array", "items": pin, "minItems": 1 }] })
    },
};

/// All apps, each once.
pub(super) struct AppReader<'a> {
    all: Vec<Arc<UpstreamSettings>>,
    /// Returns the faults of an app's TLS files.
    usable: &'a dyn Fn(&UpstreamSettings) -> Vec<TlsFault>,
}

impl<'a> AppReader<'a> {
    /// Reads the app of the section `t`. Also returns whether its URL can be used. The TLS files of all apps are
    /// checked by `usable`.
    pub(super) fn read(t: &Table<'_>, usable: &'a dyn Fn(&UpstreamSettings) -> Vec<TlsFault>) -> (Self, bool) {
        let url = t.required("url", decode(&URL), "where the app listens");
        let known = url.is_some();
        // Settings with a refused URL are never returned.
        let base = UpstreamSettings::at(UpstreamTarget::Unix(PathBuf::new()));
        let mut apps = Self { all: Vec::new(), usable };
        apps.enter(upstream(t, url, &base), t, &["tls", "url"]);
        (apps, known)
    }

    /// Returns the app of every route without one of its own.
    pub(super) fn default(&self) -> &Arc<UpstreamSettings> {
        &self.all[0]
    }

    /// Reads the app of a route: its `upstream` is a URL or a table, laid over the section.
    pub(super) fn of_route(&mut self, route: &Table<'_>) -> Arc<UpstreamSettings> {
        let base = self.default();
        match route.table_or("upstream", or_table(url)) {
            Ok(t) => {
                let own = upstream(&t, t.entry("url", decode(&URL)).optional().ok().flatten(), base);
                self.enter(own, &t, &["tls", "url"])
            }
            Err(KeyValue::Is(url)) => {
                let own = url.over(base);
                self.enter(own, route, &["upstream"])
            }
            Err(KeyValue::Unset | KeyValue::Refused) => Arc::clone(base),
        }
    }

    /// Returns the known app that equals `app`, or adds it. It is set in `t`, by the first of `keys` that is set.
    fn enter(&mut self, app: UpstreamSettings, t: &Table<'_>, keys: &[&str]) -> Arc<UpstreamSettings> {
        if let Some(known) = self.all.iter().find(|known| ***known == app) {
            return Arc::clone(known);
        }
        if app.tls.is_some() {
            tls_files::report_app(t, keys, &app, (self.usable)(&app));
        }
        let app = Arc::new(app);
        self.all.push(Arc::clone(&app));
        app
    }
}

impl Url {
    /// Returns an app at this URL with the timing of `base`, whose TLS, PROXY header and source addresses do not apply
    /// here.
    fn over(self, base: &UpstreamSettings) -> UpstreamSettings {
        let Self { target, tls } = self;
        UpstreamSettings { target, tls, proxy_protocol: false, source_addresses: Vec::new(), ..base.clone() }
    }
}

/// Visits the keys of an app, of `[upstream]` or of a route.
pub(super) fn visit_upstream(v: &mut Visitor<'_>, app: &mut UpstreamSettings) {
    let has_own_url = visit_url(v, app);
    let described = matches!(v, Visitor::Describe(_)).then(UpstreamTls::default);
    if let Some(mut tls) = app.tls.clone().or(described) {
        // The TLS of an app belongs to its URL, and is not inherited without it.
        visit_app_tls(&mut v.alone_if(has_own_url).table("tls"), &mut tls);
    }
    visit_exchange(v, app, has_own_url);
}

/// Visits the keys of an app behind its URL and its TLS. Some of them belong to the URL, and are not inherited without
/// it.
fn visit_exchange(v: &mut Visitor<'_>, app: &mut UpstreamSettings, has_own_url: bool) {
    v.key("connect_timeout", &DURATION, &mut app.connect_timeout);
    v.key("response_timeout", &DURATION, &mut app.response_timeout);
    let mut own = v.alone_if(has_own_url);
    own.key("proxy_protocol", &OneOf(PROXY_PROTOCOL), &mut app.proxy_protocol);
    own.list("source_addresses", &SOURCE_ADDRESS, &mut app.source_addresses);
    v.key("interval", &OffOr(AtLeast(SHORTEST_WAIT)), &mut app.heartbeat.interval);
    v.key("timeout", &AtLeast(SHORTEST_WAIT), &mut app.heartbeat.timeout);
    v.key("give_up", &AtLeast(SHORTEST_GIVE_UP), &mut app.heartbeat.give_up);
    v.key("probe", &PROBE, &mut app.probe);
}

/// Visits the URL of `app`; it is read before, since other keys depend on it. Returns whether the table at hand has one.
fn visit_url(v: &mut Visitor<'_>, app: &UpstreamSettings) -> bool {
    match v {
        Visitor::List(table) => {
            let url = URL.encode(&Url { target: app.target.clone(), tls: app.tls.clone() });
            match own_url(table) {
                Some(place) => {
                    table.set_at("url", url, Some(place));
                    return true;
                }
                None => table.set("url", url),
            }
        }
        Visitor::Describe(table) => table.key("url", URL.schema(), None),
        Visitor::Read(_) | Visitor::Record(_) | Visitor::Restore(_) => {}
    }
    false
}

/// Returns where the table itself sets a URL: with a key, or as the URL that stands in its place.
fn own_url(table: &ListedTable<'_>) -> Option<Location> {
    let home = &table.homes[0];
    match table.layers.value(home)? {
        Value::Dict(..) => table.layers.origin(&home.key("url")),
        _ => table.layers.origin(home),
    }
}

/// Visits the table `tls` of an app.
fn visit_app_tls(v: &mut Visitor<'_>, tls: &mut UpstreamTls) {
    v.optional("ca", &FILE, &mut tls.ca);
    // A route may leave it out, whether its TLS is inherited or its own.
    let is_left_out = matches!(v, Visitor::List(table) if table.homes[0].in_list());
    if !is_left_out || !tls.pins.is_empty() {
        let mut pins = (!tls.pins.is_empty()).then(|| tls.pins.clone());
        v.optional("pin", &PINS, &mut pins);
        tls.pins = pins.unwrap_or_default();
    }
    if let Visitor::Read(table) = v {
        tls.identity = identity(table, tls.identity.take());
    } else {
        let (mut certificate, mut private_key) = tls.identity.clone().unzip();
        v.optional("certificate", &FILE, &mut certificate);
        v.optional("private_key", &FILE, &mut private_key);
    }
    v.optional("server_name", &SERVER_NAME, &mut tls.server_name);
    v.describe("ca", "the PEM file of the authorities that may have signed the app's certificate");
    v.describe("pin", "the keys that the app's certificate may have, in the place of authorities");
    v.describe(
        "certificate",
        "the PEM file of the certificate chain that the proxy presents when the app requests one",
    );
    v.describe("private_key", "the PEM file of the certificate's key");
    v.describe("server_name", "the name that the app's certificate must have; the host of the url unless set");
}

/// Reads the app that the table `t` describes, over `base`; `url` is the one in it.
fn upstream(t: &Table<'_>, url: Option<Url>, base: &UpstreamSettings) -> UpstreamSettings {
    let mut app = url.map_or_else(|| base.clone(), |url| url.over(base));
    let tls = tls(&t.table("tls"), app.tls.as_ref());
    if app.tls.is_none() && tls.is_some() {
        let problem = Problem::new(format!("is for an app that is reached by https; this is {app}"));
        t.refuse(&["tls", "url"], problem.with_help("write url = \"https://…\", or leave out `tls`"));
    }
    app.tls = app.tls.map(|base| tls.unwrap_or(base));
    visit_exchange(&mut Visitor::Read(t.clone()), &mut app, false);
    if let Some(problem) = out_of_reach(&app.target, &app.source_addresses) {
        t.refuse(&["source_addresses", "url"], problem);
    }
    if let UpstreamPolicy { interval: Some(interval), timeout, give_up } = app.heartbeat
        && give_up < interval + timeout
    {
        let [give_up, bound] = [give_up, interval + timeout].map(humantime::format_duration);
        let what = format!("does not fit: give_up ({give_up}) must be at least interval + timeout ({bound})");
        let help =
            format!("set give_up = \"{}\" or more, or shorten the other two", bound.to_string().replace(' ', ""));
        t.refuse(&["give_up", "timeout", "interval"], Problem::new(what).with_help(help));
    }
    app
}

/// Reads the table `t` key by key over `base`; `None` where it is not set.
fn tls(t: &Table<'_>, base: Option<&UpstreamTls>) -> Option<UpstreamTls> {
    if !t.is_set() {
        return None;
    }
    let mut tls = base.cloned().unwrap_or_default();
    visit_app_tls(&mut Visitor::Read(t.clone()), &mut tls);
    if t.sets("pin") && t.sets("ca") {
        let problem = Problem::new("does not go together with `ca`: the signer of a pinned key is not checked");
        t.refuse(&["pin"], problem.with_help("leave out one of the two"));
    }
    Some(tls)
}

/// Reads the certificate and the key that the proxy shows to the app, over `base`: both, or none.
fn identity(t: &Table<'_>, base: Option<(PathBuf, PathBuf)>) -> Option<(PathBuf, PathBuf)> {
    match (t.entry("certificate", decode(&FILE)), t.entry("private_key", decode(&FILE))) {
        (KeyValue::Is(certificate), KeyValue::Is(private_key)) => Some((certificate, private_key)),
        (KeyValue::Is(_), KeyValue::Unset) => {
            t.required("private_key", decode(&FILE), "the PEM file of the certificate's key").and(None)
        }
        (KeyValue::Unset, KeyValue::Is(_)) => {
            t.required("certificate", decode(&FILE), "the PEM file of the certificate that the key is for").and(None)
        }
        (KeyValue::Unset, KeyValue::Unset) => base,
        (KeyValue::Refused, _) | (_, KeyValue::Refused) => None,
    }
}

/// Describes the app of a route: a URL, or a table with the keys of `[upstream]`.
pub(super) fn describe_of_route(route: &mut SchemaTable<'_>) {
    let mut app = UpstreamSettings::at(UpstreamTarget::Unix(PathBuf::new()));
    route.table_or("upstream", &URL.schema(), None, |table| visit_upstream(&mut Visitor::Describe(table), &mut app));
    route.describe("upstream", "the app of the route: its URL, or a table with any key of [upstream]");
}

/// Returns the reason why `target` cannot be reached from `sources`, if there is one.
fn out_of_reach(target: &UpstreamTarget, sources: &[IpAddr]) -> Option<Problem> {
    let host = match target {
        _ if sources.is_empty() => return None,
        UpstreamTarget::Unix(_) => {
            let problem = Problem::new("is for TCP: a unix socket has no addresses");
            return Some(problem.with_help("leave it out"));
        }
        UpstreamTarget::Tcp { host, .. } => host,
    };
    // A name is resolved when it is dialled.
    let host: IpAddr = host.parse().ok()?;
    let mismatch = sources.iter().find(|source| source.is_ipv4() != host.is_ipv4())?;
    Some(Problem::new(format!("does not fit: no connection is possible from {mismatch} to {host}")))
}

/// Reads the request of the health check.
fn probe(given: &Given<'_>) -> Read<UpstreamProbe> {
    let misfit = || Problem::new("must be \"auto\", a path such as \"/healthz\", or \"off\"");
    match given.text().ok_or_else(misfit)? {
        "auto" => Ok(UpstreamProbe::Auto),
        "off" => Ok(UpstreamProbe::Off),
        path if path.starts_with('/') => match path.parse::<PathAndQuery>() {
            Ok(parsed) if parsed.as_str() == path => Ok(UpstreamProbe::Path(path.into())),
            _ => {
                Err(misfit().with_help("other letters than those of a URL must be percent-encoded, without a fragment"))
            }
        },
        path if path.is_empty() || path.contains("://") => Err(misfit()),
        path => Err(misfit().with_help(format!("write \"/{path}\""))),
    }
}

/// Reads one pin, or a list of them.
fn pins(given: &Given<'_>) -> Read<Vec<Pin>> {
    const HEXADECIMAL: usize = 64;
    let misfit = || Problem::new("must be \"sha256/\" and the Base64 of a hash, or a list of such pins");
    let pin = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        Pin::parse(text).ok_or_else(|| match text.strip_prefix("sha256//") {
            Some(hash) => misfit().with_help(format!("write \"sha256/{hash}\"")),
            None if text.len() == HEXADECIMAL => misfit().with_help("this is the hash in hexadecimal"),
            None => misfit().with_help("`pulsegate check --connect` prints the pin of an app"),
        })
    };
    match given.value {
        Value::Array(_, pins) if pins.is_empty() => Err(Problem::new("must not be empty: no key would be trusted")),
        Value::Array(_, pins) => pins.iter().map(pin).collect(),
        one => Ok(vec![pin(one)?]),
    }
}

/// The remedy for a URL of an app that cannot be guessed.
const URL_HELP: &str = "write where the app listens, as in \"http://127.0.0.1:3000\"";

/// Reads the URL of an app.
fn url(given: &Given<'_>) -> Read<Url> {
    let misfit = || Problem::new("must be \"http://host:port\", \"https://host:port\" or \"unix:/path/to/socket\"");
    let number = given.integer().map(|number| number.to_string());
    let text = given.text().or(number.as_deref()).ok_or_else(|| misfit().with_help(URL_HELP))?;
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Url { target: socket(given, path)?, tls: None });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match text {
            "" => misfit().with_help(URL_HELP),
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let help = port_help(port).unwrap_or_else(|| format!("write \"http://127.0.0.1:{port}\""));
                misfit().with_help(help)
            }
            path if path.starts_with(['/', '.']) => misfit().with_help(format!("write \"unix:{path}\"")),
            host => misfit().with_help(format!("write \"http://{host}\"")),
        });
    };
    let (port, tls) = match scheme {
        "http" => (80, None),
        "https" => (443, Some(UpstreamTls::default())),
        "ws" => return Err(misfit().with_help(format!("write \"http://{rest}\": WebSockets start as HTTP"))),
        "wss" => return Err(misfit().with_help(format!("write \"https://{rest}\": WebSockets start as HTTP"))),
        _ => return Err(misfit().with_help(URL_HELP)),
    };
    if rest.starts_with("unix:") {
        let problem = Problem::new("cannot be a unix socket and have a scheme: TLS is not used on sockets");
        return Err(problem.with_help(format!("write \"{rest}\"")));
    }
    Ok(Url { target: origin(text, scheme, port, misfit)?, tls })
}

/// Reads the host and port of a URL that has nothing else.
fn origin(text: &str, scheme: &str, own_port: u16, misfit: impl Fn() -> Problem) -> Read<UpstreamTarget> {
    let port = text.trim_end_matches('/').rsplit(':').next().unwrap_or_default();
    let misfit = || match port_help(port) {
        Some(help) => misfit().with_help(help),
        None if port == "0" => misfit().with_help("0 is no port that an app listens on"),
        None => misfit().with_help(URL_HELP),
    };
    let uri: Uri = text.parse().map_err(|_| misfit())?;
    let authority = uri.authority().ok_or_else(misfit)?;
    if authority.as_str().contains('@') {
        return Err(misfit().with_help("leave out the user: it is not sent to the app"));
    }
    // The library drops a fragment without a word.
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        let help = format!("write \"{scheme}://{authority}\": every path is passed on unchanged");
        return Err(Problem::new("must not have a path").with_help(help));
    }
    let port = match authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some(_) => authority.port_u16().filter(|port| *port > 0).ok_or_else(misfit)?,
        None => own_port,
    };
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(misfit());
    }
    Ok(UpstreamTarget::Tcp { host: host.into(), port })
}

fn socket(given: &Given<'_>, path: &str) -> Read<UpstreamTarget> {
    if path.is_empty() || path.starts_with("//") || path.contains('\0') {
        let help = format!("write \"unix:/{}\"", path.trim_start_matches('/'));
        return Err(Problem::new("must name a socket such as \"unix:/run/app.sock\"").with_help(help));
    }
    socket_path(given.folder.join(path)).map(UpstreamTarget::Unix)
}
