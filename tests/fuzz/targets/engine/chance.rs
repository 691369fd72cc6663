//! What the input decides on client and network.

use std::time::Duration;

/// The nature of the client and of the way to it.
#[derive(Debug)]
pub struct Chance {
    /// Whether the client dies at the end.
    pub dies: bool,
    /// Whether its kernel lives on then.
    pub hangs: bool,
    /// Whether the kernel can be asked.
    pub kernel: bool,
    /// From the arrival of a ping to that of its pong; under half the timeout.
    pub latency: Duration,
    /// Bytes a second that the client takes.
    pub rate: u64,
    pub seed: u64,
}
