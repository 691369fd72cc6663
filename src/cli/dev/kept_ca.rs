//! The authority that `--trust` keeps in the user's data folder, and that later runs use.
//!
//! Key and certificate are one file, so that they cannot come apart; the certificate alone is a second file, for programs
//! that should trust it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use thiserror::Error;

use super::authority::Authority;
use super::published::{PUBLIC, Published, SECRET, check_replaceable, read, remove, replace};
use crate::config::UserEnvironment;
use crate::tls::Identity;

/// The remaining validity below which `--trust` makes a new authority.
const RENEWAL: Duration = Duration::from_hours(30 * 24);

/// The place of the authority.
#[derive(Clone, Debug)]
pub(super) struct KeptCaFiles {
    folder: PathBuf,
}

/// The authority that was kept.
pub(super) struct KeptCa {
    /// The authority.
    pub(super) authority: Authority,
    /// The end of its validity.
    pub(super) not_after: SystemTime,
    /// The file of its certificate.
    pub(super) certificate: PathBuf,
}

/// A fault of the place or of a file.
#[derive(Debug, Error)]
pub(super) enum KeptCaError {
    /// The environment names no folder.
    #[error(
        "there is no folder for the CA: neither HOME nor XDG_DATA_HOME is an absolute path; set HOME, or leave out --trust: \
         the CA then stays in memory"
    )]
    NoFolder,
    /// A file or folder cannot be used.
    #[error("cannot {action} {}: {source}; {}", path.display(), remedy(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Others could have read the key.
    #[error("the key of the CA in {} is readable by others (mode {mode:03o}); {REPLACE}", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// The file is another user's.
    #[error("{} belongs to another user (id {owner}), who knows its key; remove it", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    /// The file is none that was written here.
    #[error("{} is no CA of pulsegate dev: {reason}; {REPLACE}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// Its certificate has expired.
    #[error("the CA in {} expired on {}; `pulsegate dev --trust` makes a new one", path.display(), date(*not_after))]
    Expired { path: PathBuf, not_after: SystemTime },
}

const REPLACE: &str = "replace it: `pulsegate dev --untrust`, then `pulsegate dev --trust`";

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "set XDG_DATA_HOME to a folder that you can write, or leave out --trust: the CA then stays in memory"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in the way: remove it",
        _ => "set XDG_DATA_HOME to another folder, or leave out --trust: the CA then stays in memory",
    }
}

/// Returns the date of `time` as `YYYY-MM-DD`.
pub(super) fn date(time: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("YYYY-MM-DD".len());
    text
}

impl KeptCaFiles {
    /// Returns the place in the user's data folder.
    ///
    /// # Errors
    ///
    /// The environment names no such folder.
    pub(super) fn of(user: &UserEnvironment) -> Result<Self, KeptCaError> {
        let data = user.data.as_ref().ok_or(KeptCaError::NoFolder)?;
        Ok(Self { folder: data.join("pulsegate") })
    }

    /// Returns the file of key and certificate.
    pub(super) fn secret(&self) -> PathBuf {
        self.folder.join("dev-ca.pem")
    }

