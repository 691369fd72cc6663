//! Nothing is read: POSIX has no interface for the processes of a group.

use super::snapshot::GroupSnapshot;

pub(super) fn read(_leader: i32) -> Option<GroupSnapshot> {
    None
}
