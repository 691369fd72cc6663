//! Who the proxy is: a certificate chain and the key that belongs to its leaf.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use thiserror::Error;

use super::Certificate;
use super::contents::{Contents, Kind, NEW_KEY, unusable_key};
use crate::config::{FileCache, TlsFault, TlsRole};

/// A certificate chain, leaf first, with its private key; both are known to belong together.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
}

/// The faults of a chain and its key. Each names the file; [`help`](Self::help) returns the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is missing or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The part that it plays.
        role: TlsRole,
        /// What the system says.
        source: io::Error,
    },
    /// A PEM section is cut short or is not base64.
    #[error("{}: damaged PEM: {reason}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The part that it plays.
        role: TlsRole,
        /// What is wrong with it.
        reason: String,
    },
    /// No `CERTIFICATE` section.
    #[error("{}: no certificate in this file: {contents}", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
        /// Its contents.
        contents: Contents,
    },
    /// The leaf is no X.509 certificate.
    #[error("{}: the first certificate cannot be used: {}", file.display(), fault_of(source))]
    BadCertificate {
        /// The file.
        file: PathBuf,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// No section with a private key.
    #[error("{}: no private key in this file: {contents}", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
        /// Its contents.
        contents: Contents,
    },
    /// The key needs a passphrase, which cannot be asked for.
    #[error("{}: the private key is encrypted", file.display())]
    EncryptedKey {
        /// The file.
        file: PathBuf,
    },
    /// More than one key: which one is meant cannot be told.
    #[error("{}: {count} private keys in this file", file.display())]
    SeveralKeys {
        /// The file.
        file: PathBuf,
        /// How many.
        count: usize,
    },
    /// The key is of a kind, size or curve that is not supported.
    #[error("{}: the private key is {kind}", file.display())]
    UnsupportedKey {
        /// The file.
        file: PathBuf,
        /// Its algorithm, size or curve, and what is supported.
        kind: String,
    },
    /// The DER of the key is broken.
    #[error("{}: the private key cannot be used: it is damaged, or of an unknown kind", file.display())]
    BadKey {
        /// The file.
        file: PathBuf,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The key belongs to a certificate of the chain, but not to the first.
    #[error(
        "{}: the private key belongs to certificate {position} of this file, not to the first",
        certificate.display()
    )]
    LeafNotFirst {
        /// The file with the chain.
        certificate: PathBuf,
        /// Where the leaf stands, counted from 1.
        position: usize,
    },
    /// Key and certificate are not a pair.
    #[error(
        "{}: this private key does not belong to the certificate in {}",
        private_key.display(), certificate.display()
    )]
    Mismatch {
        /// The file with the chain.
        certificate: PathBuf,
        /// The file with the key.
        private_key: PathBuf,
    },
}

impl IdentityError {
    /// Returns the part of the file at fault.
    pub fn role(&self) -> TlsRole {
        match self {
            Self::Read { role, .. } | Self::Pem { role, .. } => *role,
            Self::NoCertificate { .. } | Self::BadCertificate { .. } | Self::LeafNotFirst { .. } => {
                TlsRole::Certificate
            }
            Self::NoKey { .. }
            | Self::EncryptedKey { .. }
            | Self::SeveralKeys { .. }
            | Self::UnsupportedKey { .. }
            | Self::BadKey { .. }
            | Self::Mismatch { .. } => TlsRole::PrivateKey,
        }
    }

    /// Returns the file at fault.
    pub fn file(&self) -> &Path {
        match self {
            Self::Read { file, .. }
            | Self::Pem { file, .. }
            | Self::NoCertificate { file, .. }
            | Self::BadCertificate { file, .. }
            | Self::NoKey { file, .. }
            | Self::EncryptedKey { file }
            | Self::SeveralKeys { file, .. }
            | Self::UnsupportedKey { file, .. }
            | Self::BadKey { file, .. }
            | Self::LeafNotFirst { certificate: file, .. }
            | Self::Mismatch { private_key: file, .. } => file,
        }
    }

    /// Returns the remedy, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } => unreadable(source),
            Self::Pem { .. } => Some("copy the file again: each section ends with its \"-----END …-----\" line".into()),
            Self::NoCertificate { file, contents } => contents.remedy(Kind::Certificate, file),
            Self::BadCertificate { file, .. } => {
                Some(format!("look at it: openssl x509 -in {} -noout -text", file.display()))
            }
            Self::NoKey { file, contents } => contents.remedy(Kind::PrivateKey, file),
            Self::EncryptedKey { file } => Contents::Pem(Kind::EncryptedPrivateKey).remedy(Kind::PrivateKey, file),
            Self::SeveralKeys { .. } => Some("keep the one that belongs to the certificate".into()),
            Self::UnsupportedKey { .. } => Some(NEW_KEY.into()),
            Self::BadKey { file, .. } => Some(format!("look at it: openssl pkey -in {} -noout -check", file.display())),
            Self::LeafNotFirst { position, .. } => Some(format!("put certificate {position} first")),
            Self::Mismatch { certificate, private_key } => Some(format!(
                "compare the public keys: openssl x509 -in {} -noout -pubkey, and openssl pkey -in {} -pubout",
                certificate.display(),
                private_key.display()
            )),
        }
    }
}

impl From<&IdentityError> for TlsFault {
    fn from(error: &IdentityError) -> Self {
        Self { role: error.role(), file: error.file().into(), what: error.to_string(), help: error.help() }
    }
}

