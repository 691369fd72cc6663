//! What the end-to-end tests stand on: real processes, real sockets, and waits that say what they saw.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod deadline;
pub(crate) mod fake;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod node;
pub(crate) mod pki;
pub(crate) mod plain;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod spread;
