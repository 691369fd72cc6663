//! The commands that speak to a running proxy, as processes.
//!
//! What a proxy may answer, or fail to, is played by a fake; what it does is shown on the real one in `real`.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other end-to-end tests")]
mod support;

mod conns;
mod diagnose;
mod drain;
mod fake;
mod health;
mod kill;
mod program;
mod real;
mod reload;
mod start;
mod terminal;
mod top;
mod whereabouts;