    /// Returns the file of the certificate alone.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("dev-ca.crt")
    }

    /// Returns the folder of the files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder of the files, for the user alone.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(super) fn create_folder(&self) -> Result<(), KeptCaError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(failed("create", &self.folder))
    }

    /// Returns the certificate of the authority that is kept, usable or not, in PEM; `None` if it cannot be read.
    pub(super) fn certificate_pem(&self) -> Option<String> {
        let certificate = |path: &Path| {
            let (text, _) = read(path).ok()?;
            text.find(CERTIFICATE).map(|at| text[at..].to_owned())
        };
        certificate(&self.secret()).or_else(|| certificate(&self.certificate()))
    }

    /// Returns whether an authority is kept, usable or not.
    pub(super) fn exist(&self) -> bool {
        self.secret().symlink_metadata().is_ok()
    }

    /// Fails if something other than a regular file is in the place of one of the files.
    ///
    /// # Errors
    ///
    /// That is so, or it cannot be seen.
    pub(super) fn check(&self) -> Result<(), KeptCaError> {
        for path in [self.secret(), self.certificate()] {
            match check_replaceable(&path) {
                // The folder is to be made, which has an error of its own.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                checked => checked.map_err(failed("use", &path))?,
            }
        }
        Ok(())
    }

    /// Reads the authority; `None` if none is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be read or used, or the certificate is not valid at `now`.
    pub(super) fn load(&self, now: SystemTime) -> Result<Option<KeptCa>, KeptCaError> {
        let path = self.secret();
        let (text, file) = match read(&path) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(KeptCaError::Io { action: "read", path, source }),
        };
        let metadata = file.metadata().map_err(failed("read", &path))?;
        if metadata.uid() != geteuid().as_raw() {
            return Err(KeptCaError::Foreign { path, owner: metadata.uid() });
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeptCaError::Exposed { path, mode });
        }
        let malformed = |reason: String| KeptCaError::Malformed { path: path.clone(), reason };
        let pair = Identity::from_pem(text.as_bytes(), &path).map_err(|error| malformed(error.to_string()))?;
        let facts = pair.leaf().ok_or_else(|| malformed("its certificate cannot be parsed".to_owned()))?;
        if facts.not_after <= now {
            return Err(KeptCaError::Expired { path, not_after: facts.not_after });
        }
        let (key, certificate) = text.split_at(text.find(CERTIFICATE).unwrap_or(text.len()));
        let authority =
            Authority::from_kept(key, certificate.to_owned()).map_err(|error| malformed(error.to_string()))?;
        if !authority.is_limited(pair.leaf_der()) {
            return Err(malformed(
                "its certificate is not limited to servers of localhost and private addresses".into(),
            ));
        }
        Ok(Some(KeptCa { authority, not_after: facts.not_after, certificate: self.certificate() }))
    }

    /// As [`load`](Self::load); `None` also for one that expires within 30 days, which is to be replaced.
    ///
    /// # Errors
    ///
    /// The file cannot be read or used.
    pub(super) fn load_unless_old(&self, now: SystemTime) -> Result<Option<KeptCa>, KeptCaError> {
        match self.load(now + RENEWAL) {
            Err(KeptCaError::Expired { .. }) => Ok(None),
            loaded => loaded,
        }
    }

    /// Generates an authority, valid from about `now`, and writes its files.
    ///
    /// # Errors
    ///
    /// The files cannot be written.
    pub(super) fn create(&self, now: SystemTime) -> Result<KeptCa, KeptCaError> {
        let (secret, certificate) = (self.secret(), self.certificate());
        let authority = Authority::to_keep(now)
            .map_err(|error| KeptCaError::Malformed { path: secret.clone(), reason: error.to_string() })?;
        self.create_folder()?;
        replace(&certificate, authority.pem(), PUBLIC).map_err(failed("write", &certificate))?;
        let both = authority.key_pem() + authority.pem();
        replace(&secret, &both, SECRET).map_err(failed("write", &secret))?;
        // What is there now, which may be another process's.
        match self.load(now)? {
            Some(kept) => Ok(kept),
            None => Err(failed("read", &secret)(io::ErrorKind::NotFound.into())),
        }
    }

    /// Removes the authority, and its folder if nothing else is in it.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub(super) fn remove(&self) -> Result<(), KeptCaError> {
        for path in [self.secret(), self.certificate()] {
            remove(&path).map_err(failed("remove", &path))?;
        }
        // It stays if it has other files.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }
}

impl KeptCa {
    /// Writes the file of the certificate alone anew, if it has another one.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn restore_certificate(&self) -> Result<(), KeptCaError> {
        let (path, pem) = (&self.certificate, self.authority.pem());
        if Published::holds(path, pem) { Ok(()) } else { replace(path, pem, PUBLIC).map_err(failed("write", path)) }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeptCaError + use<> {
    let path = path.to_path_buf();
    move |source| KeptCaError::Io { action, path, source }
}

/// The first line of a certificate in PEM (RFC 7468 §5).
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tempfile::TempDir;

    use super::*;

