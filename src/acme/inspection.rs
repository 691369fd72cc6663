//! A look at the storage folder that changes nothing: what keeps a start from being of use, and what is only worth a warning.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rustix::fs::{Access, access};

use super::external_key;
use super::storage::remedy;
use crate::config::{AcmeSettings, FileCache, TlsFault, TlsRole};
use crate::tls::{Identity, presented_certificate};

/// Permission of other users to read.
const READ_BY_OTHERS: u32 = 0o004;
/// Permission of other users to write.
const WRITE_BY_OTHERS: u32 = 0o002;

/// Returns the faults of `settings` with which no certificate can be presented or ordered, as far as a look at the files
/// shows.
pub fn faults(settings: &AcmeSettings, cache: &FileCache) -> Vec<TlsFault> {
    let unwritable = unwritable(settings).filter(|_| presented_certificate(settings).is_none());
    let storage = unwritable.map(|(path, error)| TlsFault {
        role: TlsRole::Storage,
        what: format!(
            "{}: cannot be written: {error}; certificates belong in {} (tls.acme.storage)",
            path.display(),
            settings.storage.display()
        ),
        file: path,
        help: Some(remedy(&error).to_owned()),
    });
    storage.into_iter().chain(external_key::fault(settings, cache)).collect()
}

/// A state of the storage folder with which a server starts, and that needs attention.
#[derive(Debug)]
pub enum StorageWarning {
    /// The folder cannot be written, and there is a certificate.
    Unwritable(PathBuf, io::Error),
    /// The certificate is damaged.
    Damaged(PathBuf, String),
    /// Other users can read a key.
    Readable(PathBuf, u32),
    /// Other users can replace a file.
    Writable(PathBuf, u32),
}

/// Returns the warnings about the storage folder.
pub fn warnings(settings: &AcmeSettings) -> Vec<StorageWarning> {
    let unwritable = unwritable(settings).filter(|_| presented_certificate(settings).is_some());
    let mut all: Vec<_> = unwritable.into_iter().map(|(path, error)| StorageWarning::Unwritable(path, error)).collect();
    let own = settings.certificate();
    if let Ok(text) = fs::read(&own)
        && let Err(error) = Identity::from_pem(&text, &own)
    {
        all.push(StorageWarning::Damaged(own, error.to_string()));
    }
    all.extend([settings.storage.clone(), settings.folder()].into_iter().filter_map(exposed_folder));
    let entries = fs::read_dir(settings.folder()).into_iter().flatten().flatten();
    let mut keys: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| holds_key(path)).collect();
    keys.sort();
    keys.extend(settings.external_account.as_ref().map(|account| account.key_file.clone()));
    all.extend(keys.into_iter().filter_map(exposed_key));
    all
}

/// Returns the nearest thing on the way to the folder that keeps it from being made or written.
fn unwritable(settings: &AcmeSettings) -> Option<(PathBuf, io::Error)> {
    let folder = settings.folder();
    // A link to nothing is in the way too.
    let there = folder.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    if !there.is_dir() {
        return Some((there.into(), io::ErrorKind::NotADirectory.into()));
    }
    let refused = |path: &Path, rights| Some((path.to_owned(), io::Error::from(access(path, rights).err()?)));
    // Another user may have made it.
    let lock = settings.lock();
    refused(there, Access::WRITE_OK | Access::EXEC_OK)
        .or_else(|| refused(&lock, Access::WRITE_OK).filter(|(_, error)| error.kind() != io::ErrorKind::NotFound))
}

/// Returns whether a file of the folder holds a private key.
fn holds_key(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.extension() == Some(OsStr::new("pem")) || name.starts_with("account.json")
}

fn exposed_folder(path: PathBuf) -> Option<StorageWarning> {
    let mode = mode(&path)?;
    (mode & WRITE_BY_OTHERS != 0).then_some(StorageWarning::Writable(path, mode))
}

fn exposed_key(path: PathBuf) -> Option<StorageWarning> {
    let mode = mode(&path)?;
    match mode {
        mode if mode & READ_BY_OTHERS != 0 => Some(StorageWarning::Readable(path, mode)),
        mode if mode & WRITE_BY_OTHERS != 0 => Some(StorageWarning::Writable(path, mode)),
        _ => None,
    }
}

fn mode(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o7777)
}

impl StorageWarning {
    /// Writes it to the log.
    pub(super) fn log(&self) {
        let error = self.to_string();
        match self {
            // The start has reported it.
            Self::Unwritable(..) => {}
            Self::Damaged(..) => tracing::warn!(error, "acme.certificate_damaged"),
            Self::Readable(..) | Self::Writable(..) => tracing::warn!(error, "acme.storage_exposed"),
        }
    }
}

