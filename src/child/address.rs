//! The address of the app before it is started: another program there would be taken for the app.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{io, process};

use crate::config::UpstreamTarget;
use crate::platform::process_family::{FamilyMember, tcp_owner, unix_owner};

/// The time limit of an attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Returns the program that accepts connections at `address`, if there is one.
pub fn occupant(address: &UpstreamTarget) -> Option<String> {
    let owner = match address {
        UpstreamTarget::Tcp { host, port } => {
            // A name that cannot be resolved is reported with the first connection.
            let addresses: Vec<SocketAddr> = (&**host, *port).to_socket_addrs().ok()?.collect();
            addresses.iter().find(|address| accepts(address))?;
            tcp_owner(&addresses)
        }
        UpstreamTarget::Unix(path) => {
            UnixStream::connect(path).ok()?;
            unix_owner(path)
        }
    };
    Some(match owner {
        Some((id, _)) if id.cast_unsigned() == process::id() => "pulsegate itself".to_owned(),
        Some((id, FamilyMember { name, .. })) => format!("{name} (process {id})"),
        None => "another program".to_owned(),
    })
}

fn accepts(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, ATTEMPT)
        .is_ok_and(|stream| leads_to_another(stream.local_addr(), stream.peer_addr()))
}

/// Returns whether a connection has another socket at its end. The kernel may choose the port itself as the connection's
/// own: it is then connected to itself (RFC 9293 §3.5).
pub(super) fn leads_to_another(own: io::Result<SocketAddr>, peer: io::Result<SocketAddr>) -> bool {
    matches!((own, peer), (Ok(own), Ok(peer)) if own != peer)
}
