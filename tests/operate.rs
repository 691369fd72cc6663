//! The commands that speak to a running proxy, as processes.
//!
//! What a proxy may answer, or fail to, is played by a fake; what it does is shown on the real one in `real`.

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
