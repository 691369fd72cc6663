//! The pulsegate command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// mimalloc: a proxy allocates for every request and frees soon after on the same thread, for which the allocator of a
/// static build is slow.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pulsegate::cli::main()
}
