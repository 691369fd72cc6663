//! What concerns those who run the program: its end, its administration, its log, its spans.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;

use super::edge::collide;
use super::form::{Given, Problem, Read, Words, boolean, duration, duration_or_zero, none_of, off_or, one_of, whole};
use super::reader::Table;
use super::settings::{Admin, AdminSocket, Directives, Drain, Level, Listen, Log, LogFormat, Otel, Token};
use super::suggest::nearest;
use super::value::{ADDRESS_HELP, address, file, socket_path};

pub(super) const FORMATS: Words<LogFormat> =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
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

pub(super) fn drain(t: &Table<'_>) -> Drain {
    let base = Drain::default();
    Drain {
        delay: t.or("delay", duration_or_zero, base.delay),
        window: t.or("window", duration_or_zero, base.window),
        code: t.or("code", farewell, base.code),
        max_connection_age: t.or("max_connection_age", off_or(duration), base.max_connection_age),
    }
}

/// The section `[admin]`, whose ports must not be those of `listen`, which stands in `ports`.
pub(super) fn admin(t: &Table<'_>, ports: &Table<'_>, listen: &Listen) -> Admin {
    let base = Admin::default();
    let admin = Admin {
        health: t.or("health", off_or(address), base.health),
        socket: t.or("socket", off_or(socket), base.socket),
        tls: t.or("tls", boolean, base.tls),
        token: t.or("token_file", |given| token(given).map(Some), base.token),
        closed_sessions: t.or("closed_sessions", whole(0..=MOST_CLOSED), base.closed_sessions),
    };
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
pub(super) fn beside_no_tls(t: &Table<'_>, admin: &Admin) {
    if admin.tls {
        let problem = Problem::new("needs a certificate, and with tls.mode = \"off\" there is none");
        t.refuse(&["tls"], problem.with_help("leave it out, and administer through a unix socket or 127.0.0.1"));
    }
}

pub(super) fn log(t: &Table<'_>) -> Log {
    let base = Log::default();
    Log { level: t.or("level", directives, base.level), format: t.or("format", one_of(FORMATS), base.format) }
}

pub(super) fn otel(t: &Table<'_>) -> Option<Otel> {
    let endpoint = t.or("endpoint", off_or(endpoint), None)?;
    if !cfg!(feature = "otel") {
        let problem = Problem::new("is not for this program, which was built without OpenTelemetry");
        t.refuse(
            &["endpoint"],
            problem.with_help("leave it out, or build with `cargo build --release --features otel`"),
        );
    }
    Some(Otel { endpoint })
}

/// That whoever reaches an admin socket beyond loopback is asked who they are, and cannot be overheard.
fn exposed(t: &Table<'_>, address: SocketAddr, admin: &Admin) {
    let missing = match (admin.tls, &admin.token) {
        (true, Some(_)) => return,
        (false, None) => "tls = true and token_file",
        (false, Some(_)) => "tls = true",
        (true, None) => "token_file",
    };
    let problem = Problem::new(format!("cannot be {address} without {missing}: others than this machine can reach it"));
    t.refuse(
        &["socket", "tls", "token_file"],
        problem.with_help(format!("set {missing} beside it, or stay on 127.0.0.1")),
    );
}

/// That no port is asked for twice.
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
            // What is so by default is refused where the other one is set.
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

/// The code of the Close at the end: one after which clients come back, and that says so.
fn farewell(given: &Given<'_>) -> Read<u16> {
    let misfit = || Problem::new("must be 1001, 1012, 1013, or 3000 to 4999");
    match given.integer().and_then(|code| u16::try_from(code).ok()) {
        Some(code @ (1001 | 1012 | 1013 | 3000..=4999)) => Ok(code),
        Some(1000) => Err(misfit().with_help("1000 says that all is done: clients would not come back")),
        Some(1005 | 1006 | 1015) => Err(misfit().with_help("RFC 6455 keeps this one off the wire")),
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
            // Whoever opens it starts elsewhere.
            misfit().with_help("a relative path would be another one for every client")
        }
        Some(help) if help == ADDRESS_HELP => misfit().with_help("write an absolute path, or \"127.0.0.1:4040\""),
        // An address that is reached by all is seldom meant.
        Some(help) => misfit().with_help(help.replace("0.0.0.0", "127.0.0.1").replace(" for all of them", "")),
        None => misfit(),
    })
}

/// The token in a file.
fn token(given: &Given<'_>) -> Read<Token> {
    const LEAST: usize = 16;
    const MOST: u64 = 4096;
    let path = file(given)?;
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

/// What the file at `path` begins with, at most so many bytes. Nothing is read from what is no file: it may never end.
fn head(path: &Path, most: u64) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Levels and targets, with commas between them.
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
        if let Some(stranger) = target.chars().find(|c| !(c.is_ascii_alphanumeric() || "_:-.".contains(*c))) {
            let problem = Problem::new(format!("has a target that is no module's path: {stranger:?} in \"{target}\""));
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

/// Why a word by itself is no level.
fn stray(word: &str, misfit: Problem) -> Problem {
    match nearest(word, LEVELS.iter().map(|(name, _)| *name)) {
        Some(near) => misfit.with_help(format!("did you mean \"{near}\"?")),
        None if word.is_empty() => misfit.with_help("there is nothing on one side of a comma"),
        None if word.contains("::") => misfit.with_help(format!("did you mean \"{word}=debug\"?")),
        None => misfit.with_help(format!("\"{word}\" is no level; levels are off, error, warn, info, debug and trace")),
    }
}

/// A collector's URL.
fn endpoint(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be the URL of a collector such as \"http://127.0.0.1:4318\"");
    let text = given.text().ok_or_else(misfit)?;
    let uri: Uri = text.parse().map_err(|_| misfit())?;
    let host = uri.authority().filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    match (uri.scheme_str(), host) {
        (Some("http"), Some(_)) if uri.query().is_none() => {}
        (Some("https"), Some(host)) => {
            let help = format!("write \"http://{host}\": a collector is on the same machine, and passes on by TLS");
            return Err(misfit().with_help(help));
        }
        _ => return Err(misfit()),
    }
    Ok(text.trim_end_matches('/').into())
}
