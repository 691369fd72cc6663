//! The relay between two legs that follow the input: chunks of any size, readiness at any moment, errors, ends, and an
//! exhausted budget of the runtime at any point, in paused time.
//!
//! Each side must get the frames of the other byte for byte and in order; a client that answers is not closed; any
//! session ends within its bound, which a lost wake-up would miss; no buffer is held afterwards.

mod frames;
mod judge;
mod peer;
mod plan;
mod session;
mod wire;
mod world;

use arbitrary::Unstructured;

/// A number of polls of one session that no input needs.
const POLLS_MOST: u32 = 100_000;

/// Runs one session according to `data`.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(plan) = plan::Plan::read(&mut input) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(session::play(plan, &mut input));
}
