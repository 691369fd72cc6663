//! Options of TCP sockets that POSIX does not have.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

use std::io;
use std::time::Duration;

use socket2::Socket;
use tokio::net::TcpStream;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Lets the kernel drop the connection when written bytes stay unacknowledged for `after` (`TCP_USER_TIMEOUT`,
/// RFC 5482). A socket that refuses the option is already closed.
///
/// Portable: does nothing. A client that vanished while a response waits for it is then noticed by the deadlines of the
/// program, and where there is none, by the system's own retransmission limit (some 15 minutes).
pub fn set_user_timeout(tcp: &TcpStream, after: Duration) {
    system::set_user_timeout(tcp, after);
}

/// Limits the bytes that the kernel takes and may not send yet (`TCP_NOTSENT_LOWAT`, tcp(7)); `None` is the system's own
/// limit.
///
/// Portable: does nothing. All works, with up to some megabytes of kernel memory for each slow client.
pub fn limit_unsent(tcp: &TcpStream, bytes: Option<u32>) {
    system::limit_unsent(tcp, bytes);
}

/// Makes a coming bind to an address with port 0 leave the choice of the port to the connect
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)), when it is known which ports are taken for the destination.
///
/// Portable: does nothing. The port is chosen by the bind and must be free for every destination, so that a source address
/// allows about 28,000 connections in all instead of for each destination.
///
/// # Errors
///
/// Returns the kernel's error where the option is refused.
pub fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    system::choose_port_at_connect(socket)
}
