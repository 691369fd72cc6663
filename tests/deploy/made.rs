//! The packages, made once for all tests, and the programs that read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::PULSEGATE;

const LIMIT: &str = "300";

/// The folder of the packages; the process id follows.
const PREFIX: &str = "packaged-";

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns a command of this program that is killed after [`LIMIT`] seconds.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program.as_ref()).current_dir(repository());
    command
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().expect("timeout(1) runs");
    assert_ne!(output.status.code(), Some(127), "{command:?}: {}; run ./tests/install", text(&output.stderr));
    output
}

/// Runs a command, which must succeed; returns its standard output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed
}

/// Runs a command, which must fail with this exit code and these words.
#[track_caller]
pub(crate) fn refuse(command: &mut Command, code: i32, words: &str) {
    let output = run(command);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {errors}");
    assert!(errors.contains(words), "no {words:?} in {errors}");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the program under test without its debug information, which would be most of a package.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // A static is not dropped: the next run removes what the processes of earlier ones have left.
        for left in files(folder) {
            let pid = left.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(left).expect("remove a folder");
            }
        }
        let path = folder.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).expect("make a folder");
        let stripped = path.join("pulsegate");
        succeed(command("strip").arg("-o").arg(&stripped).arg(PULSEGATE));
        stripped
    })
}

/// Returns `deploy/packages/build` with the program under test, writing to `out`.
pub(crate) fn build_to(out: &Path) -> Command {
    let mut command = command(repository().join("deploy/packages/build"));
    // The program under test is linked dynamically, as `cargo test` links.
    command.arg(program()).args(["--allow-dynamic", "--out"]).arg(out);
    command
}

/// Returns the package with this ending.
pub(crate) fn package(ending: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = program().with_file_name("packages");
        succeed(&mut build_to(&folder));
        folder
    });
    files(folder).into_iter().find(|file| file.extension().is_some_and(|found| found == ending)).expect("it is made")
}

/// Returns the files in a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it is readable").path()).collect();
    files.sort();
    files
}

/// Returns the names of the files in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|file| text(file.file_name().expect("a name").as_encoded_bytes())).collect()
}

/// Returns the SHA-256 of a file in hexadecimal.
pub(crate) fn sha256(file: &Path) -> String {
    succeed(command("sha256sum").arg("--").arg(file)).split(' ').next().expect("a sum").to_owned()
}
