//! `deploy/npm/pack`: the content of its tarballs, their bytes, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::packed::{
    VERSION, other_package, other_processor, other_program, pack, package, platform, succeeds, tarballs,
};
use crate::PULSEGATE;

/// Returns the files of a tarball with their modes, owners and times.
fn listing(tarball: &Path) -> BTreeMap<String, String> {
    let text = succeeds(Command::new("tar").args(["--utc", "--numeric-owner", "-tvzf"]).arg(tarball));
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[5].to_owned(), format!("{} {} {}", words[0], words[1], words[3]))
    });
    lines.collect()
}

fn package_json(tarball: &Path) -> Value {
    let text = succeeds(Command::new("tar").arg("-xzOf").arg(tarball).arg("package/package.json"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_launcher_names_the_packages_that_were_packed() {
    let tarball = tarballs().launcher();
    let manifest = package_json(&tarball);
    assert_eq!((&manifest["name"], &manifest["version"]), (&json!("pulsegate"), &json!(VERSION)));
    assert_eq!(manifest["optionalDependencies"], json!({ package(): VERSION, other_package(): VERSION }));
    assert_eq!(manifest["bin"], json!({ "pulsegate": "bin/pulsegate.js" }));
    let (file, program) = ("-rw-r--r-- 0/0 1985-10-26", "-rwxr-xr-x 0/0 1985-10-26");
    let expected = [
        ("package/LICENSE-APACHE", file),
        ("package/LICENSE-MIT", file),
        ("package/README.md", file),
        ("package/bin/pulsegate.js", program),
        ("package/package.json", file),
    ];
    assert_eq!(listing(&tarball), expected.map(|(name, mode)| (name.to_owned(), mode.to_owned())).into());
}

#[test]
fn the_package_of_a_platform_has_its_program_alone() {
    let tarball = tarballs().program();
    let manifest = package_json(&tarball);
    assert_eq!((&manifest["name"], &manifest["version"]), (&json!(package()), &json!(VERSION)));
    let (os, cpu) = platform().split_once('-').map(|(os, cpu)| (json!([os]), json!([cpu]))).expect("two words");
    assert_eq!((&manifest["os"], &manifest["cpu"], &manifest["libc"]), (&os, &cpu, &Value::Null));
    let listed = listing(&tarball);
    assert_eq!(listed["package/bin/pulsegate"], "-rwxr-xr-x 0/0 1985-10-26");
    assert_eq!(listed.len(), 5, "program, package.json, README and two licences: {listed:#?}");
    assert_eq!(package_json(&tarballs().other())["cpu"], json!([other_processor()]));
}

#[test]
fn no_package_has_a_script() {
    let packed = tarballs();
    for tarball in [packed.launcher(), packed.program(), packed.other(), packed.whole()] {
        assert_eq!(package_json(&tarball)["scripts"], Value::Null, "{}", tarball.display());
    }
}

/// A folder with a program for another processor, and an empty one for the tarballs.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let dir = TempDir::with_prefix("pulsegate-pack-").expect("make a temporary directory");
        fs::write(dir.path().join("program"), other_program()).expect("write a file");
        Self(dir)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("program")
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    /// Fails unless these arguments are refused for this reason, and nothing is written.
    #[track_caller]
    fn refuses(&self, arguments: &[&Path], status: i32, why: &str) {
        let output = pack().arg("--out").arg(self.out()).args(arguments).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.starts_with("deploy/npm/pack: ") && text.contains(why), "{arguments:?}: no {why:?} in {text}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert!(!self.out().exists(), "{arguments:?} has written {}", self.out().display());
    }
}

#[test]
fn the_same_program_makes_the_same_bytes() {
    let packed = ["022", "077"].map(|umask| {
        let folder = Folder::new();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("umask {umask}; exec \"$@\"")).arg("sh").arg(pack().get_program());
        succeeds(command.arg("--out").arg(folder.out()).arg(folder.program()));
        let entries = fs::read_dir(folder.out()).expect("it was made").flatten();
        let files = entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file")));
        files.collect::<BTreeMap<_, _>>()
    });
    assert_eq!(packed[0].len(), 3, "{:?}", packed[0].keys());
    assert!(packed[0] == packed[1], "{:?} differ", packed[0].keys());
}

/// Returns the command with a cargo that is this script. `$target` is the triple, `$PROGRAM` the program under test.
fn pack_with_cargo(folder: &Folder, script: &str) -> Command {
    let bin = folder.0.path().join("bin");
    fs::create_dir(&bin).expect("make a directory");
    let cargo = bin.join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\nfor target; do :; done\n{script}\n")).expect("write a file");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let mut command = pack();
    command.arg("--out").arg(folder.out()).arg("--allow-dynamic");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
    command.env("PATH", path).env("CARGO_TARGET_DIR", folder.0.path()).env("PROGRAM", tarballs().source());
    command
}

#[test]
fn without_a_program_it_builds_a_static_one() {
    let folder = Folder::new();
    let script = r#"
        echo "$RUSTFLAGS cargo $*" > "$CARGO_TARGET_DIR/called"
        mkdir -p "$CARGO_TARGET_DIR/$target/dist"
        cp "$PROGRAM" "$CARGO_TARGET_DIR/$target/dist/pulsegate""#;
    let printed = succeeds(&mut pack_with_cargo(&folder, script));
    assert_eq!(printed.lines().count(), 3, "{printed}");
    let called = fs::read_to_string(folder.0.path().join("called")).expect("it was called");
    for words in ["-C target-feature=+crt-static cargo build --locked --profile dist", "-unknown-linux-gnu\n"] {
        assert!(called.contains(words), "no {words:?} in {called}");
    }
    let packed = folder.out().join(tarballs().program().file_name().expect("a name"));
    assert!(fs::read(packed).expect("it was packed") == fs::read(tarballs().program()).expect("a file"));
}

#[test]
fn a_failed_build_packs_nothing() {
    let folder = Folder::new();
    let output = pack_with_cargo(&folder, "exit 101").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("deploy/npm/pack: cargo has failed (exit code 101); see above, or name a built program"),
        "{text}"
    );
    assert!(!folder.out().exists(), "nothing is written");
}

#[test]
fn a_file_that_cannot_be_published_is_refused() {
    let folder = Folder::new();
    let [text, program] = ["notes.txt", "program"].map(|name| folder.0.path().join(name));
    fs::write(&text, "no program").expect("write a file");
    let path = Path::new;
    folder.refuses(&[path("absent")], 1, "absent cannot be read (ENOENT); name a built program");
    folder.refuses(&[&text], 1, "notes.txt is no program for Linux or macOS");
    folder.refuses(&[&program, &program], 1, &format!("two programs for linux-{}", other_processor()));
    folder.refuses(&[path(PULSEGATE)], 1, "needs the C library of the machine on which it was built");
    folder.refuses(&[path("--allow-dynamic"), path("/bin/true")], 1, &format!("/bin/true is not pulsegate {VERSION}"));
    folder.refuses(&[path("--static")], 2, "unknown option --static; --help lists the options");
}

#[test]
fn the_help_is_the_comment_of_the_script() {
    let help = succeeds(pack().arg("--help"));
    for words in ["deploy/npm/pack --out DIR PROGRAM", "--allow-dynamic", "pulsegate-cli-<os>-<cpu>-<version>.tgz"] {
        assert!(help.contains(words), "no {words:?} in {help}");
    }
    assert!(!help.contains("//") && !help.contains("require("), "{help}");
}
