//! Facilities of the kernel, each with a fallback for systems that lack it.
//!
//! One module per facility: its interface, and what the fallback costs, stand in the module itself; `linux.rs` and
//! `portable.rs` lie beside each other below it. The portable half needs POSIX alone. It is compiled on every system but
//! Linux, and on Linux with the cargo feature `portable`, so that it is tested there. This room imports no other.

pub mod file_changes;
pub mod file_identity;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux_calls;
pub mod listeners;
pub mod parent_death;
pub mod process_family;
pub mod process_usage;
pub mod socket_options;
pub mod socket_queues;
pub mod terminal_keys;