impl fmt::Display for StorageWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritable(path, error) => write!(
                f,
                "{} cannot be written: {error} (tls.acme.storage): the certificate there is presented, and not renewed; {}",
                path.display(),
                remedy(error)
            ),
            Self::Damaged(_, fault) => {
                write!(f, "{fault} (tls.acme.storage): the file counts as missing, and another certificate is ordered")
            }
            Self::Readable(path, mode) => write!(
                f,
                "every user of this machine can read the private key in {} (mode {mode:04o}): run `chmod o= {}`, and \
                 replace the key if a stranger may have read it",
                path.display(),
                path.display()
            ),
            Self::Writable(path, mode) => write!(
                f,
                "every user of this machine can replace the certificate and answer challenges in {} (mode {mode:04o}): run \
                 `chmod o= {}`",
                path.display(),
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;
    use crate::config::ExternalAccount;

    fn settings(folder: &TempDir) -> AcmeSettings {
        AcmeSettings { storage: folder.path().join("acme"), ..AcmeSettings::of(vec!["app.example".into()]) }
    }

    fn put(settings: &AcmeSettings) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["app.example".to_owned()]).expect("a name");
        let pem = certificate.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
        fs::create_dir_all(settings.folder()).expect("a folder");
        fs::write(settings.certificate(), pem).expect("written");
        set_mode(&settings.certificate(), 0o600);
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    }

    fn texts(settings: &AcmeSettings) -> Vec<String> {
        warnings(settings).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_in_the_way_is_a_fault() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        assert_eq!(faults(&settings, &FileCache::default()), [], "it can be made");
        fs::write(&settings.storage, "a file").expect("written");
        let all = faults(&settings, &FileCache::default());
        assert_eq!((all.len(), all[0].role, &all[0].file), (1, TlsRole::Storage, &settings.storage));
        assert_eq!(all[0].help.as_deref(), Some("a file is in the way: remove it"));
        fs::remove_file(&settings.storage).expect("removed");
        symlink("/nowhere/at/all", &settings.storage).expect("a link");
        assert_eq!(faults(&settings, &FileCache::default()).len(), 1, "a link to nothing");
    }

    #[test]
    fn the_key_of_an_external_account_is_a_fault_until_there_is_an_account() {
        let folder = TempDir::new().expect("a folder");
        let key_file = folder.path().join("eab.key");
        let account = ExternalAccount { key_id: "kid".into(), key_file: key_file.clone() };
        let settings = AcmeSettings { external_account: Some(account), ..settings(&folder) };
        let fault = || faults(&settings, &FileCache::default()).pop().map(|fault| (fault.role, fault.what));
        let (role, what) = fault().expect("it is missing");
        assert!(role == TlsRole::ExternalKey && what.contains("eab.key: cannot be read: "), "{what}");
        for garbage in ["", "\n", "=", "a b", "\u{fffd}", "YWJj+/=="] {
            fs::write(&key_file, garbage).expect("written");
            let (_, what) = fault().expect("no key");
            assert!(what.ends_with("eab.key: no MAC key in this file"), "{garbage:?}: {what}");
        }
        for key in ["YWJj", "YWI=\n", "-_-_"] {
            fs::write(&key_file, key).expect("written");
            assert_eq!(fault(), None, "{key:?}");
        }
        fs::remove_file(&key_file).expect("removed");
        fs::create_dir_all(settings.folder()).expect("a folder");
        fs::write(settings.account(), "{}").expect("written");
        assert_eq!(fault(), None, "the account is bound");
    }

    #[test]
    fn what_other_users_can_do_is_warned_of() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        put(&settings);
        fs::write(settings.account(), "{}").expect("written");
        for path in [&settings.storage, &settings.folder()] {
            set_mode(path, 0o755);
        }
        set_mode(&settings.account(), 0o640);
        assert_eq!(texts(&settings), [] as [&str; 0]);
        set_mode(&settings.certificate(), 0o644);
        set_mode(&settings.account(), 0o602);
        set_mode(&settings.storage, 0o1777);
        let all = texts(&settings);
        for (path, mode, words) in [
            (&settings.storage, "(mode 1777)", "can replace the certificate"),
            (&settings.account(), "(mode 0602)", "can replace the certificate"),
            (&settings.certificate(), "(mode 0644)", "can read the private key"),
        ] {
            let path = format!(" in {} {mode}", path.display());
            assert!(all.iter().any(|text| text.contains(&path) && text.contains(words)), "no {path:?} in {all:#?}");
        }
        assert_eq!(all.len(), 3, "{all:#?}");
    }

    #[test]
    fn a_damaged_certificate_counts_as_missing_with_a_warning() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        put(&settings);
        for text in ["", "half a fi", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            fs::write(settings.certificate(), text).expect("written");
            let all = texts(&settings);
            assert!(all.len() == 1 && all[0].contains("another certificate is ordered"), "{text:?}: {all:#?}");
            assert_eq!(faults(&settings, &FileCache::default()), [], "{text:?}");
        }
    }
}
