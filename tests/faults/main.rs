//! Faults of the system around the built binary: lossy and dead links, stopped processes, a shortage of descriptors or
//! memory, a log that cannot be written, and clocks that jump. The links are those of network namespaces of the tests'
//! own.

mod live;
mod net;
mod tool;

mod app_stopped;
mod clock;
mod delay;
mod descriptors;
mod log;
mod loss;
mod memory;
mod proxy_stopped;
mod vanish;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
