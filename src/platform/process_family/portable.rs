//! Nothing is read: POSIX has no interface for the descendants of a process.

use std::net::SocketAddr;
use std::path::Path;

use super::snapshot::{FamilyMember, FamilySnapshot, ListeningSocket, ZombieChild};

pub(super) fn adopt_orphans() -> bool {
    false
}

pub(super) fn read(_leader: i32) -> Option<FamilySnapshot> {
    None
}

pub(super) fn listening(_family: &FamilySnapshot) -> Vec<ListeningSocket> {
    Vec::new()
}

pub(super) fn zombies() -> Option<Vec<ZombieChild>> {
    None
}

pub(super) fn tcp_owner(_addresses: &[SocketAddr]) -> Option<(i32, FamilyMember)> {
    None
}

pub(super) fn unix_owner(_path: &Path) -> Option<(i32, FamilyMember)> {
    None
}
