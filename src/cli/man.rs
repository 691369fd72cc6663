//! `pulsegate man`: prints the manual, as one page or as one page per command.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;

/// Writes a single page to `out`, with a section per command.
pub(super) fn print(command: Command, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    page(command).and_then(|page| out.write_all(&page)).and_then(|()| out.flush()).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one page per command into `folder`, which is created if it does not exist.
pub(super) fn write(command: Command, folder: &Path) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut command = command.disable_help_subcommand(true);
    // Sets the full path of each command as its name.
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    command.get_subcommands().try_for_each(|command| section(command, &mut page))?;
    Ok(page)
}

/// Writes a command with its options, and the commands below it.
fn section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|command| section(command, page));
    }
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
    let man = Man::new(command.clone());
    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    man.render_extra_section(&mut parts)?;
    // The sections of a command's own page become parts of this page's section.
    for line in String::from_utf8_lossy(&parts).lines() {
        match line.strip_prefix(".SH ") {
            // The text below a command's help lists exit codes and notes.
            Some("EXTRA") => writeln!(page, ".SS NOTES")?,
            Some(heading) => writeln!(page, ".SS {heading}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    Ok(())
}
