//! `pulsegate completions`: prints completion scripts for shells.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;

/// Writes the script for `shell` to `out`.
pub(super) fn print(shell: Shell, mut command: clap::Command, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    // The generator panics on write errors; writing to memory has none.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script).and_then(|()| out.flush()).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}
