//! The part of a configuration that decides on the addresses of an app started by pulsegate, read before the rest.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::document::Document;
use super::input::Input;
use super::layers::Layers;
use super::overrides::{Environment, Overrides};
use super::reader::TreeReader;
use super::report::{Finding, Location, Report, Spot};

/// The variable by which a platform names the port that it sends requests to.
const PORT: &str = "PORT";

/// The keys that decide on the addresses of an app started by pulsegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AppStart {
    /// Set if the address of the app is configured.
    has_upstream: bool,
    /// Set if the port of clients speaks plain HTTP, and no address is configured for it: it then belongs on the
    /// platform's port.
    takes_platform_port: bool,
}

/// Returns `overrides` with the addresses that nothing configures for an app that pulsegate starts: the app's is a port of
/// loopback, as `free_port` returns one that is none of its argument, and without TLS the proxy's is the platform's port.
/// Faults of `input` are reported when the whole is loaded.
///
/// # Errors
///
/// A report on the platform's port if it is none, or on the lack of a free one.
pub fn with_app_addresses(
    input: &Input,
    overrides: &Overrides,
    free_port: impl FnOnce(&[u16]) -> io::Result<u16>,
) -> Result<Overrides, Report> {
    let start = AppStart::of(input.document().unwrap_or_default(), &Environment::of_process(), overrides);
    let mut overrides = overrides.clone();
    let mut taken = Vec::new();
    if let Some(value) = std::env::var_os(PORT).filter(|_| start.takes_platform_port) {
        let value = value.to_string_lossy();
        let platform = address(&value).ok_or_else(|| no_port(&value))?;
        overrides.listen = Some(platform.to_string());
        taken.push(platform.port());
    }
    if !start.has_upstream {
        let port = free_port(&taken).map_err(|error| {
            let message = format!("cannot find a free port for the app: {error}");
            let help = "name the app's address with --upstream".to_owned();
            Report::of(Finding::new(Spot::file(&input.to_string()), message, Some(help)))
        })?;
        overrides.upstream = Some(format!("http://127.0.0.1:{port}"));
    }
    Ok(overrides)
}

impl AppStart {
    fn of(document: Document, environment: &Environment, overrides: &Overrides) -> Self {
        let (layers, _) = Layers::new(document, environment, overrides);
        let reader = TreeReader::new(&layers, Vec::new());
        let is_set = |section: &str, key: &str| reader.root().table(section).sets(key);
        let mode = ["tls", "mode"].into_iter().collect();
        Self {
            has_upstream: is_set("upstream", "url"),
            takes_platform_port: layers.text(&mode) == Some("off") && !is_set("listen", "address"),
        }
    }
}

/// Returns the report on a value of `PORT` that is no port.
fn no_port(value: &str) -> Report {
    let spot = Spot::whole(Location::Variable { variable: PORT.to_owned() }, value);
    let help = "set listen.address, or PORT to a number up to 65535".to_owned();
    Report::of(Finding::new(spot, format!("PORT is {value:?}, which is no port for clients"), Some(help)))
}

/// Returns the address for clients on this port.
fn address(port: &str) -> Option<SocketAddr> {
    let number = port.trim().parse().ok().filter(|port| *port != 0);
    number.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn start(text: &str, variables: &[(&str, &str)], overrides: &Overrides) -> AppStart {
        let document = Document::parse(Path::new("proxy.toml"), text.to_owned()).expect("TOML");
        AppStart::of(document, &variables.iter().copied().collect(), overrides)
    }

    #[test]
    fn every_layer_counts() {
        let none = Overrides::default();
        let upstream = |text: &str, variables: &[_], overrides: &_| start(text, variables, overrides).has_upstream;
        assert!(!upstream("[tls]\nmode = \"off\"\n", &[], &none));
        assert!(upstream("[upstream]\nurl = \"http://a:1\"\n", &[], &none));
        assert!(upstream("", &[("PULSEGATE__UPSTREAM__URL", "http://a:1")], &none));
        assert!(upstream("", &[], &Overrides { upstream: Some("http://a:1".into()), ..none.clone() }));
        let platform = |text: &str, variables: &[_]| start(text, variables, &none).takes_platform_port;
        assert!(platform("[tls]\nmode = \"off\"\n", &[]) && platform("", &[("PULSEGATE__TLS__MODE", "off")]));
        assert!(!platform("", &[]) && !platform("[listen]\naddress = \"[::]:1\"\n[tls]\nmode = \"off\"\n", &[]));
    }

    #[test]
    fn only_a_port_is_an_address() {
        assert_eq!(address("8080"), Some(([0, 0, 0, 0], 8080).into()));
        assert_eq!(["0", "/run/a.sock", "70000"].map(address), [None; 3]);
    }
}
