//! Several listeners on one address, one for each worker.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

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
