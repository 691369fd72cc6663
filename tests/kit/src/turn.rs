//! Turns of the tests that keep a core busy: floods, thousands of sessions, hundreds of megabytes.
//!
//! Most tests wait for most of their time, and many of them run at once. A busy test takes a turn first, so that only one
//! of them at a time competes with the windows of the others.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(1);

/// Waits for a turn, which lasts until the value is dropped.
pub async fn busy_turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("the semaphore is never closed")
}
