//! Listeners of their own on one port, by `SO_REUSEPORT`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use super::socket::{listen, unbound};

pub(super) fn open(address: SocketAddr, count: NonZeroUsize, backlog: i32) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT alone, a second process of the same user would start without an error and take half of the
    // connections of the first. A bind without the option fails when anything listens on the port.
    unbound(address)?.bind(&address.into())?;
    let sharing = |address| {
        let socket = unbound(address)?;
        socket.set_reuse_port(true)?;
        listen(socket, address, backlog)
    };
    let first = sharing(address)?;
    let address = first.local_addr()?;
    let others = (1..count.get()).map(|_| sharing(address));
    std::iter::once(Ok(first)).chain(others).collect()
}