    fn files(folder: &TempDir) -> KeptCaFiles {
        let data = Some(folder.path().join("share"));
        KeptCaFiles::of(&UserEnvironment { data, ..UserEnvironment::default() }).expect("a folder")
    }

    fn error(result: Result<Option<KeptCa>, KeptCaError>) -> String {
        result.err().expect("it cannot be used").to_string()
    }

    #[test]
    fn an_authority_is_made_once_kept_secret_and_removed() {
        let folder = TempDir::new().expect("a folder");
        let (files, now) = (files(&folder), SystemTime::now());
        assert!(files.load(now).expect("no error").is_none());
        let first = files.create(now).expect("made");
        assert!(first.not_after > now + Duration::from_hours(800 * 24));
        let second = files.load_unless_old(now).expect("read").expect("kept");
        assert_eq!(second.authority.pem(), first.authority.pem());
        assert_eq!(fs::read_to_string(files.certificate()).expect("there"), first.authority.pem());
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&files.secret()), mode(&files.folder)), (0o600, 0o700));

        fs::remove_file(files.certificate()).expect("removed");
        first.restore_certificate().expect("written");
        assert_eq!(fs::read_to_string(files.certificate()).expect("there again"), first.authority.pem());
        let later = first.not_after - Duration::from_hours(24);
        assert!(files.load(later).expect("valid still").is_some());
        assert!(files.load_unless_old(later).expect("no error").is_none(), "a new one in time");
        assert!(files.create(later).expect("made").authority.pem() != first.authority.pem());
        files.remove().expect("removed");
        files.remove().expect("nothing to remove is no error");
        assert!(!files.exist() && !files.folder.exists());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_way_out() {
        let folder = TempDir::new().expect("a folder");
        let (files, now) = (files(&folder), SystemTime::now());
        let kept = files.create(now).expect("made");
        let expired = error(files.load(kept.not_after));
        assert!(expired.contains("dev-ca.pem expired on 20") && expired.contains("--trust"), "{expired}");
        fs::set_permissions(files.secret(), fs::Permissions::from_mode(0o640)).expect("changed");
        let exposed = error(files.load(now));
        assert!(exposed.contains("readable by others (mode 640)") && exposed.ends_with(REPLACE), "{exposed}");
        replace(&files.secret(), "no PEM", SECRET).expect("written");
        let malformed = error(files.load(now));
        assert!(malformed.contains("is no CA of pulsegate dev: ") && malformed.ends_with(REPLACE), "{malformed}");
        assert_eq!(error(files.load_unless_old(now)), malformed, "a file that is not ours stays");
    }

    #[test]
    fn a_ca_without_our_limits_or_of_another_user_is_refused() {
        let folder = TempDir::new().expect("a folder");
        let (files, now) = (files(&folder), SystemTime::now());
        files.create(now).expect("made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = key.serialize_pem() + &params.self_signed(&key).expect("signed").pem();
        replace(&files.secret(), &pem, SECRET).expect("written");
        let unlimited = error(files.load(now));
        assert!(unlimited.contains("is not limited to servers of localhost and private addresses"), "{unlimited}");
        assert!(unlimited.ends_with(REPLACE), "{unlimited}");
        // Only root can give a file away.
        if geteuid().is_root() {
            std::os::unix::fs::chown(files.secret(), Some(12345), None).expect("changed");
            let foreign = error(files.load(now));
            assert!(foreign.contains("belongs to another user (id 12345), who knows its key"), "{foreign}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_without_leftovers() {
        let folder = TempDir::new().expect("a folder");
        let files = files(&folder);
        fs::write(folder.path().join("share"), "a file").expect("written");
        let error = files.create(SystemTime::now()).err().expect("a file is in the way").to_string();
        assert!(error.starts_with("cannot create ") && error.ends_with("a file is in the way: remove it"), "{error}");
        let none = KeptCaFiles::of(&UserEnvironment::default()).expect_err("no folder").to_string();
        assert!(none.starts_with("there is no folder for the CA: neither HOME nor XDG_DATA_HOME"), "{none}");
    }
}
