//! The operation of the process: its end, its administration, its log, its spans.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use serde_json::json;

use super::codec::{
    self, BOOLEAN, Codec, DURATION, DURATION_OR_ZERO, OffOr, OneOf, Scalar, Whole, display, whole_schema,
};
use super::listener::collide;
use super::parse::{Given, Problem, Read, Words, none_of};
use super::reader::Table;
use super::schema::Visitor;
use super::settings::{Admin, AdminSocket, Directives, Drain, Level, Listen, Log, LogFormat, Otel, Token};
use super::suggestion::nearest;
use super::value_types::{ADDRESS, ADDRESS_HELP, FILE, address, address_schema, socket_path};

const FORMATS: Words<LogFormat> = &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
const LEVELS: Words<Option<Level>> = &[
    (Level::OFF, None),
    ("error", Some(Level::Error)),
    ("warn", Some(Level::Warn)),
    ("info", Some(Level::Info)),
    ("debug", Some(Level::Debug)),
    ("trace", Some(Level::Trace)),
];

/// A page of the inspector shows no more, and each is remembered with all that its last line says.
const MOST_CLOSED: usize = 100_000;

/// The code of the Close at the end.
const DRAIN_CODE: Scalar<u16> = Scalar {
    decode: drain_code,
    encode: |code| i64::from(*code).into(),
    schema: || json!({ "anyOf": [{ "enum": [1001, 1012, 1013] }, whole_schema(3000, 4999)] }),
};

/// The socket of the admin API.
const SOCKET: Scalar<AdminSocket> =
    Scalar { decode: socket, encode: display, schema: || json!({ "anyOf": [codec::pattern("^/"), address_schema()] }) };

/// The file with the token of the admin API.
const TOKEN: Scalar<Token> =
    Scalar { decode: token, encode: |token| codec::absolute(token.file()).into(), schema: codec::text_schema };

/// Levels and targets, with commas between them.
const DIRECTIVES: Scalar<Directives> =
    Scalar { decode: directives, encode: display, schema: || codec::pattern("^[A-Za-z0-9_:.,= -]+$") };

/// A collector's URL.
const ENDPOINT: Scalar<Otel> = Scalar {
    decode: endpoint,
    encode: |Otel { endpoint }| display(endpoint),
    schema: || codec::pattern("^http://[^/?#@\\s]+(?:/[^?\\s]*)?$"),
};

/// Visits `[drain]`.
pub(super) fn visit_drain(v: &mut Visitor<'_>, drain: &mut Drain) {
    v.key("delay", &DURATION_OR_ZERO, &mut drain.delay);
    v.key("window", &DURATION_OR_ZERO, &mut drain.window);
    v.key("code", &DRAIN_CODE, &mut drain.code);
    v.key("max_connection_age", &OffOr(DURATION), &mut drain.max_connection_age);
}

/// Visits `[admin]`.
pub(super) fn visit_admin(v: &mut Visitor<'_>, admin: &mut Admin) {
    v.at_start("health", &OffOr(ADDRESS), &mut admin.health);
    v.at_start("socket", &OffOr(SOCKET), &mut admin.socket);
    v.optional("token_file", &TOKEN, &mut admin.token);
    v.at_start("tls", &BOOLEAN, &mut admin.tls);
    v.at_start("closed_sessions", &Whole(0..=MOST_CLOSED), &mut admin.closed_sessions);
}

/// Visits `[log]`.
pub(super) fn visit_log(v: &mut Visitor<'_>, log: &mut Log) {
    v.key("level", &DIRECTIVES, &mut log.level);
    v.at_start("format", &OneOf(FORMATS), &mut log.format);
}

/// Visits `[otel]`.
pub(super) fn visit_otel(v: &mut Visitor<'_>, otel: &mut Option<Otel>) {
    v.at_start("endpoint", &OffOr(ENDPOINT), otel);
}

/// Reads `[drain]`.
pub(super) fn drain(t: &Table<'_>) -> Drain {
    let mut drain = Drain::default();
    visit_drain(&mut Visitor::Read(t.clone()), &mut drain);
    drain
}

/// Reads `[admin]`, whose ports must not be those of `listen`, which stands in `ports`.
pub(super) fn admin(t: &Table<'_>, ports: &Table<'_>, listen: &Listen) -> Admin {
    let mut admin = Admin::default();
    visit_admin(&mut Visitor::Read(t.clone()), &mut admin);
    match admin.socket {
        Some(AdminSocket::Tcp(address)) if !address.ip().is_loopback() => exposed(t, address, &admin),
        Some(AdminSocket::Unix { .. }) if admin.tls => {
            let problem = Problem::new("is for TCP: a unix socket needs no TLS");
            t.refuse(&["tls", "socket"], problem.with_help("leave it out, or write socket = \"127.0.0.1:4040\""));
        }
        _ => {}
    }
    ports_apart(t, &admin, ports, listen);
    admin
}

