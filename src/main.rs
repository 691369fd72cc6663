//! The pulsegate command.

use std::process::ExitCode;

fn main() -> ExitCode {
    pulsegate::cli::main()
}
