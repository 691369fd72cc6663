//! The steps that open a listener.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Creates a non-blocking socket for `address`, not bound yet.
pub(super) fn unbound(address: SocketAddr) -> io::Result<Socket> {
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

/// Binds `socket` to `address` and listens.
pub(super) fn listen(socket: Socket, address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
