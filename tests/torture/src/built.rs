//! The binary under test.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Returns the given binary, or the one of this workspace after a build.
///
/// # Errors
///
/// Fails if there is no file at the path, or if the build fails.
pub fn binary(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("there is no {}", path.display()));
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status =
        Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "pulsegate"]).current_dir(&root).status()?;
    if !status.success() {
        bail!("`cargo build -p pulsegate` failed");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("debug/pulsegate").canonicalize().context("`cargo build -p pulsegate` has left no binary")
}
