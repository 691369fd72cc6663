//! The pulsegate command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A proxy allocates for every request and frees soon after, on the same thread; a static build's allocator is made for
/// anything but that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pulsegate::cli::main()
}