/// Refuses what does not go together with `tls.mode = "off"`.
pub(super) fn check_without_tls(t: &Table<'_>, admin: &Admin) {
    if admin.tls {
        let problem = Problem::new("needs a certificate, and with tls.mode = \"off\" there is none");
        t.refuse(&["tls"], problem.with_help("leave it out, and administer through a unix socket or 127.0.0.1"));
    }
}

/// Reads `[log]`.
pub(super) fn log(t: &Table<'_>) -> Log {
    let mut log = Log::default();
    visit_log(&mut Visitor::Read(t.clone()), &mut log);
    log
}

/// Reads `[otel]`.
pub(super) fn otel(t: &Table<'_>) -> Option<Otel> {
    let mut otel = None;
    visit_otel(&mut Visitor::Read(t.clone()), &mut otel);
    if otel.is_some() && !cfg!(feature = "otel") {
        let problem = Problem::new("is not for this program, which was built without OpenTelemetry");
        t.refuse(
            &["endpoint"],
            problem.with_help("leave it out, or build with `cargo build --release --features otel`"),
        );
    }
    otel
}

/// Refuses an admin socket beyond loopback that has no TLS or no token.
fn exposed(t: &Table<'_>, address: SocketAddr, admin: &Admin) {
    let missing = match (admin.tls, &admin.token) {
        (true, Some(_)) => return,
        (false, None) => "tls = true and token_file",
        (false, Some(_)) => "tls = true",
        (true, None) => "token_file",
    };
    let problem = Problem::new(format!("cannot be {address} without {missing}: other machines can reach it"));
    t.refuse(
        &["socket", "tls", "token_file"],
        problem.with_help(format!("set {missing} beside it, or stay on 127.0.0.1")),
    );
}

/// Refuses two listeners with the same port.
fn ports_apart(t: &Table<'_>, admin: &Admin, ports: &Table<'_>, listen: &Listen) {
    let socket = match admin.socket {
        Some(AdminSocket::Tcp(address)) => Some(address),
        _ => None,
    };
    let taken = [("the TLS port", Some(listen.address), "address"), ("the redirect port", listen.redirect, "redirect")];
    for (key, own) in [("health", admin.health), ("socket", socket)] {
        for (what, other, other_key) in taken {
            let (Some(own), Some(other)) = (own, other) else { continue };
            if !collide(own, other) {
                continue;
            }
            // A default that collides is refused at the other key, which is set.
            if t.sets(key) {
                let problem = Problem::new(format!("does not fit: {own} is taken by {what}, {other}"));
                t.refuse(&[key], problem.with_help("choose another port"));
            } else {
                let problem = Problem::new(format!("does not fit: {other} is taken by `admin.{key}`, {own}"));
                ports.refuse(&[other_key], problem.with_help(format!("choose another port, or set {key} in [admin]")));
            }
        }
    }
    if let (Some(health), Some(socket)) = (admin.health, socket)
        && collide(health, socket)
    {
        let what = format!("does not fit: health ({health}) and socket ({socket}) need a port each");
        t.refuse(&["socket", "health"], Problem::new(what).with_help("choose another port for one of them"));
    }
}

/// Reads the code of the Close at the end: one after which clients reconnect.
fn drain_code(given: &Given<'_>) -> Read<u16> {
    let misfit = || Problem::new("must be 1001, 1012, 1013, or 3000 to 4999");
    match given.integer().and_then(|code| u16::try_from(code).ok()) {
        Some(code @ (1001 | 1012 | 1013 | 3000..=4999)) => Ok(code),
        Some(1000) => Err(misfit().with_help("1000 means a normal end: clients would not reconnect")),
        Some(1005 | 1006 | 1015) => Err(misfit().with_help("RFC 6455 forbids this one in a Close frame")),
        _ => Err(misfit()),
    }
}

/// A unix socket by its absolute path, or an address and a port.
fn socket(given: &Given<'_>) -> Read<AdminSocket> {
    let misfit =
        || Problem::new(format!("must be an absolute path such as {:?} or \"127.0.0.1:4040\"", AdminSocket::DEFAULT));
    let number = given.integer().map(|number| number.to_string());
    let text = given.text().or(number.as_deref()).filter(|text| !text.is_empty()).ok_or_else(misfit)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return Err(misfit().with_help(format!("write {path:?}")));
    }
    if text.starts_with('/') {
        return socket_path(PathBuf::from(text)).map(AdminSocket::unix);
    }
    let error = match address(given) {
        Ok(address) => return Ok(AdminSocket::Tcp(address)),
        Err(error) => error,
    };
    Err(match error.help {
        _ if text.contains('/') || Path::new(text).extension().is_some_and(|extension| extension == "sock") => {
            // Clients start in other folders.
            misfit().with_help("each command would resolve a relative path in its own folder")
        }
        Some(help) if help == ADDRESS_HELP => misfit().with_help("write an absolute path, or \"127.0.0.1:4040\""),
        // An address that is reached by all is seldom meant.
        Some(help) => misfit().with_help(help.replace("0.0.0.0", "127.0.0.1").replace(" for all of them", "")),
        None => misfit(),
    })
}

