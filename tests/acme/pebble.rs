//! pebble, an authority for tests, and the name server by which it finds the proxy.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use pulsegate::tls::client::{TlsClient, Trust};
use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::{wait_for, wait_until_async};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::rig::{Ports, Site, free_ports};

/// How it treats its clients.
#[derive(Clone, Copy, Default)]
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
    management: u16,
    pub(super) directory: String,
    pub(super) ca: PathBuf,
}

impl Pebble {
    /// Starts it; every name leads to this machine, and challenges to `ports`.
    pub(super) async fn start(ports: Ports, terms: Terms) -> Self {
        for _ in 0..5 {
            let [acme] = free_ports();
            let pebble = Self::start_at(acme, ports, terms).await;
            if pebble.has_its_port(acme).await {
                return pebble;
            }
        }
        panic!("another program took the chosen port five times");
    }

    /// Returns whether it listens there itself: another test may have taken a port that was free.
    async fn has_its_port(&self, port: u16) -> bool {
        let connect = async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok();
        let tcp = wait_until_async("an authority listens", connect, Option::is_some).await.expect("it listens");
        let client = TlsClient::new(&Trust::File(self.ca.clone()), None).expect("a client");
        wait_for("a handshake", client.handshake("127.0.0.1", tcp)).await.is_ok()
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
        Self { process, _names: names, management, directory, ca: pki.ca, _folder: folder }
    }

    /// Returns the certificate of the root that its certificates lead to, in PEM.
    pub(super) async fn root(&self) -> String {
        // It opens this port by itself, after the other.
        let connect = async || TcpStream::connect((Ipv4Addr::LOCALHOST, self.management)).await;
        let tcp = wait_until_async("a connection", connect, Result::is_ok).await;
        let client = TlsClient::new(&Trust::File(self.ca.clone()), None).expect("a client");
        let handshake = client.handshake("127.0.0.1", tcp.expect("it listens"));
        let mut stream = wait_for("a handshake", handshake).await.expect("its certificate is trusted");
        let request = b"GET /roots/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        wait_for("the request", stream.write_all(request)).await.expect("it reads");
        let response = wait_for("the root", Response::read(&mut stream)).await.expect("a response");
        assert_eq!(response.status, 200, "{response:?}");
        response.body
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
