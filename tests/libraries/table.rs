//! The README's table, made of what the scenarios assert.

use crate::library::Library;

/// Every library that is tried, in the order of the table.
pub(crate) const LIBRARIES: &[&Library] = &[
    &crate::ws::LIBRARY,
    &crate::signalr::LIBRARY,
    &crate::stomp::LIBRARY,
    &crate::mqtt::LIBRARY,
    &crate::mqtt::IN_NODE,
    &crate::phoenix::LIBRARY,
    &crate::actioncable::LIBRARY,
    &crate::pusher::LIBRARY,
    &crate::pusher::IN_NODE,
];

#[test]
fn every_package_has_its_version_in_the_lock_file() {
    for library in LIBRARIES {
        assert_eq!(library.versions().len(), library.packages.len());
    }
}
