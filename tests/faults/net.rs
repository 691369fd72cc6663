//! Two network namespaces with a link between them: the proxy is in one, the clients are in the other.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pulsegate_test_kit::client::{Tls, Wss};
use pulsegate_test_kit::http2::Http2Client;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::within;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::tool::{attempt, needs_root, run};

/// The time limit of a handshake on a bad link.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// The address of the proxy on the link.
const ADDRESS: [u8; 4] = [10, 77, 0, 1];

/// The namespaces, which are removed on drop, with everything in them.
pub(crate) struct Net {
    proxy: String,
    client: String,
}

impl Net {
    /// Creates namespaces with nothing between them.
    pub(crate) fn unlinked() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        needs_root();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("pulsegate-{}-{count}-{side}", std::process::id());
        let net = Self { proxy: name("proxy"), client: name("client") };
        for namespace in [&net.proxy, &net.client] {
            run(&["ip", "netns", "add", namespace]);
            run(&["ip", "-n", namespace, "link", "set", "lo", "up"]);
        }
        net
    }

    /// Creates namespaces with a pair of virtual Ethernet devices between them.
    pub(crate) fn linked() -> Self {
        let net = Self::unlinked();
        let Self { proxy, client } = &net;
        run(&["ip", "link", "add", "link0", "netns", proxy, "type", "veth", "peer", "name", "link0", "netns", client]);
        for (namespace, address) in [(proxy, "10.77.0.1/30"), (client, "10.77.0.2/30")] {
            run(&["ip", "-n", namespace, "address", "add", address, "dev", "link0"]);
            run(&["ip", "-n", namespace, "link", "set", "link0", "up"]);
            // Segments as they are on a wire, not batches of 64 KiB: a loss costs one of them.
            run(&["ip", "-n", namespace, "link", "set", "link0", "gso_max_segs", "1"]);
        }
        net
    }

    /// Returns a command inside the namespace of the proxy (`true`) or of the clients.
    pub(crate) fn command(&self, proxy: bool) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", if proxy { &self.proxy } else { &self.client }]);
        command
    }

    /// Starts the proxy inside its namespace.
    pub(crate) async fn proxy(&self, config: Config) -> Proxy {
        Proxy::start_by(self.command(true), SocketAddr::from((ADDRESS, 0)), config).await
    }

    /// Drops `percent` of the packets that arrive on either side.
    pub(crate) fn loses(&self, percent: u32) {
        self.filters(|_| format!("numgen random mod 100 < {percent} drop"));
    }

    /// Drops every packet of the connections of these client ports, without an answer.
    pub(crate) fn swallows(&self, ports: &[u16]) {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        self.filters(|proxy| format!("tcp {} {{ {ports} }} drop", if proxy { "sport" } else { "dport" }));
    }

    fn filters(&self, rule: impl Fn(bool) -> String) {
        for (namespace, proxy) in [(&self.proxy, true), (&self.client, false)] {
            let rules = format!(
                "table ip faults {{ chain input {{ type filter hook input priority 0; iifname \"lo\" accept; {}; }}; }}",
                rule(proxy)
            );
            run(&["ip", "netns", "exec", namespace, "nft", &rules]);
        }
    }

    /// Removes every filter.
    pub(crate) fn passes(&self) {
        for namespace in [&self.proxy, &self.client] {
            run(&["ip", "netns", "exec", namespace, "nft", "flush ruleset"]);
        }
    }

    /// Takes the clients' end of the link down, or up again.
    pub(crate) fn link(&self, state: &str) {
        run(&["ip", "-n", &self.client, "link", "set", "link0", state]);
    }

    /// Opens a TCP connection from the namespace of the clients.
    pub(crate) async fn connect(&self, address: SocketAddr) -> TcpStream {
        let (sender, receiver) = oneshot::channel();
        let namespace = format!("/run/netns/{}", self.client);
        // A thread of its own: a socket belongs to the namespace of the thread that creates it.
        thread::spawn(move || {
            let enter = |file: File| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), kind).map_err(io::Error::from)
            };
            let entered = File::open(&namespace).and_then(enter);
            let stream = entered.and_then(|()| StdStream::connect_timeout(&address, HANDSHAKE));
            let _ = sender.send(stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)));
        });
        let stream = receiver.await.expect("the thread sends its result");
        let stream = stream.and_then(TcpStream::from_std);
        stream.unwrap_or_else(|error| panic!("connect to {address} in {}: {error}", self.client))
    }

    async fn tls(&self, proxy: &Proxy, protocol: &str) -> (u16, Tls) {
        let stream = self.connect(proxy.address).await;
        let port = stream.local_addr().expect("it is connected").port();
        let name = ServerName::try_from("localhost").expect("a valid name");
        let handshake = TlsConnector::from(proxy.pki.client_of(protocol)).connect(name, stream);
        (port, within(HANDSHAKE, "the TLS handshake", handshake).await.expect("the certificate is trusted"))
    }

    /// Opens a WebSocket over HTTP/1.1; returns it with its client port.
    pub(crate) async fn websocket(&self, proxy: &Proxy, path: &str) -> (u16, Box<Wss>) {
        let (port, tls) = self.tls(proxy, "http/1.1").await;
        let request = proxy.wss(path).into_client_request().expect("a valid URL");
        let handshake = Box::pin(tokio_tungstenite::client_async(request, tls));
        let (websocket, _) = within(HANDSHAKE, "the upgrade", handshake).await.expect("the upgrade is accepted");
        (port, Box::new(websocket))
    }

    /// Opens a connection over HTTP/2; returns it with its client port.
    pub(crate) async fn h2(&self, proxy: &Proxy) -> (u16, Http2Client) {
        let (port, tls) = self.tls(proxy, "h2").await;
        (port, Http2Client::over(tls, &h2::client::Builder::new()).await)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.proxy, &self.client] {
            if let Err(error) = attempt(&["ip", "netns", "delete", namespace]) {
                eprintln!("{error}");
            }
        }
    }
}
