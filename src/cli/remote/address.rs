//! Addresses of a running proxy's admin API.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// DNS name or IP address, an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Set if the port uses TLS.
        tls: bool,
    },
}

impl FromStr for Address {
    type Err = String;

    /// Parses a socket's path (with or without `unix:`), `host:port`, or an http or https URL.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("names no socket after `unix:`".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.contains("://") {
            return url(text);
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let form = || {
            format!(
                "must be a socket's path (./{text} for one in this folder), host:port, or a URL such as https://host:4040"
            )
        };
        let uri: Uri = text.parse().map_err(|_| form())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(form)?;
        let port = authority.port_u16().ok_or_else(form)?;
        let host = bare(authority.host());
        if host.is_empty() { Err(form()) } else { Ok(Self::Tcp { host, port, tls: false }) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp { host, port, tls } => {
                f.write_str(if *tls { "https://" } else { "http://" })?;
                if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
            }
        }
    }
}

fn url(text: &str) -> Result<Address, String> {
    let uri: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("must begin with http:// or https://, or be the path of a unix socket".to_owned()),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("takes no user and password; --token-file names the file that holds the token".to_owned());
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!(
            "ends behind the port: without {:?}",
            uri.path_and_query().map_or("", |rest| rest.as_str())
        ));
    }
    let host = bare(uri.host().unwrap_or_default());
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    Ok(Address::Tcp { host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
}

/// Removes the brackets of an IPv6 address; returns other hosts unchanged.
fn bare(host: &str) -> String {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Address {
        Address::Tcp { host: host.into(), port, tls }
    }

    #[test]
    fn every_form_is_read_and_shown_so_that_it_can_be_read_again() {
        let forms = [
            ("/run/pulsegate/admin.sock", Address::Unix("/run/pulsegate/admin.sock".into())),
            ("./admin.sock", Address::Unix("./admin.sock".into())),
            ("unix:admin.sock", Address::Unix("admin.sock".into())),
            ("127.0.0.1:4040", tcp("127.0.0.1", 4040, false)),
            ("[::1]:4040", tcp("::1", 4040, false)),
            ("http://localhost:4040/", tcp("localhost", 4040, false)),
            ("https://ops.example", tcp("ops.example", 443, true)),
            ("https://[2001:db8::1]:4040", tcp("2001:db8::1", 4040, true)),
        ];
        for (text, address) in forms {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            if text != "unix:admin.sock" {
                assert_eq!(address.to_string().parse(), Ok(address), "{text}");
            }
        }
    }

    #[test]
    fn the_error_of_an_invalid_address_shows_a_valid_one() {
        let refused = [
            ("admin.sock", "./admin.sock"),
            ("localhost", "host:port"),
            ("4040", "host:port"),
            (":4040", "host:port"),
            ("", "host:port"),
            ("unix:", "no socket"),
            ("ftp://host", "http:// or https://"),
            ("http://user:secret@host", "--token-file"),
            ("http://host/v1/info", "\"/v1/info\""),
        ];
        for (text, says) in refused {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
