//! The authorities that a Linux system trusts: a folder for those of the administrator, and a tool that takes them up.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::tool::{Privilege, ToolError, Tools, run, typed};
use crate::cli::dev::published::{self, PUBLIC, Published, check_replaceable, replace};

/// A family of systems.
struct Family {
    /// The folder of the administrator's authorities.
    folder: &'static str,
    /// The folder that shows that a system is of this family.
    sign: &'static str,
    /// The ending that a certificate must have there.
    ending: &'static str,
    /// The file into which the tool gathers all trusted authorities.
    bundle: &'static str,
    /// The tool that takes up a new certificate.
    tool: &'static [&'static str],
    /// The arguments with which it takes up a removal too.
    removing: &'static [&'static str],
}

/// The known families, and the order in which they are looked for.
const FAMILIES: [Family; 4] = [
    // Fedora, RHEL
    Family {
        folder: "etc/pki/ca-trust/source/anchors",
        sign: "etc/pki/ca-trust/source/anchors",
        ending: "pem",
        bundle: "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        tool: &["update-ca-trust", "extract"],
        removing: &[],
    },
    // Arch
    Family {
        folder: "etc/ca-certificates/trust-source/anchors",
        sign: "etc/ca-certificates/trust-source/anchors",
        ending: "crt",
        bundle: "etc/ca-certificates/extracted/tls-ca-bundle.pem",
        tool: &["trust", "extract-compat"],
        removing: &[],
    },
    // openSUSE
    Family {
        folder: "usr/share/pki/trust/anchors",
        sign: "usr/share/pki/trust/anchors",
        ending: "pem",
        bundle: "var/lib/ca-certificates/ca-bundle.pem",
        tool: &["update-ca-certificates"],
        // Otherwise dangling links stay in Debian's /etc/ssl/certs.
        removing: &["--fresh"],
    },
    // Debian, Ubuntu, Alpine; the folder may have to be made.
    Family {
        folder: "usr/local/share/ca-certificates",
        sign: "etc/ssl/certs",
        ending: "crt",
        bundle: "etc/ssl/certs/ca-certificates.crt",
        tool: &["update-ca-certificates"],
        // Otherwise dangling links stay in Debian's /etc/ssl/certs.
        removing: &["--fresh"],
    },
];

/// The authorities of one system.
#[derive(Debug)]
pub(super) struct SystemStore {
    file: PathBuf,
    bundle: PathBuf,
    update: Vec<OsString>,
    removing: &'static [&'static str],
    install: Option<PathBuf>,
    rm: Option<PathBuf>,
    privilege: Privilege,
}

impl SystemStore {
    /// Returns the store of the system below `root`.
    pub(super) fn find(root: &Path, tools: &Tools) -> Option<Self> {
        FAMILIES.iter().filter(|family| root.join(family.sign).is_dir()).find_map(|family| {
            let (tool, arguments) = family.tool.split_first()?;
            let tool = tools.find(tool)?;
            let file = root.join(family.folder).join(format!("pulsegate-dev.{}", family.ending));
            let privilege = Privilege::for_folder(&root.join(family.folder), tools);
            let update = std::iter::once(tool.into()).chain(arguments.iter().map(OsString::from)).collect();
            let removing = family.removing;
            let bundle = root.join(family.bundle);
            let (install, rm) = (tools.find("install"), tools.find("rm"));
            Some(Self { file, bundle, update, removing, install, rm, privilege })
        })
    }

    /// Returns whether this certificate is installed and taken up. A tool that was interrupted has not done that.
    pub(super) fn holds(&self, pem: &str) -> bool {
        Published::holds(&self.file, pem) && self.trusts(pem) == Some(true)
    }

    /// Returns whether the tool has taken up this certificate; `None` if its result cannot be read.
    pub(super) fn trusts(&self, pem: &str) -> Option<bool> {
        // It may have comments in any encoding.
        let bundle = fs::read(&self.bundle).ok()?;
        Some(body(&String::from_utf8_lossy(&bundle)).contains(&body(pem)))
    }

