//! The kit of the tests that run the built binary: processes, clients, apps, certificates, frames, and waits that end.
//!
//! It shares no code with the program: every expectation of a test is written here a second time, or comes from another
//! library.

pub mod browser;
pub mod client;
pub mod fake_app;
pub mod frame;
pub mod http1;
pub mod http2;
pub mod node;
pub mod open_files;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod spread;
pub mod turn;
pub mod wait;
