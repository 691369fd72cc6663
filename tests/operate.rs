//! The commands that control a running proxy, as processes: against a fake admin API with every answer and failure, and
//! in `real` against the built binary.

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
pub(crate) mod terminal;
mod top;
mod whereabouts;
