//! What is read about a family of processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The living processes of a family at one moment, by their ids. Zombies are not alive.
pub type FamilySnapshot = BTreeMap<i32, FamilyMember>;

/// One living process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyMember {
    /// The name of its program, of 15 bytes at most.
    pub name: String,
    /// The id of its process group.
    pub group: i32,
    /// Whether it is stopped.
    pub is_stopped: bool,
    /// The signal that has stopped it, if that is known.
    pub stopped_by: Option<i32>,
}

/// A child of this process that has ended and not been waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZombieChild {
    /// Its id.
    pub id: i32,
    /// Whether it leads a process group within the session of this process, as programs do that this process starts itself.
    pub leads_group: bool,
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