/// Reads the token in a file.
fn token(given: &Given<'_>) -> Read<Token> {
    const LEAST: usize = 16;
    const MOST: u64 = 4096;
    let path = FILE.decode(given)?;
    let about = |why: &str| Problem::new(format!("cannot be used: {} {why}", path.display()));
    let text = head(&path, MOST + 1).map_err(|error| {
        let problem = about(&format!("cannot be read: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound => problem.with_help(format!("make it: openssl rand -hex 32 > {}", path.display())),
            io::ErrorKind::PermissionDenied => problem.with_help("let the user that pulsegate runs as read it"),
            _ => problem,
        }
    })?;
    let secret = text.trim_ascii();
    let long = "write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints";
    if u64::try_from(text.len()).is_ok_and(|len| len > MOST) {
        return Err(about(&format!("is longer than {MOST} bytes")).with_help(long));
    }
    if secret.contains(['\n', '\r']) {
        return Err(about("has more than one line").with_help(long));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(about("has other characters than visible ASCII ones").with_help(long));
    }
    if secret.len() < LEAST {
        return Err(about(&format!("has {} characters, fewer than {LEAST}", secret.len())).with_help(long));
    }
    Ok(Token::new(path.clone(), secret))
}

/// Returns the first bytes of the file at `path`, at most so many. Only a regular file is read: others may never end.
fn head(path: &Path, most: u64) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

fn directives(given: &Given<'_>) -> Read<Directives> {
    let misfit = || Problem::new("must be a level such as \"info\", or levels such as \"warn,pulsegate::relay=debug\"");
    let text = given.text().filter(|text| !text.is_empty()).ok_or_else(misfit)?;
    let mut default = None;
    let mut directives = Directives::default();
    for part in text.split(',').map(str::trim) {
        let Some((target, word)) = part.split_once('=') else {
            let level = level(part, || stray(part, misfit()))?;
            if default.replace(level).is_some() {
                return Err(Problem::new("names two levels for all that has no target"));
            }
            continue;
        };
        let (target, word) = (target.trim_end(), word.trim_start());
        let level = level(word, || {
            none_of(&format!("must have behind \"{target}=\" one of"), Some(word), LEVELS.iter().map(|(name, _)| *name))
        })?;
        if target.is_empty() {
            let problem = Problem::new(format!("has no target before \"={word}\""));
            return Err(problem.with_help(format!("did you mean \"{word}\", for all targets?")));
        }
        if let Some(invalid) = target.chars().find(|c| !(c.is_ascii_alphanumeric() || "_:-.".contains(*c))) {
            let problem = Problem::new(format!("has a target that is no module's path: {invalid:?} in \"{target}\""));
            return Err(problem.with_help("targets are such as \"pulsegate::relay\" and \"h2\""));
        }
        if directives.targets.iter().any(|(known, _)| **known == *target) {
            return Err(Problem::new(format!("names \"{target}\" twice")));
        }
        directives.targets.push((target.into(), level));
    }
    directives.default = default.unwrap_or(directives.default);
    Ok(directives)
}

/// The level that `word` stands for; `None` is none at all.
fn level(word: &str, otherwise: impl FnOnce() -> Problem) -> Read<Option<Level>> {
    let found = LEVELS.iter().find(|(name, _)| *name == word);
    found.map(|(_, level)| *level).ok_or_else(otherwise)
}

/// Returns the problem of a word that is no level.
fn stray(word: &str, misfit: Problem) -> Problem {
    match nearest(word, LEVELS.iter().map(|(name, _)| *name)) {
        Some(near) => misfit.with_help(format!("did you mean \"{near}\"?")),
        None if word.is_empty() => misfit.with_help("one side of a comma is empty"),
        None if word.contains("::") => misfit.with_help(format!("did you mean \"{word}=debug\"?")),
        None => misfit.with_help(format!("\"{word}\" is no level; levels are off, error, warn, info, debug and trace")),
    }
}

fn endpoint(given: &Given<'_>) -> Read<Otel> {
    let misfit = || Problem::new("must be the URL of a collector such as \"http://127.0.0.1:4318\"");
    let text = given.text().ok_or_else(misfit)?;
    let uri: Uri = text.parse().map_err(|_| misfit())?;
    let host = uri.authority().filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    match (uri.scheme_str(), host) {
        (Some("http"), Some(_)) if !text.contains(['?', '#']) => {}
        (Some("https"), Some(host)) => {
            let help = format!("write \"http://{host}\": a collector is on the same machine, and passes on by TLS");
            return Err(misfit().with_help(help));
        }
        _ => return Err(misfit()),
    }
    Ok(Otel { endpoint: text.trim_end_matches('/').into() })
}
