//! The types of names: hosts, the names of certificates, origins, networks.

use std::net::{IpAddr, Ipv6Addr};

use super::cidr::{Cidr, CidrError};
use super::codec::{Scalar, display, pattern as text_pattern};
use super::host::{HostPattern, split_port};
use super::origins::{AllowedOrigin, PageOrigin};
use super::parse::{Given, Problem, Read};
use super::suggestion::nearest;
use super::value_types::port_help;

/// A host, or `*.` and a domain.
pub(super) const HOST: Scalar<HostPattern> = Scalar { decode: host, encode: display, schema: host_schema };

/// A name that a certificate is presented for.
pub(super) const SNI: Scalar<Box<str>> =
    Scalar { decode: sni, encode: display, schema: || text_pattern("^(?:\\*\\.)?[A-Za-z0-9_.-]+$") };

/// The name or address in an app's certificate.
pub(super) const SERVER_NAME: Scalar<Box<str>> = Scalar { decode: server_name, encode: display, schema: host_schema };

/// The origin of pages.
pub(super) const ORIGIN: Scalar<AllowedOrigin> = Scalar {
    decode: origin,
    encode: display,
    schema: || text_pattern("^(?:same-host|null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\\s]+)$"),
};

/// A network, or one address.
pub(super) const CIDR: Scalar<Cidr> =
    Scalar { decode: cidr, encode: display, schema: || text_pattern("^[0-9a-fA-F.:]+(?:/[0-9]{1,3})?$") };

/// The name of a header field.
pub(super) const HEADER_NAME: Scalar<Box<str>> =
    Scalar { decode: header_name, encode: display, schema: || text_pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") };

/// One of this machine's addresses.
pub(super) const SOURCE_ADDRESS: Scalar<IpAddr> =
    Scalar { decode: source_address, encode: display, schema: || text_pattern("^[0-9a-fA-F.:]+$") };

const WILDCARD: &str = "*.";
/// Characters of a label (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;
/// Characters of a name, without the dot at its end (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

fn host_schema() -> serde_json::Value {
    text_pattern("^(?:(?:\\*\\.)?[A-Za-z0-9_.-]+|\\[?[0-9a-fA-F:.]+\\]?)$")
}

/// Reads a host, or `*.` and a domain.
fn host(given: &Given<'_>) -> Read<HostPattern> {
    let misfit = || Problem::new("must be a host such as \"app.example\" or \"*.app.example\"");
    pattern(given.text().filter(|text| !text.is_empty()).ok_or_else(misfit)?)
}

/// A name that a certificate is presented for: no address, because no client sends one (RFC 6066 §3).
fn sni(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be a name such as \"app.example\" or \"*.app.example\"");
    let pattern = pattern(given.text().filter(|text| !text.is_empty()).ok_or_else(misfit)?)?;
    match &pattern {
        HostPattern::Exact(name) if is_address(name) => {
            Err(misfit().with_help("clients send no addresses as server names: they get the certificate of [tls]"))
        }
        _ => Ok(pattern.to_string().into()),
    }
}

/// Reads the name or address in an app's certificate.
fn server_name(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be the name or address in the app's certificate, such as \"app.internal\"");
    let text = given.text().filter(|text| !text.is_empty()).ok_or_else(misfit)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string().into());
    }
    match pattern(text)? {
        HostPattern::Exact(name) => Ok(name.trim_matches(['[', ']']).into()),
        HostPattern::Subdomains(_) => Err(misfit().with_help("write one name that the wildcard stands for")),
    }
}