    /// Returns whether a certificate of an authority of `dev` may be trusted: it is there, or `kept` has been taken up. If
    /// that is unknown, although one is kept, it may be, unless nothing can be done about it.
    pub(super) fn may_hold(&self, kept: Option<&str>, is_kept: bool) -> bool {
        let unknown = is_kept && self.privilege != Privilege::Missing;
        let trusts = || kept.and_then(|pem| self.trusts(pem)).unwrap_or(unknown);
        self.file.symlink_metadata().is_ok() || trusts()
    }

    /// Fails if something other than a regular file is in the place of the certificate.
    pub(super) fn check(&self) -> Result<(), ToolError> {
        match check_replaceable(&self.file) {
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(ToolError::Occupied { path: self.file.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Copies the certificate, and has it taken up. The copy is removed if that fails.
    pub(super) fn install(&self, certificate: &Path) -> Result<(), ToolError> {
        self.check()?;
        self.copy(certificate)?;
        self.update(&[]).inspect_err(|_| {
            // The first failure is the one that counts. The tool may have taken it up before it failed.
            let _ = self.delete().and_then(|()| self.update(self.removing));
        })
    }

    /// Removes the certificate, and has that taken up.
    pub(super) fn remove(&self) -> Result<(), ToolError> {
        self.check()?;
        self.delete()?;
        self.update(self.removing)
    }

    fn copy(&self, certificate: &Path) -> Result<(), ToolError> {
        match &self.privilege {
            Privilege::Own => {
                let failed = |source| ToolError::File { action: "write", path: self.file.clone(), source };
                let folder = self.file.parent().unwrap_or(Path::new("/"));
                let text = published::read(certificate).map_err(failed)?.0;
                fs::create_dir_all(folder).and_then(|()| replace(&self.file, &text, PUBLIC)).map_err(failed)
            }
            Privilege::Sudo(_) => run(&self.privilege.command(self.copying(certificate))).map(drop),
            Privilege::Missing => Err(self.forbidden(&self.copying(certificate), &[])),
        }
    }

    fn delete(&self) -> Result<(), ToolError> {
        match &self.privilege {
            Privilege::Own => published::remove(&self.file).map_err(|source| ToolError::File {
                action: "remove",
                path: self.file.clone(),
                source,
            }),
            Privilege::Sudo(_) => run(&self.privilege.command(self.deleting())).map(drop),
            Privilege::Missing => Err(self.forbidden(&self.deleting(), self.removing)),
        }
    }

    fn update(&self, more: &[&str]) -> Result<(), ToolError> {
        let words = self.update.iter().cloned().chain(more.iter().map(OsString::from));
        run(&self.privilege.command(words)).map(drop)
    }

    fn copying(&self, certificate: &Path) -> Vec<OsString> {
        let install = self.install.clone().unwrap_or_else(|| "install".into());
        vec![install.into(), "-D".into(), "-m".into(), "644".into(), certificate.into(), self.file.clone().into()]
    }

    fn deleting(&self) -> Vec<OsString> {
        let rm = self.rm.clone().unwrap_or_else(|| "rm".into());
        vec![rm.into(), "-f".into(), self.file.clone().into()]
    }

    fn forbidden(&self, first: &[OsString], more: &[&str]) -> ToolError {
        let folder = self.file.parent().unwrap_or(&self.file).to_path_buf();
        if geteuid().is_root() {
            return ToolError::NotEvenRoot { folder };
        }
        let update: Vec<_> = self.update.iter().cloned().chain(more.iter().map(OsString::from)).collect();
        ToolError::NoSudo { folder, commands: format!("{} && {}", typed(first), typed(&update)) }
    }
}

/// Returns certificates in PEM without their line breaks, which differ from tool to tool.
fn body(pem: &str) -> String {
    pem.lines().map(str::trim).collect()
}

impl Display for SystemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = typed(&self.privilege.command(self.update.clone()));
        write!(f, "{}, by {by}", self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::config::UserEnvironment;

    /// Makes a system with these folders, whose tool runs `script`.
    fn system(folders: &[&str], tool: &str, script: &str) -> (TempDir, SystemStore) {
        let root = TempDir::new().expect("a folder");
        for folder in folders.iter().chain(&["usr/sbin"]) {
            fs::create_dir_all(root.path().join(folder)).expect("made");
        }
        let path = root.path().join("usr/sbin").join(tool);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
        let tools = Tools::of(&UserEnvironment::default(), Some(root.path()));
        let store = SystemStore::find(root.path(), &tools).expect("it is known");
        (root, store)
    }

    #[test]
    fn each_family_has_its_folder_and_its_tool() {
        let place = |folders: &[&str], tool: &str| {
            let (root, store) = system(folders, tool, "true");
            let file = store.file.strip_prefix(root.path()).expect("in the root").to_string_lossy().into_owned();
            format!("{file} {}", typed(&store.update))
        };
        let found = [
            place(&["etc/pki/ca-trust/source/anchors", "etc/ssl/certs"], "update-ca-trust"),
            place(&["etc/ca-certificates/trust-source/anchors", "etc/ssl/certs"], "trust"),
            place(&["usr/share/pki/trust/anchors", "etc/ssl/certs"], "update-ca-certificates"),
            place(&["etc/ssl/certs"], "update-ca-certificates"),
        ];
        let expected = [
            "etc/pki/ca-trust/source/anchors/pulsegate-dev.pem update-ca-trust extract",
            "etc/ca-certificates/trust-source/anchors/pulsegate-dev.crt trust extract-compat",
            "usr/share/pki/trust/anchors/pulsegate-dev.pem update-ca-certificates",
            "usr/local/share/ca-certificates/pulsegate-dev.crt update-ca-certificates",
        ];
        assert_eq!(found, expected);
        let bare = TempDir::new().expect("a folder");
        let tools = Tools::of(&UserEnvironment::default(), Some(bare.path()));
        assert!(SystemStore::find(bare.path(), &tools).is_none(), "an unknown system");
    }

    #[test]
    fn a_tool_that_fails_leaves_no_certificate() {
        let (root, store) = system(&["etc/ssl/certs"], "update-ca-certificates", "echo broken >&2; exit 1");
        let certificate = root.path().join("ca.crt");
        fs::write(&certificate, "a certificate").expect("written");
        let error = store.install(&certificate).expect_err("the tool fails").to_string();
        assert!(error.starts_with("`update-ca-certificates` exited with 1: broken; "), "{error}");
        assert!(!store.file.exists(), "nothing half-installed");
    }

    #[test]
    fn by_sudo_the_certificate_is_copied_and_removed() {
        let script = "cd \"$(dirname \"$0\")\" || exit; echo \"$@\" >> calls\n\
            cat ../local/share/ca-certificates/* > ../../etc/ssl/certs/ca-certificates.crt; true";
        let (root, store) = system(&["etc/ssl/certs"], "update-ca-certificates", script);
        let (sudo, certificate) = (root.path().join("sudo"), root.path().join("ca.crt"));
        fs::write(&sudo, "#!/bin/sh\n[ \"$1\" = -n ] && shift\nexec \"$@\"\n").expect("written");
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).expect("changed");
        fs::write(&certificate, "a certificate").expect("written");
        let store = SystemStore { privilege: Privilege::Sudo(sudo), ..store };
        store.install(&certificate).expect("installed");
        assert!(
            store.holds("a certificate")
                && fs::metadata(&store.file).is_ok_and(|file| file.permissions().mode() & 0o777 == PUBLIC)
        );
        store.remove().expect("removed");
        assert!(!store.may_hold(Some("a certificate"), true));
        assert_eq!(fs::read_to_string(root.path().join("usr/sbin/calls")).expect("called"), "\n--fresh\n");
    }

    #[test]
    fn without_sudo_the_commands_for_root_are_named() {
        let (_root, store) = system(&["etc/ssl/certs"], "update-ca-certificates", "true");
        let store = SystemStore { privilege: Privilege::Missing, ..store };
        let expected = if geteuid().is_root() {
            ["cannot be written, not even by root; is its file system read-only?"; 2].map(str::to_owned)
        } else {
            let file = store.file.display();
            let install = format!("install -D -m 644 /ca.crt {file} && update-ca-certificates");
            [install, format!("rm -f {file} && update-ca-certificates --fresh")]
        };
        let errors = [store.install(Path::new("/ca.crt")), store.remove()].map(|done| done.expect_err("no right"));
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
    }
}
