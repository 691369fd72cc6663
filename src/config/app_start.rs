//! The part of a configuration that decides on the addresses of an app started by pulsegate, read before the rest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::document::Document;
use super::input::Input;
use super::layers::Layers;
use super::overrides::{Environment, Overrides};
use super::reader::TreeReader;

/// The variable by which a platform names the port that it sends requests to.
const PORT: &str = "PORT";

/// The keys that decide on the addresses of an app started by pulsegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppStart {
    /// Set if the address of the app is configured.
    pub has_upstream: bool,
    /// Set if the port of clients speaks plain HTTP, and no address is configured for it: it then belongs on the
    /// platform's port.
    pub takes_platform_port: bool,
}

impl AppStart {
    /// Reads the keys of `input` with environment and `overrides`. Faults are reported when the whole is loaded.
    pub fn read(input: &Input, overrides: &Overrides) -> Self {
        Self::of(input.document().unwrap_or_default(), &Environment::of_process(), overrides)
    }

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

/// Returns the address for clients on the port that the platform names in `PORT`; `None` if it names none.
///
/// # Errors
///
/// The value, if it is no port.
pub fn platform_address() -> Result<Option<SocketAddr>, String> {
    std::env::var_os(PORT).map(|value| address(&value.to_string_lossy())).transpose()
}

fn address(port: &str) -> Result<SocketAddr, String> {
    let number = port.trim().parse().ok().filter(|port| *port != 0);
    number.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).ok_or_else(|| port.to_owned())
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
        assert_eq!(address("8080"), Ok(([0, 0, 0, 0], 8080).into()));
        assert_eq!(["0", "/run/a.sock", "70000"].map(|text| address(text).is_err()), [true; 3]);
    }
}