/// The origin of pages that may open sessions.
fn origin(given: &Given<'_>) -> Read<AllowedOrigin> {
    const WORDS: [&str; 2] = ["same-host", "null"];
    let misfit = || {
        Problem::new(
            "must be an origin such as \"https://app.example\", \"https://*.app.example\", \"same-host\" or \"null\"",
        )
    };
    let text = given.text().ok_or_else(misfit)?;
    match text {
        "same-host" => return Ok(AllowedOrigin::SameHost),
        "null" => return Ok(AllowedOrigin::Null),
        "*" => return Err(misfit().with_help("to allow every page, leave out `allow`")),
        _ => {}
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match nearest(text, WORDS) {
            Some(word) => misfit().with_help(format!("did you mean \"{word}\"?")),
            None if text.starts_with("localhost") => misfit().with_help(format!("write \"http://{text}\"")),
            None if text.contains('.') => misfit().with_help(format!("write \"https://{text}\"")),
            None => misfit(),
        });
    };
    if let "ws" | "wss" = scheme {
        let page = scheme.replacen("ws", "http", 1);
        return Err(misfit().with_help(format!("write \"{page}://{rest}\": it is the page that has an origin")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority != rest && !authority.is_empty() {
        let problem = Problem::new("must be an origin, which has no path");
        return Err(problem.with_help(format!("write \"{scheme}://{authority}\"")));
    }
    let (name, port) = split_port(authority);
    if name.is_empty() || authority.contains('@') {
        return Err(misfit());
    }
    let pattern = pattern(name)?;
    let host = match &pattern {
        HostPattern::Exact(name) => name,
        HostPattern::Subdomains(suffix) => suffix,
    };
    if let Some(help) = port.and_then(port_help) {
        return Err(misfit().with_help(help));
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let PageOrigin { scheme, host, port } =
        PageOrigin::parse(&format!("{scheme}://{host}{port}")).ok_or_else(misfit)?;
    Ok(match pattern {
        HostPattern::Exact(_) => AllowedOrigin::Exact(PageOrigin { scheme, host, port }.to_string().into()),
        HostPattern::Subdomains(suffix) => AllowedOrigin::Subdomains { scheme, suffix, port },
    })
}

/// Reads a network, or one address.
fn cidr(given: &Given<'_>) -> Read<Cidr> {
    let text = given.text().unwrap_or_default();
    text.parse().map_err(|error: CidrError| {
        let problem = Problem::new(error.to_string());
        match error {
            CidrError::Within(network) => {
                let address = text.split('/').next().unwrap_or(text);
                problem.with_help(format!("write \"{network}\", or \"{address}\" for this one address"))
            }
            CidrError::Form | CidrError::Prefix(_) => problem,
        }
    })
}

/// The name of a header field that a request can do without (RFC 9110 §5.1), in lower case.
fn header_name(given: &Given<'_>) -> Read<Box<str>> {
    const NEEDED: [&str; 6] = ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = given.text().unwrap_or_default().to_ascii_lowercase();
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Problem::new("must be the name of a header, such as \"X-Client-IP\""));
    }
    if NEEDED.contains(&&*name) || name.starts_with("sec-websocket-") {
        return Err(Problem::new("must be a header that a request does not need"));
    }
    Ok(name.into())
}

/// One of this machine's addresses.
fn source_address(given: &Given<'_>) -> Read<IpAddr> {
    let misfit = || Problem::new("must be an IP address such as \"127.0.0.2\"");
    let address: IpAddr = given.text().and_then(|text| text.parse().ok()).ok_or_else(misfit)?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(Problem::new("must be an address that a connection can come from"));
    }
    Ok(address)
}

fn pattern(text: &str) -> Read<HostPattern> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
        return Ok(HostPattern::Exact(format!("[{address}]").into()));
    }
    host_alone(text)?;
    let name = text.to_ascii_lowercase();
    match name.strip_prefix(WILDCARD) {
        Some(domain) => {
            domain_name(domain)?;
            Ok(HostPattern::Subdomains(format!(".{domain}").into()))
        }
        None => {
            domain_name(&name)?;
            Ok(HostPattern::Exact(name.into()))
        }
    }
}

/// Refuses a host with other parts of a URL around it.
pub(super) fn host_alone(text: &str) -> Read<()> {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (host, port) = split_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    let what = match (scheme, port) {
        _ if host == text => return Ok(()),
        (Some(_), _) => "a scheme",
        (None, _) if authority != rest => "a path",
        (None, Some(_)) => "a port",
        (None, None) => "a dot at the end",
    };
    let problem = Problem::new(format!("must be a host alone, without {what}"));
    let is_host = domain_name(host.strip_prefix(WILDCARD).unwrap_or(host)).is_ok();
    let help = if is_host { format!("write \"{host}\"") } else { "such as \"app.example\"".to_owned() };
    Err(problem.with_help(help))
}

/// Refuses a name that DNS cannot have. Numbers and dots, an address, pass too.
pub(super) fn domain_name(name: &str) -> Read<()> {
    if name.contains('*') {
        let problem = Problem::new("may have a wildcard only as its whole first label");
        return Err(problem.with_help("as in \"*.app.example\""));
    }
    let misfit = |what: String| Problem::new(format!("must be a name as it stands in DNS{what}"));
    if !name.is_ascii() {
        return Err(misfit(String::new()).with_help("write it in Punycode, which begins with \"xn--\""));
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_letter)) {
        return Err(misfit(": letters, digits and hyphens between dots".to_owned()));
    }
    if let Some(label) = name.split('.').find(|label| label.len() > LONGEST_LABEL) {
        let help = format!("this one has {}: {label}", label.len());
        return Err(misfit(format!(": at most {LONGEST_LABEL} characters between two dots")).with_help(help));
    }
    if name.len() > LONGEST_NAME {
        let help = format!("this one has {}", name.len());
        return Err(misfit(format!(": at most {LONGEST_NAME} characters")).with_help(help));
    }
    Ok(())
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<IpAddr>().is_ok()
}
