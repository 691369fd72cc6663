//! Several listeners on one address, one for each worker.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, Socket, Type};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Opens `count` non-blocking listeners on one address, over which the kernel spreads connections (`SO_REUSEPORT`,
/// socket(7)); `backlog` connections wait in each. With port 0 the first takes any free port and the others share it.
///
/// Portable: one listener and duplicates of it, since other systems take `SO_REUSEPORT` but do not spread connections. All
/// share one backlog, every worker wakes for a connection, and the fastest takes it: workers may be loaded unevenly.
///
/// # Errors
///
/// Returns the kernel's error; `AddrInUse` where any program listens on the address, this one included.
pub fn open(address: SocketAddr, count: NonZeroUsize, backlog: i32) -> io::Result<Vec<TcpListener>> {
    system::open(address, count, backlog)
}

/// A socket that is not bound yet.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier run in TIME_WAIT must not block a restart.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` includes IPv4, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn listen(socket: Socket, address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
