//! The address of a running proxy, and the token for it, from flags and configuration.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::error::RemoteError;
use super::location::{AddressSource, AdminAddress};
use crate::config::{self, Admin, AdminSocket, Input};

/// The flags that name a running proxy, and the token for it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which proxy")]
pub struct RemoteArgs {
    /// The address of its admin API: a socket's path, host:port, or a URL [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<Address>,
    /// The configuration file with the address; - reads standard input [default: config/proxy.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The file that holds the API's token [default: as configured]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// For an API behind TLS: trust only the CA certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// For an API behind TLS: the name that its certificate is for [default: the host]
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: Option<String>,
}

/// A bearer token and the file that it was read from.
#[derive(Clone)]
pub(super) struct Bearer {
    pub(super) file: PathBuf,
    pub(super) token: String,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("file", &self.file).finish_non_exhaustive()
    }
}

impl RemoteArgs {
    /// Finds the address of the admin API, and the token for it. Faults of the configuration are passed to `warn` and
    /// ignored otherwise, so that closing a session in an emergency does not require a valid file.
    pub(super) fn find(&self, warn: &mut dyn FnMut(String)) -> Result<(AdminAddress, Option<Bearer>), RemoteError> {
        if let (Some(address), Some(file)) = (&self.admin, &self.token_file) {
            return Ok((AdminAddress::flagged(address.clone(), "--admin"), Some(Bearer::read(file)?)));
        }
        // With an address on the command line, only a file named there is read: the default file's token is for another
        // address.
        let file = match (&self.config, &self.admin) {
            (Some(file), _) => Some(named(file, "--admin")?),
            (None, Some(_)) => None,
            (None, None) => default_config(),
        };
        let admin = admin(file.as_deref(), warn);
        let token_file = self.token_file.as_deref().or(admin.token.as_ref().map(config::Token::file));
        let bearer = token_file.map(Bearer::read).transpose()?;
        let place = match &self.admin {
            Some(address) => AdminAddress::flagged(address.clone(), "--admin"),
            None => AdminAddress::configured(&admin, file)?,
        };
        Ok((place, bearer))
    }
}

impl AdminAddress {
    /// Finds the address of the health listener: `address`, or the configured one.
    pub(super) fn health(
        address: Option<Address>,
        config: Option<PathBuf>,
        warn: &mut dyn FnMut(String),
    ) -> Result<Self, RemoteError> {
        const FLAG: &str = "--address";
        if let Some(address) = address {
            return Ok(Self::flagged(address, FLAG));
        }
        let file = match config {
            Some(file) => Some(named(&file, FLAG)?),
            None => default_config(),
        };
        let health = admin(file.as_deref(), warn).health;
        let Some(address) = health else { return Err(RemoteError::Off { key: "admin.health", file, flag: FLAG }) };
        let default = health == Admin::default().health;
        Ok(Self { address: tcp(reachable(address), false), flag: FLAG, origin: AddressSource::of(default, file) })
    }

    fn configured(admin: &Admin, file: Option<PathBuf>) -> Result<Self, RemoteError> {
        const FLAG: &str = "--admin";
        let Some(socket) = &admin.socket else {
            return Err(RemoteError::Off { key: "admin.socket", file, flag: FLAG });
        };
        let address = match socket {
            AdminSocket::Unix { path, .. } => Address::Unix(path.clone()),
            AdminSocket::Tcp(address) => tcp(reachable(*address), admin.tls),
        };
        Ok(Self { address, flag: FLAG, origin: AddressSource::of(*socket == AdminSocket::default(), file) })
    }
}

impl Bearer {
    fn read(file: &Path) -> Result<Self, RemoteError> {
        let text = fs::read_to_string(file).map_err(|source| RemoteError::TokenFile { path: file.into(), source })?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RemoteError::NoToken { path: file.into() });
        }
        Ok(Self { file: file.into(), token: token.to_owned() })
    }
}

/// Checks that a file named by the user exists. Otherwise the default address would be used, and another proxy might be
/// asked, or even drained.
fn named(file: &Path, flag: &'static str) -> Result<PathBuf, RemoteError> {
    // Standard input can be read only once.
    if file == Path::new("-") {
        return Ok(file.to_owned());
    }
    match fs::File::open(file) {
        Ok(_) => Ok(file.to_owned()),
        Err(source) => Err(RemoteError::Config { file: file.to_owned(), flag, source }),
    }
}

fn default_config() -> Option<PathBuf> {
    Some(PathBuf::from(Input::DEFAULT)).filter(|file| file.exists())
}

/// Returns the admin listeners of `file` and the environment, or the defaults if they cannot be parsed.
fn admin(file: Option<&Path>, warn: &mut dyn FnMut(String)) -> Admin {
    let (admin, report) = config::admin(file);
    for finding in report.iter().flat_map(config::Report::findings) {
        warn(format!("{}: {}; ignored", finding.place, finding.message));
    }
    admin
}

/// Returns the address that reaches a listener bound to `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn tcp(address: SocketAddr, tls: bool) -> Address {
    Address::Tcp { host: address.ip().to_string(), port: address.port(), tls }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        let reached = ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"].map(|address| {
            let address: SocketAddr = address.parse().expect("an address");
            tcp(reachable(address), false).to_string()
        });
        assert_eq!(reached, ["http://127.0.0.1:9090", "http://[::1]:9090", "http://192.0.2.1:9090"]);
    }

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let dir = tempfile::TempDir::new().expect("make a temporary directory");
        let file = dir.path().join("token");
        fs::write(&file, "  0123456789abcdef\n").expect("write the token");
        let bearer = Bearer::read(&file).expect("a token");
        assert_eq!(bearer.token, "0123456789abcdef");
        assert!(!format!("{bearer:?}").contains("0123456789abcdef"), "{bearer:?}");
        for broken in ["", "\n", "two words", "zwölf"] {
            fs::write(&file, broken).expect("write the token");
            let error = Bearer::read(&file).expect_err(broken).to_string();
            assert!(error.starts_with(&format!("{} holds no token", file.display())), "{error}");
        }
        let error = Bearer::read(&dir.path().join("none")).expect_err("no file").to_string();
        assert!(error.ends_with("/none"), "{error}");
    }
}
