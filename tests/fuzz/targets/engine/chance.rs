//! The input's choices for client and network.

use std::time::Duration;

/// The properties of the client and of the path to it.
#[derive(Debug)]
pub struct Chance {
    /// True if the client dies at the end.
    pub dies: bool,
    /// True if its kernel keeps running then.
    pub hangs: bool,
    /// True if the kernel can be queried.
    pub kernel: bool,
    /// The time from the arrival of a ping to that of its pong; under half the timeout.
    pub latency: Duration,
    /// Bytes per second that the client takes.
    pub rate: u64,
    pub seed: u64,
}
