//! Source addresses over which connections to the app are distributed. One address has some 28,000 ports per
//! destination (Linux's default range), and each session takes one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::platform::socket_options::choose_port_at_connect;
use crate::telemetry::Chain;

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::upstream::source";

/// The source addresses, used in turn.
#[derive(Debug)]
pub(super) struct Sources {
    addresses: Vec<IpAddr>,
    turn: AtomicUsize,
}

impl Sources {
    /// Creates the list; with no addresses, the kernel chooses the source.
    pub(super) fn new(addresses: Vec<IpAddr>) -> Self {
        // A random start: workers that began with the same address would stay in step.
        let turn = AtomicUsize::new(fastrand::usize(..1024));
        Self { addresses, turn }
    }

    /// Connects to `destination` from the next address of its family. An address without a free port for it, or one
    /// that this machine does not have, is skipped.
    pub(super) async fn connect(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        let of_its_family = |source: &&IpAddr| source.is_ipv4() == destination.is_ipv4();
        let fitting: Vec<IpAddr> = self.addresses.iter().filter(of_its_family).copied().collect();
        if fitting.is_empty() {
            return TcpStream::connect(destination).await;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut passed_over = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for source in (0..fitting.len()).map(|next| fitting[first.wrapping_add(next) % fitting.len()]) {
            let connected = match bound(source) {
                Ok(socket) => socket.connect(destination).await,
                Err(error) => Err(error),
            };
            match connected {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    tracing::debug!(target: TARGET, %source, %destination, error = %Chain(&error), "upstream.source");
                    passed_over = error;
                }
                done => return done,
            }
        }
        Err(passed_over)
    }
}

/// Returns a socket that connects from `source`. The kernel chooses its port on connect, when the destination is known;
/// a port chosen now would have to be free for every destination.
fn bound(source: IpAddr) -> io::Result<TcpSocket> {
    let domain = Domain::for_address(SocketAddr::new(source, 0));
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    choose_port_at_connect(&socket)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    fn loopback(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    /// Returns the number of connections from each source address, after `count` connects.
    async fn connections(sources: &Sources, count: usize) -> BTreeMap<IpAddr, usize> {
        let listener = TcpListener::bind((loopback(1), 0)).await.expect("bind");
        let destination = listener.local_addr().expect("an address");
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            let (connected, accepted) = tokio::join!(sources.connect(destination), listener.accept());
            connected.expect("connect");
            *seen.entry(accepted.expect("accept").1.ip()).or_default() += 1;
        }
        seen
    }

    #[tokio::test]
    async fn connections_are_spread_evenly() {
        let sources = Sources::new(vec![loopback(2), loopback(3), loopback(4)]);
        let expected = BTreeMap::from([2, 3, 4].map(|last| (loopback(last), 4)));
        assert_eq!(connections(&sources, 12).await, expected);
    }

    #[tokio::test]
    async fn an_address_that_will_not_do_is_passed_over() {
        // The second is reserved for documentation (RFC 5737); the third belongs to another family.
        let foreign: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let sources = Sources::new(vec![loopback(2), foreign, "::1".parse().expect("an address")]);
        assert_eq!(connections(&sources, 6).await, BTreeMap::from([(loopback(2), 6)]));
        let listener = TcpListener::bind((loopback(1), 0)).await.expect("bind");
        let nothing_left = Sources::new(vec![foreign]).connect(listener.local_addr().expect("an address")).await;
        assert_eq!(nothing_left.expect_err("no way").kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn the_kernel_chooses_without_configured_addresses() {
        assert_eq!(connections(&Sources::new(Vec::new()), 1).await, BTreeMap::from([(loopback(1), 1)]));
        let of_another_family = Sources::new(vec!["::1".parse().expect("an address")]);
        assert_eq!(connections(&of_another_family, 1).await, BTreeMap::from([(loopback(1), 1)]));
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[tokio::test]
    async fn a_port_is_taken_when_the_destination_is_known() {
        let socket = bound(loopback(2)).expect("bind");
        assert_eq!(socket.local_addr().expect("an address"), SocketAddr::new(loopback(2), 0));
    }
}
