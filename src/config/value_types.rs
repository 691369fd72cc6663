//! The types that only a proxy's configuration has: addresses, files, Close frames, route prefixes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::json;
use toml_edit::Value;

use super::codec::{self, Codec, Scalar, display, whole_schema};
use super::parse::{Given, Problem, Read, size};
use super::settings::available_workers;

/// An address and a port.
pub(super) const ADDRESS: Scalar<SocketAddr> = Scalar { decode: address, encode: display, schema: address_schema };

/// A number of worker threads.
pub(super) struct Workers;

/// The path of a file; a relative one starts from the folder of the layer that sets it.
pub(super) const FILE: Scalar<PathBuf> =
    Scalar { decode: file, encode: |path| codec::absolute(path).into(), schema: codec::text_schema };

/// The size of a request's head.
pub(super) const HEADER_BYTES: Scalar<usize> = Scalar {
    decode: header_bytes,
    encode: |bytes| codec::size(u64::try_from(*bytes).unwrap_or(u64::MAX)),
    schema: || codec::size_schema(LEAST_HEADER_BYTES, Some(MOST_HEADER_BYTES)),
};

/// The code of a Close frame.
pub(super) const CLOSE_CODE: Scalar<u16> = Scalar {
    decode: close_code,
    encode: |code| i64::from(*code).into(),
    schema: || json!({ "anyOf": [whole_schema(1000, 1003), whole_schema(1007, 1014), whole_schema(3000, 4999)] }),
};

/// The reason of a Close frame.
pub(super) const CLOSE_REASON: Scalar<Box<str>> = Scalar {
    decode: close_reason,
    encode: display,
    schema: || json!({ "type": "string", "maxLength": LONGEST_REASON }),
};

/// The path prefix of a route.
pub(super) const PREFIX: Scalar<Box<str>> =
    Scalar { decode: prefix, encode: display, schema: || codec::pattern("^/[!\"$->@-~]*$") };

const LEAST_HEADER_BYTES: u64 = 8 * 1024;
const MOST_HEADER_BYTES: u64 = 1024 * 1024;
/// Bytes that a control frame can hold beside the code (RFC 6455 §5.5).
const LONGEST_REASON: usize = 123;
const MOST_WORKERS: usize = 1024;

impl Codec for Workers {
    type Value = NonZeroUsize;

    fn decode(&self, given: &Given<'_>) -> Read<NonZeroUsize> {
        workers(given)
    }

    fn encode(&self, workers: &NonZeroUsize) -> Value {
        codec::number(workers.get()).into()
    }

    fn encode_default(&self, _: &NonZeroUsize) -> Value {
        // The number is that of this machine.
        "auto".into()
    }

    fn schema(&self) -> serde_json::Value {
        codec::word_or("auto", whole_schema(1, codec::number(MOST_WORKERS)))
    }
}

/// Describes an address and a port.
pub(super) fn address_schema() -> serde_json::Value {
    codec::pattern("^(?:[0-9.]+|\\[[0-9a-fA-F:.]+(?:%[0-9]+)?\\]):[0-9]{1,5}$")
}

/// Reads an address and a port.
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

/// Returns the remedy for a `port` that is a number out of range.
pub(super) fn port_help(port: &str) -> Option<String> {
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && port.parse::<u16>().is_err()).then(|| format!("{port} is no port: ports go up to 65535"))
}

fn workers(given: &Given<'_>) -> Read<NonZeroUsize> {
    if given.text() == Some("auto") {
        return Ok(available_workers());
    }
    let number =
        given.integer().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= MOST_WORKERS);
    let misfit = || {
        let problem = Problem::new(format!("must be \"auto\" or a whole number from 1 to {MOST_WORKERS}"));
        problem.with_help("write \"auto\" for one worker for each CPU")
    };
    number.and_then(NonZeroUsize::new).ok_or_else(misfit)
}

/// Reads the path of a file.
fn file(given: &Given<'_>) -> Read<PathBuf> {
    match given.text() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(given.folder.join(text)),
        _ => Err(Problem::new("must be the path of a file").with_help("write it in quotes")),
    }
}

/// Returns `path` if a unix socket can have it.
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

/// Reads the size of a request's head, within the range that hyper accepts.
fn header_bytes(given: &Given<'_>) -> Read<usize> {
    let bytes = size(given)?;
    if !(LEAST_HEADER_BYTES..=MOST_HEADER_BYTES).contains(&bytes) {
        return Err(Problem::new("must be a size from \"8KiB\" to \"1MiB\""));
    }
    usize::try_from(bytes).map_err(|_| Problem::new("must be a size that can be counted"))
}

/// Reads the code of a Close frame that may be sent (RFC 6455 §7.4).
fn close_code(given: &Given<'_>) -> Read<u16> {
    let misfit = || Problem::new("must be a close code: 1000 to 1014, or 3000 to 4999");
    let help = "4000 to 4999 are the app's own; after 1012 clients reconnect";
    let code = given.integer().and_then(|code| u16::try_from(code).ok()).ok_or_else(|| misfit().with_help(help))?;
    match code {
        1005 | 1006 | 1015 => {
            Err(Problem::new(format!("cannot be {code}: RFC 6455 forbids it in a Close frame")).with_help(help))
        }
        1004 => Err(Problem::new("cannot be 1004: RFC 6455 gives it no meaning").with_help(help)),
        1000..=1014 | 3000..=4999 => Ok(code),
        _ => Err(misfit().with_help(help)),
    }
}

/// Reads the reason of a Close frame.
fn close_reason(given: &Given<'_>) -> Read<Box<str>> {
    let text = given.text().ok_or_else(|| Problem::new("must be text"))?;
    if text.len() > LONGEST_REASON {
        let problem = Problem::new(format!("must be at most {LONGEST_REASON} bytes: a Close frame holds no more"));
        return Err(problem.with_help(format!("this is {} bytes", text.len())));
    }
    Ok(text.into())
}

/// Reads the path prefix of a route.
fn prefix(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be a path such as \"/socket.io/\"").with_help("write it in quotes");
    let text = given.text().ok_or_else(misfit)?;
    if !text.starts_with('/') {
        return Err(Problem::new("must begin with \"/\"").with_help(format!("write \"/{text}\"")));
    }
    if let Some(invalid) = text.chars().find(|c| matches!(c, '?' | '#') || !c.is_ascii_graphic()) {
        let problem = Problem::new(format!("must be a plain path, without {invalid:?}"));
        return Err(problem.with_help("queries are not compared, and other letters arrive percent-encoded"));
    }
    if text.split('/').skip(1).any(|part| matches!(part, "." | "..")) || text.contains("//") {
        let problem = Problem::new("matches no request: paths are compared without \".\", \"..\" and \"//\"");
        return Err(problem.with_help("write the path that is left without them"));
    }
    Ok(text.into())
}
