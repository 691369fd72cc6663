//! The load generator behind `tests/load/run`.
//!
//! ```text
//! generator ──TLS──▶ nginx | HAProxy | pulsegate ──TCP──▶ echo upstream
//!     └── reads /proc of the proxy: CPU time and memory ──┘
//! ```
//!
//! [`dial`] opens a session, [`session`] speaks WebSocket on it, [`fleet`] runs thousands of them under common orders,
//! and each file of [`scenario`] is one experiment that prints `name value` lines. [`report`] turns the lines of many
//! runs into one table. [`upstream`] is the echo server that stands behind every proxy.

pub mod cert;
pub mod dial;
pub mod fleet;
pub mod frame;
pub mod head;
pub mod pattern;
pub mod process;
pub mod report;
pub mod scenario;
pub mod session;
pub mod stats;
pub mod upstream;
