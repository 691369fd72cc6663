//! What is read about a process group.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The processes of a group at one moment, zombies excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Their ids.
    pub processes: BTreeSet<i32>,
    /// The sockets on which they listen, each once.
    pub listening: Vec<ListeningSocket>,
}

/// A socket that accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    all(not(test), any(feature = "portable", not(target_os = "linux"))),
    expect(dead_code, reason = "the portable half sees no sockets")
)]
pub enum ListeningSocket {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket with a path.
    Unix(PathBuf),
}
