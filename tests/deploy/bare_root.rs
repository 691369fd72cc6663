//! A root folder with a shell and a few programs, in which packages are installed. Maintainer scripts run in it by chroot.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::made::{command, succeed};

/// The programs of a Debian system that the scripts run.
const DEBIAN: &[&str] = &["sh", "cat", "chgrp", "grep", "groupadd", "useradd"];

/// A stand-in for the program that controls services: it writes its arguments to a file, and does nothing.
const RECORDER: &str = "#!/bin/sh\necho \"${0##*/} $*\" >>/services.log\n";

/// Stand-ins for two applets that Debian's busybox does not have, for the only arguments that the scripts give them.
const ADDGROUP: &str = "#!/bin/sh -e\n[ \"$*\" = '-S pulsegate' ]\necho pulsegate:x:101: >>/etc/group\n";
const ADDUSER: &str = "#!/bin/sh -e\n\
    [ \"$*\" = '-S -D -H -h /nonexistent -s /sbin/nologin -G pulsegate pulsegate' ]\n\
    echo pulsegate:x:100:101::/nonexistent:/sbin/nologin >>/etc/passwd\n";

/// A folder that is a root; removed on drop.
pub(crate) struct BareRoot {
    dir: TempDir,
}

impl BareRoot {
    /// A root with Debian's shell and shadow, as if systemd ran in it.
    pub(crate) fn debian() -> Self {
        let root = Self::new();
        for program in DEBIAN {
            root.copy_program(program);
        }
        root.write("run/systemd/system/.keep", "", 0o644);
        root.write("usr/bin/systemctl", RECORDER, 0o755);
        root
    }

    /// A root with busybox and stand-ins for `OpenRC`, as Alpine has them.
    pub(crate) fn busybox() -> Self {
        let root = Self::new();
        let busybox = which("busybox");
        fs::copy(&busybox, root.path("usr/bin/busybox")).expect("copy busybox");
        for applet in ["sh", "cat", "chgrp", "grep"] {
            symlink("busybox", root.path("usr/bin").join(applet)).expect("link an applet");
        }
        for program in ["checkpath", "rc-service", "rc-update"] {
            root.write(&format!("sbin/{program}"), RECORDER, 0o755);
        }
        root.write("usr/sbin/addgroup", ADDGROUP, 0o755);
        root.write("usr/sbin/adduser", ADDUSER, 0o755);
        root
    }

    fn new() -> Self {
        assert!(geteuid().is_root(), "a chroot takes root: run sudo -E cargo test --test program deploy::");
        let root = Self { dir: TempDir::with_prefix("pulsegate-root-").expect("make a temporary directory") };
        for folder in ["dev", "etc", "run", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var/lib", "var/log"]
        {
            fs::create_dir_all(root.path(folder)).expect("make a folder");
        }
        for merged in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{merged}"), root.path(merged)).expect("link a folder");
        }
        root.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644);
        root.write("etc/group", "root:x:0:\n", 0o644);
        // A file in the place of the device: the scripts only write to it.
        root.write("dev/null", "", 0o666);
        root
    }

    /// Returns the path of a file in this root.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside.trim_start_matches('/'))
    }

    /// Writes a file with its folders.
    pub(crate) fn write(&self, inside: &str, content: &str, mode: u32) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(&path, content).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
    }

    /// Returns the content of a text file.
    #[track_caller]
    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Copies a program of this machine, and the libraries that it needs.
    pub(crate) fn copy_program(&self, name: &str) {
        let from = which(name);
        fs::copy(&from, self.path("usr/bin").join(name)).expect("copy a program");
        self.copy_libraries(&from);
    }

    /// Copies the libraries that a program needs.
    pub(crate) fn copy_libraries(&self, program: &Path) {
        let listed = succeed(command("ldd").arg(program));
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            let target = self.path(library);
            if !target.exists() {
                fs::create_dir_all(target.parent().expect("a folder")).expect("make a folder");
                fs::copy(library, target).expect("copy a library");
            }
        }
    }

    /// Returns a command inside.
    pub(crate) fn inside(&self, words: &[&str]) -> Command {
        let mut command = command("chroot");
        command.arg(self.dir.path()).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Returns a command inside as this user and its group.
    pub(crate) fn inside_as(&self, user: &str, words: &[&str]) -> Command {
        let mut command = command("chroot");
        command.arg(format!("--userspec={user}")).arg("--groups=").arg(self.dir.path()).args(words);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Returns the calls of `systemctl`, `checkpath`, `rc-service` and `rc-update` since the last time.
    pub(crate) fn service_calls(&self) -> Vec<String> {
        let log = self.path("services.log");
        let calls = fs::read_to_string(&log).unwrap_or_default();
        // It does not exist before the first call.
        let _ = fs::remove_file(log);
        calls.lines().map(str::to_owned).collect()
    }

    /// Returns the paths of all files and folders, without those of package managers.
    pub(crate) fn tree(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.add_below(self.dir.path(), &mut found);
        found
    }

    fn add_below(&self, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("it is readable").path();
            let name = path.strip_prefix(self.dir.path()).expect("below").to_str().expect("text").to_owned();
            if ["var/lib/dpkg", "var/lib/rpm", "var/log/dpkg.log", "services.log"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                self.add_below(&path, found);
            }
            found.insert(name);
        }
    }

    /// Fails unless the user of the service exists, with a group of its name and without a login, and owns nothing but the
    /// folder of the keys by group.
    #[track_caller]
    pub(crate) fn has_the_user(&self) {
        let (users, groups) = (self.read("etc/passwd"), self.read("etc/group"));
        let line = |file: &str| -> Vec<String> {
            let mut lines = file.lines().filter(|line| line.starts_with("pulsegate:"));
            let line = lines.next().unwrap_or_else(|| panic!("no pulsegate in {file}"));
            assert_eq!(lines.next(), None, "twice in {file}");
            line.split(':').map(str::to_owned).collect()
        };
        let (user, group) = (line(&users), line(&groups));
        assert_eq!(user[3], group[2], "its own group: {user:?} {group:?}");
        assert!((1..1000).contains(&user[2].parse::<u32>().expect("a number")), "a system user: {user:?}");
        assert_eq!((user[5].as_str(), user[6].ends_with("/nologin")), ("/nonexistent", true), "{user:?}");
        let keys = fs::metadata(self.path("etc/pulsegate/tls")).expect("the folder of the keys");
        assert_eq!((keys.mode() & 0o7777, keys.uid()), (0o750, 0), "{keys:?}");
        assert_eq!(keys.gid().to_string(), group[2], "the group of the keys");
    }
}

/// Returns the path of a program of this machine.
#[track_caller]
fn which(name: &str) -> PathBuf {
    let folders = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name} on this machine; ./tests/install installs what the tests need"))
}
