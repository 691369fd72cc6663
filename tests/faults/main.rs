//! Faults of the system around the built binary: lossy and dead links, stopped processes, a shortage of descriptors or
//! memory, a log that takes nothing, and clocks that jump. The links are those of network namespaces of the tests' own.

#[path = "../h2/client.rs"]
#[expect(dead_code, reason = "shared with the tests of HTTP/2")]
mod client;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other tests of the built binary")]
mod support;

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
