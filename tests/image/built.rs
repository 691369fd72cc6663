//! The image, built once for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::process::geteuid;
use serde_json::Value;

use crate::PULSEGATE;
use crate::deploy::made::{command, files, repository, succeed};

/// The folder of the image; the process id follows.
const PREFIX: &str = "image-";

/// An image in a folder.
pub(crate) struct Image {
    /// The folder, with the files of the image in `root` and its configuration in `config.json`.
    pub(crate) folder: PathBuf,
    /// The configuration as Docker has it.
    pub(crate) config: Value,
    /// The digests of its layers.
    pub(crate) layers: Value,
}

/// Returns the image of the program under test.
pub(crate) fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let built = build("first", static_program());
        fs::write(built.folder.join("config.json"), built.config.to_string()).expect("write a file");
        built
    })
}

/// Builds an image of a program with `deploy/image`.
pub(crate) fn build(name: &str, program: &Path) -> Image {
    assert!(geteuid().is_root(), "buildah and runc take root here: run sudo -E cargo test --test program image::");
    let folder = work().join(name);
    fs::create_dir(&folder).expect("make a folder");
    let store = folder.join("store");
    let configuration = folder.join("storage.conf");
    let lines =
        format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{0}/run\"\ngraphroot = \"{0}/root\"\n", store.display());
    fs::write(&configuration, lines).expect("write a file");
    let buildah = |words: &[&str]| {
        let mut command = command("buildah");
        command.args(words).env("CONTAINERS_STORAGE_CONF", &configuration);
        succeed(&mut command)
    };
    let mut build = command(repository().join("deploy/image"));
    build.arg(program).args(["--tag", "localhost/pulsegate", "--builder", "buildah"]);
    succeed(build.env("CONTAINERS_STORAGE_CONF", &configuration));
    let inspected: Value =
        serde_json::from_str(&buildah(&["inspect", "--type", "image", "localhost/pulsegate"])).expect("JSON");
    let container = buildah(&["from", "--pull-never", "localhost/pulsegate"]);
    let mounted = buildah(&["mount", container.trim()]);
    // Owners, modes and times stay.
    succeed(command("cp").args(["--archive", mounted.trim()]).arg(folder.join("root")));
    buildah(&["umount", container.trim()]);
    fs::remove_dir_all(&store).expect("remove a folder");
    let [config, layers] =
        ["/Docker/config", "/OCIv1/rootfs/diff_ids"].map(|at| inspected.pointer(at).cloned().expect("it is there"));
    Image { folder, config, layers }
}

/// Returns the program under test, linked statically: an empty image has no loader. The crates that `cargo test` has compiled
/// are linked once more, which takes a second.
pub(crate) fn static_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dependencies = Path::new(PULSEGATE).with_file_name("deps");
        let program = work().join("pulsegate");
        let mut rustc = command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args([
            "--edition=2024",
            "--crate-name=pulsegate",
            "src/main.rs",
            "-Ctarget-feature=+crt-static",
            "-Cstrip=debuginfo",
        ]);
        rustc.arg("-o").arg(&program).arg(format!("-Ldependency={}", dependencies.display()));
        for name in ["pulsegate", "mimalloc"] {
            rustc.arg(format!("--extern={name}={}", newest(&dependencies, name).display()));
        }
        succeed(&mut rustc);
        program
    })
}

/// Returns the compiled crate: without a cargo feature, and the newest, which `cargo test` has compiled or found up to date.
fn newest(dependencies: &Path, name: &str) -> PathBuf {
    let is_plain = |hash: &str| {
        let fingerprint = dependencies.with_file_name(".fingerprint").join(format!("{name}-{hash}/lib-{name}.json"));
        fs::read_to_string(fingerprint).is_ok_and(|text| text.contains(r#""features":"[]""#))
    };
    let age = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let crates = files(dependencies).into_iter().filter(|path| {
        let stem = path.file_name().and_then(|file| file.to_str()?.strip_suffix(".rlib")?.strip_prefix("lib"));
        stem.and_then(|stem| stem.strip_prefix(name)?.strip_prefix('-')).is_some_and(is_plain)
    });
    crates
        .max_by_key(age)
        .unwrap_or_else(|| panic!("no lib{name}-*.rlib without features in {}", dependencies.display()))
}

/// Returns the folder of this process. A static is not dropped: the next run removes what the processes of earlier ones have
/// left.
pub(crate) fn work() -> &'static Path {
    static WORK: OnceLock<PathBuf> = OnceLock::new();
    WORK.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for left in files(folder) {
            let pid = left.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(left).expect("remove a folder");
            }
        }
        let work = folder.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&work).expect("make a folder");
        work
    })
}

/// Returns a command of a script below `tests/` in namespaces of its own, for as long as it runs: network, mounts, processes.
pub(crate) fn isolated(script: &str) -> Command {
    let python = repository().join("target/kubelet-venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./tests/install", python.display());
    let mut command = command("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(python).arg("-B").arg(repository().join("tests").join(script));
    command
}
