//! The processes of a program that this process has started: all its descendants, in whatever group or session they are.
//!
//! Where this cannot be read, as in the portable half, the processes of the program's own group are all that is known of it:
//! they can be sent signals, but not told apart, and zombies among them count as alive.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;
mod snapshot;

use std::net::SocketAddr;
use std::path::Path;

pub use snapshot::{FamilyMember, FamilySnapshot, ListeningSocket, ZombieChild};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// The variable in the environment of the program that names the process that has started it. A child without it, whose
/// environment is otherwise that of this process, is not of the family: this process started it for another purpose, or
/// was itself started as its sibling.
pub const MARK: &str = "PULSEGATE_PID";

/// Makes this process the parent of every descendant whose own parent has ended, so that none escapes; returns whether the
/// system allows it.
pub fn adopt_orphans() -> bool {
    system::adopt_orphans()
}

/// Reads the living descendants of this process that belong to the program whose first process is `leader`; `None` where the
/// system does not say.
pub fn read(leader: i32) -> Option<FamilySnapshot> {
    system::read(leader)
}

/// Returns the sockets on which processes of `family` listen, each once.
pub fn listening(family: &FamilySnapshot) -> Vec<ListeningSocket> {
    system::listening(family)
}

/// Returns the children of this process that have ended and not been waited for; `None` where the system does not say.
pub fn zombies() -> Option<Vec<ZombieChild>> {
    system::zombies()
}

/// Returns the process that listens on one of `addresses`, or on all addresses with one of their ports.
pub fn tcp_owner(addresses: &[SocketAddr]) -> Option<(i32, FamilyMember)> {
    system::tcp_owner(addresses)
}

/// Returns the process that listens on the unix socket with this path.
pub fn unix_owner(path: &Path) -> Option<(i32, FamilyMember)> {
    system::unix_owner(path)
}
