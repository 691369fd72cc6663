//! The forms that only a proxy's configuration has: addresses, files, Close frames, route prefixes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use super::form::{Given, Problem, Read, size};

/// An address and a port.
pub(super) fn address(given: &Given<'_>) -> Read<SocketAddr> {
    let misfit = || Problem::new("must be an address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"");
    let number = given.integer().map(|number| number.to_string());
    let text = given.text().or(number.as_deref()).ok_or_else(|| misfit().with_help(ADDRESS_HELP))?;
    text.parse().map_err(|_| misfit().with_help(address_help(text)))
}

/// The remedy for an address that cannot be guessed.
pub(super) const ADDRESS_HELP: &str = "write the IP address of an interface, a colon and a port";

/// Returns the remedy for `text`, which is no address with a port.
fn address_help(text: &str) -> String {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    if let Ok(ip) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
        return format!("add the port: write \"{}\"", SocketAddr::new(ip, 8443));
    }
    let (host, port) = bare.rsplit_once(':').unwrap_or(("", bare));
    if let Some(problem) = port_help(port) {
        return problem;
    }
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return ADDRESS_HELP.to_owned();
    }
    match host {
        "" | "*" => format!("write \"0.0.0.0:{port}\""),
        "localhost" => format!("write \"127.0.0.1:{port}\""),
        ip if ip.parse::<IpAddr>().is_ok() => format!("write \"{ip}:{port}\""),
        _ => format!(
            "names are not resolved here: write an address of this machine, or \"0.0.0.0:{port}\" for all of them"
        ),
    }
}

/// The remedy for a `port` that is a number, and none that a port can have.
pub(super) fn port_help(port: &str) -> Option<String> {
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && port.parse::<u16>().is_err()).then(|| format!("{port} is no port: ports go up to 65535"))
}

/// A number of worker threads. `"auto"` is what the machine, the CPU affinity and the cgroup's quota allow, all of
/// which the standard library looks at.
pub(super) fn workers(given: &Given<'_>) -> Read<NonZeroUsize> {
    const MOST: usize = 1024;
    if given.text() == Some("auto") {
        return Ok(all_cores());
    }
    let number = given.integer().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= MOST);
    let misfit = || {
        let problem = Problem::new(format!("must be \"auto\" or a whole number from 1 to {MOST}"));
        problem.with_help("write \"auto\" for one worker for each CPU")
    };
    number.and_then(NonZeroUsize::new).ok_or_else(misfit)
}

/// What `"auto"` workers come to here.
pub(super) fn all_cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A file's path.
pub(super) fn file(given: &Given<'_>) -> Read<PathBuf> {
    match given.text() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(given.folder.join(text)),
        _ => Err(Problem::new("must be the path of a file").with_help("write it in quotes")),
    }
}

/// The path of a unix socket, if one can have it.
pub(super) fn socket_path(path: PathBuf) -> Read<PathBuf> {
    /// `sun_path` of unix(7), without its final zero byte.
    const LONGEST: usize = 107;
    if path.as_os_str().len() > LONGEST {
        return Err(Problem::new(format!(
            "must be a path of at most {LONGEST} bytes: no unix socket has a longer one"
        )));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Problem::new("must be a path, which has no zero byte"));
    }
    Ok(path)
}

/// The size of a request's head, within what hyper can be told to take.
pub(super) fn header_bytes(given: &Given<'_>) -> Read<usize> {
    const LEAST: u64 = 8 * 1024;
    const MOST: u64 = 1024 * 1024;
    let bytes = size(given)?;
    if !(LEAST..=MOST).contains(&bytes) {
        return Err(Problem::new("must be a size from \"8KiB\" to \"1MiB\""));
    }
    usize::try_from(bytes).map_err(|_| Problem::new("must be a size that can be counted"))
}

/// The code of a Close frame that may stand on a wire (RFC 6455 §7.4).
pub(super) fn close_code(given: &Given<'_>) -> Read<u16> {
    let misfit = || Problem::new("must be a close code: 1000 to 1014, or 3000 to 4999");
    let help = "4000 to 4999 are the app's own; after 1012 clients come back";
    let code = given.integer().and_then(|code| u16::try_from(code).ok()).ok_or_else(|| misfit().with_help(help))?;
    match code {
        1005 | 1006 | 1015 => {
            Err(Problem::new(format!("cannot be {code}: RFC 6455 keeps it off the wire")).with_help(help))
        }
        1004 => Err(Problem::new("cannot be 1004: RFC 6455 gives it no meaning").with_help(help)),
        1000..=1014 | 3000..=4999 => Ok(code),
        _ => Err(misfit().with_help(help)),
    }
}

/// The reason of a Close frame: what a control frame can hold beside the code (RFC 6455 §5.5).
pub(super) fn close_reason(given: &Given<'_>) -> Read<Box<str>> {
    const LONGEST: usize = 123;
    let text = given.text().ok_or_else(|| Problem::new("must be text"))?;
    if text.len() > LONGEST {
        let problem = Problem::new(format!("must be at most {LONGEST} bytes: a Close frame holds no more"));
        return Err(problem.with_help(format!("this is {} bytes", text.len())));
    }
    Ok(text.into())
}

/// The path prefix of a route.
pub(super) fn prefix(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be a path such as \"/socket.io/\"").with_help("write it in quotes");
    let text = given.text().ok_or_else(misfit)?;
    if !text.starts_with('/') {
        return Err(Problem::new("must begin with \"/\"").with_help(format!("write \"/{text}\"")));
    }
    if let Some(stranger) = text.chars().find(|c| matches!(c, '?' | '#') || !c.is_ascii_graphic()) {
        let problem = Problem::new(format!("must be a plain path, without {stranger:?}"));
        return Err(problem.with_help("queries are not looked at, and other letters arrive percent-encoded"));
    }
    if text.split('/').skip(1).any(|part| matches!(part, "." | "..")) || text.contains("//") {
        let problem = Problem::new("matches no request: paths are compared without \".\", \"..\" and \"//\"");
        return Err(problem.with_help("write the path that is left without them"));
    }
    Ok(text.into())
}
