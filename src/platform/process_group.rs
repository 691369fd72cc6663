//! The processes of a program that was started in a process group of its own, and the sockets on which they listen.
//!
//! Where this cannot be read, as in the portable half, an app that listens on another port is diagnosed as one that does
//! not listen.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;
mod snapshot;

pub use snapshot::{GroupSnapshot, ListeningSocket};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Reads the processes of the group of `leader`, and all descendants of it in other groups; `None` where the system does
/// not say.
pub fn read(leader: i32) -> Option<GroupSnapshot> {
    system::read(leader)
}
