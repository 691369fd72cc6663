//! The relay between two legs that follow the input: chunks of any size, readiness at any moment, errors, ends, and the
//! runtime's budget spent anywhere, in paused time.
//!
//! Each side must get the frames of the other byte for byte and in order; a client that answers lives; any session ends
//! within its bound, which a lost wake-up would miss; nothing is held afterwards.

mod frames;
mod judge;
mod peer;
mod plan;
mod session;
mod wire;
mod world;

use arbitrary::Unstructured;

/// Polls of one session that no input needs.
const POLLS_MOST: u32 = 100_000;

/// Runs one session as `data` says.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(plan) = plan::Plan::read(&mut input) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(session::play(plan, &mut input));
}