/// The fault of a certificate; the library speaks of a peer's.
fn fault_of(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => "it is not valid X.509".to_owned(),
        other => other.to_string(),
    }
}

/// The remedy for a file that cannot be read.
pub(super) fn unreadable(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("check the path; relative ones start from the configuration's folder".into()),
        io::ErrorKind::PermissionDenied => {
            Some("let the user that pulsegate runs as read it, as with `chgrp pulsegate` and `chmod 640`".into())
        }
        io::ErrorKind::IsADirectory => Some("name the file, not its folder".into()),
        _ => None,
    }
}

impl Identity {
    /// Reads chain and key from PEM files, through `cache`, and checks that they are a pair.
    pub fn from_pem_files(certificate: &Path, private_key: &Path, cache: &FileCache) -> Result<Self, IdentityError> {
        Self::pair(read_chain(certificate, cache)?, read_key(private_key, cache)?, certificate, private_key)
    }

    /// As [`from_pem_files`](Self::from_pem_files), with the faults of both files.
    pub fn faults(certificate: &Path, private_key: &Path, cache: &FileCache) -> Result<Self, Vec<IdentityError>> {
        match (read_chain(certificate, cache), read_key(private_key, cache)) {
            (Ok(chain), Ok(key)) => Self::pair(chain, key, certificate, private_key).map_err(|error| vec![error]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// Takes a chain, leaf first, and a key (PKCS#8, PKCS#1 or SEC1) that were made in memory, as DER.
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, IdentityError> {
        let file = Path::new("(made in memory)");
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate { file: file.into(), contents: Contents::Nothing });
        }
        let key = PrivateKeyDer::try_from(key).map_err(|reason| IdentityError::BadKey {
            file: file.into(),
            source: rustls::Error::General(reason.into()),
        })?;
        Self::pair(chain, key, file, file)
    }

    /// What its leaf says, which is shown for `for_names`.
    pub(super) fn certificate(&self, file: Option<&Path>, for_names: &[Box<str>]) -> Option<Certificate> {
        Certificate::of(self.key.end_entity_cert().ok()?, file.map(Path::to_path_buf), for_names)
    }

    fn pair(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        certificate: &Path,
        private_key: &Path,
    ) -> Result<Self, IdentityError> {
        let unusable = unusable_key(key.secret_der());
        let signer = super::provider().key_provider.load_private_key(key).map_err(|source| match unusable {
            Some(kind) => IdentityError::UnsupportedKey { file: private_key.into(), kind },
            None => IdentityError::BadKey { file: private_key.into(), source },
        })?;
        match matches(&chain[0], &signer) {
            Ok(true) => return Ok(Self { key: Arc::new(CertifiedKey::new(chain, signer)) }),
            Ok(false) => {}
            Err(source) => return Err(IdentityError::BadCertificate { file: certificate.into(), source }),
        }
        let position = chain.iter().position(|other| matches(other, &signer).unwrap_or(false));
        Err(match position {
            Some(index) => IdentityError::LeafNotFirst { certificate: certificate.into(), position: index + 1 },
            None => IdentityError::Mismatch { certificate: certificate.into(), private_key: private_key.into() },
        })
    }
}

/// Whether `key` is the one that `certificate` names. A key that cannot tell (none of ours) counts as another one.
fn matches(certificate: &CertificateDer<'static>, key: &Arc<dyn SigningKey>) -> Result<bool, rustls::Error> {
    match CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match() {
        Ok(()) => Ok(true),
        Err(rustls::Error::InconsistentKeys(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_chain(file: &Path, cache: &FileCache) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = read(file, TlsRole::Certificate, cache)?;
    let chain = sections::<CertificateDer<'static>>(file, TlsRole::Certificate, &text)?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate { file: file.into(), contents: Contents::of(&text) });
    }
    Ok(chain)
}

fn read_key(file: &Path, cache: &FileCache) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let text = read(file, TlsRole::PrivateKey, cache)?;
    if is_encrypted(&text) {
        return Err(IdentityError::EncryptedKey { file: file.into() });
    }
    let mut keys = sections::<PrivateKeyDer<'static>>(file, TlsRole::PrivateKey, &text)?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(IdentityError::SeveralKeys { file: file.into(), count: others + 1 }),
        (None, _) => Err(IdentityError::NoKey { file: file.into(), contents: Contents::of(&text) }),
    }
}

fn read(file: &Path, role: TlsRole, cache: &FileCache) -> Result<Rc<[u8]>, IdentityError> {
    cache.read(file).map_err(|source| IdentityError::Read { file: file.into(), role, source })
}

/// All PEM sections of one kind; other kinds are passed over, so that both may stand in one file.
fn sections<T: PemObject>(file: &Path, role: TlsRole, text: &[u8]) -> Result<Vec<T>, IdentityError> {
    T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|error| IdentityError::Pem {
        file: file.into(),
        role,
        reason: reason(error),
    })
}

/// The library prints what it missed as lists of byte values.
fn reason(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line \"-----END {}-----\" is missing", String::from_utf8_lossy(&end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("malformed line \"{}\"", String::from_utf8_lossy(&line).trim())
        }
        other => other.to_string(),
    }
}

/// PKCS#8 says it in the section's name (RFC 7468 §11), the older forms in a header (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || line.starts_with(b"Proc-Type:") && line.windows(9).any(|word| word == b"ENCRYPTED")
    })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
