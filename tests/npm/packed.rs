//! The tarballs of the program under test, and of a second platform that is never chosen.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::PULSEGATE;

/// The version of every package.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the processor of this machine, and another one, by Node's names.
fn processors() -> (&'static str, &'static str) {
    match ARCH {
        "x86_64" => ("x64", "arm64"),
        "aarch64" => ("arm64", "x64"),
        other => panic!("no npm package is made for {other}"),
    }
}

/// Returns the platform of this machine.
pub(super) fn platform() -> String {
    format!("linux-{}", processors().0)
}

/// Returns the processor of the other platform.
pub(super) fn other_processor() -> &'static str {
    processors().1
}

/// Returns the package of this platform.
pub(super) fn package() -> String {
    format!("@pulsegate/cli-{}", platform())
}

/// Returns the package of the other platform.
pub(super) fn other_package() -> String {
    format!("@pulsegate/cli-linux-{}", other_processor())
}

/// Returns the header of a Linux program for the other processor: enough for its package.
pub(super) fn other_program() -> [u8; 64] {
    let mut header = [0; 64];
    header[..6].copy_from_slice(b"\x7fELF\x02\x01");
    header[18] = if other_processor() == "x64" { 62 } else { 183 };
    header
}

/// Returns the tarballs of both platforms; packs them once.
pub(super) fn tarballs() -> &'static Tarballs {
    static TARBALLS: OnceLock<Tarballs> = OnceLock::new();
    TARBALLS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
        fs::create_dir_all(&folder).expect("make a directory");
        // Debug information is most of its 200 MB, and each package manager would unpack it.
        let (program, other) = (folder.join("pulsegate"), folder.join("other"));
        succeeds(Command::new("strip").arg("-o").arg(&program).arg(PULSEGATE));
        fs::write(&other, other_program()).expect("write a file");
        succeeds(pack().args(["--allow-dynamic", "--out"]).arg(&folder).arg(&program).arg(&other));
        Tarballs { folder }
    })
}

/// The folder of the tarballs.
pub(super) struct Tarballs {
    folder: PathBuf,
}

impl Tarballs {
    /// Returns the program that was packed.
    pub(super) fn source(&self) -> PathBuf {
        self.folder.join("pulsegate")
    }

    /// Returns the tarball of the launcher.
    pub(super) fn launcher(&self) -> PathBuf {
        self.folder.join(format!("pulsegate-{VERSION}.tgz"))
    }

    /// Returns the tarball of the program for this platform.
    pub(super) fn program(&self) -> PathBuf {
        self.folder.join(format!("pulsegate-cli-{}-{VERSION}.tgz", platform()))
    }

    /// Returns the tarball of the other platform.
    pub(super) fn other(&self) -> PathBuf {
        self.folder.join(format!("pulsegate-cli-linux-{}-{VERSION}.tgz", other_processor()))
    }

    /// Returns the tarball with launcher and program in one.
    pub(super) fn whole(&self) -> PathBuf {
        self.folder.join(format!("pulsegate-{VERSION}-{}.tgz", platform()))
    }
}

/// Returns the command `deploy/npm/pack`.
pub(super) fn pack() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/npm/pack"))
}

/// Runs a command that must succeed; returns its standard output.
pub(super) fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; ./tests/install installs what it needs"));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}
