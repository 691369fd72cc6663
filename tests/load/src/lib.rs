//! The load generator behind `tests/load/run`.
//!
//! ```text
//! generator ──TLS──▶ nginx | HAProxy | pulsegate ──TCP──▶ echo upstream
//!     └── reads /proc of the proxy: CPU time and memory ──┘
//! ```
//!
//! [`dial`] opens a session, [`session`] implements WebSocket on it, [`fetch`] makes plain requests, and [`fleet`] runs
//! thousands of either under common orders. A session runs on a [`wire`]: a connection of its own, or a stream of an
//! HTTP/2 [`mod@line`] that many share. Each file of [`scenario`] is one experiment that prints `name value` lines.
//! [`report`] turns the lines of many runs into one table. [`upstream`] is the server behind every proxy.

pub mod cert;
pub mod dial;
pub mod fetch;
pub mod fleet;
pub mod frame;
pub mod head;
pub mod line;
pub mod pattern;
pub mod process;
pub mod report;
pub mod scenario;
pub mod session;
pub mod stand_in;
pub mod stats;
pub mod upstream;
pub mod wire;
