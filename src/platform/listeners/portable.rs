//! Duplicates of one listener.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use super::socket::{listen, unbound};

pub(super) fn open(address: SocketAddr, count: NonZeroUsize, backlog: i32) -> io::Result<Vec<TcpListener>> {
    let first = listen(unbound(address)?, address, backlog)?;
    let mut listeners = (1..count.get()).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    listeners.push(first);
    Ok(listeners)
}
