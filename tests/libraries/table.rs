//! The README's table, made of what the scenarios assert.

use crate::library::Library;

/// Every library that is tried, in the order of the table.
pub(crate) const LIBRARIES: &[&Library] = &[
    &crate::ws::LIBRARY,
    &crate::socket_io::WEBSOCKET,
    &crate::socket_io::POLLING,
    &crate::graphql_ws::LIBRARY,
    &crate::subscriptions_transport_ws::LIBRARY,
];

#[test]
fn every_package_has_its_version_in_the_lock_file() {
    for library in LIBRARIES {
        assert_eq!(library.versions().len(), library.packages.len());
    }
}
