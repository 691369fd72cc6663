//! pebble, an authority for tests, and the name server by which it finds the proxy.

use std::fs;
use std::path::PathBuf;

use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::Process;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::rig::{Ports, Site, free_ports};

/// How it treats its clients.
#[derive(Default)]
pub(super) struct Terms {
    /// Of 100 valid nonces, those that are refused.
    pub(super) nonces_refused: u8,
    /// The external accounts that it knows; none are needed if there are none.
    pub(super) external: Option<(&'static str, &'static str)>,
}

/// A running authority.
pub(super) struct Pebble {
    process: Process,
    _names: Process,
    _folder: TempDir,
    pub(super) directory: String,
    pub(super) ca: PathBuf,
}

impl Pebble {
    /// Starts it; every name leads to this machine, and challenges to `ports`.
    pub(super) async fn start(ports: Ports, terms: Terms) -> Self {
        let [acme] = free_ports();
        Self::start_at(acme, ports, terms).await
    }

    /// As [`Self::start`], on the port `acme`.
    pub(super) async fn start_at(acme: u16, ports: Ports, terms: Terms) -> Self {
        let folder = TempDir::with_prefix("pulsegate-pebble-").expect("make a temporary directory");
        let pki = Pki::make(folder.path());
        let [management, dns, dns_management] = free_ports();
        let mut names = Command::new("pebble-challtestsrv");
        let none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        names.args(["-defaultIPv4", "127.0.0.1", "-dns01", &format!("127.0.0.1:{dns}")]).args(none);
        names.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let names = Process::start_without_input("pebble-challtestsrv", &mut names);
        let mut config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": pki.certificate,
            "privateKey": pki.private_key,
            "httpPort": ports.plain,
            "tlsPort": ports.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": terms.external.is_some(),
        }});
        if let Some((id, key)) = terms.external {
            config["pebble"]["externalAccountMACKeys"] = json!({ id: key });
        }
        let file = folder.path().join("pebble.json");
        fs::write(&file, config.to_string()).expect("write its configuration");
        let mut command = Command::new("pebble");
        command.arg("-strict").arg("-config").arg(&file).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_WFE_NONCEREJECT", terms.nonces_refused.to_string());
        let process = Process::start_without_input("pebble", &mut command);
        process.line("its port", |line| line.text.contains("ACME directory available")).await;
        names.line("its port", |line| line.text.contains("Starting management server")).await;
        let directory = format!("https://127.0.0.1:{acme}/dir");
        Self { process, _names: names, directory, ca: pki.ca, _folder: folder }
    }

    /// Returns a site whose certificate is ordered here.
    pub(super) fn site(&self, ports: Ports) -> Site {
        Site::at(&self.directory, &self.ca, ports)
    }

    /// Its log so far.
    pub(super) fn transcript(&self) -> String {
        self.process.transcript()
    }
}
