//! The proxy's own identity: a certificate chain and the private key of its leaf.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use thiserror::Error;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::Certificate;
use super::contents::{Contents, NEW_KEY, PemKind, unusable_key};
use crate::config::{FileCache, TlsFault, TlsRole};

/// A certificate chain, leaf first, and the private key of the leaf; that they match has been verified.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
}

/// The faults of a certificate chain and its key. Each names the file; [`help`](Self::help) returns the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is missing or cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Its role: certificate or private key.
        role: TlsRole,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A PEM section is incomplete or malformed.
    #[error("{}: damaged PEM: {reason}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Its role: certificate or private key.
        role: TlsRole,
        /// The fault, as text.
        reason: String,
    },
    /// The file has no `CERTIFICATE` section.
    #[error("{}: no certificate in this file: {contents}", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
        /// The kind of its contents.
        contents: Contents,
    },
    /// The leaf is not a valid X.509 certificate.
    #[error("{}: the first certificate cannot be used: {}", file.display(), fault_of(source))]
    BadCertificate {
        /// The file.
        file: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// The file has no section with a private key.
    #[error("{}: no private key in this file: {contents}", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
        /// The kind of its contents.
        contents: Contents,
    },
    /// The private key is encrypted, and the proxy takes no passphrase.
    #[error("{}: the private key is encrypted", file.display())]
    EncryptedKey {
        /// The file.
        file: PathBuf,
    },
    /// The file holds more than one private key, so the choice would be ambiguous.
    #[error("{}: {count} private keys in this file", file.display())]
    SeveralKeys {
        /// The file.
        file: PathBuf,
        /// The number of private keys.
        count: usize,
    },
    /// The private key has an unsupported algorithm, size or curve.
    #[error("{}: the private key is {kind}", file.display())]
    UnsupportedKey {
        /// The file.
        file: PathBuf,
        /// Its algorithm, size or curve, and the supported ones.
        kind: String,
    },
    /// The DER of the private key is malformed, or its kind is unknown.
    #[error("{}: the private key cannot be used: it is damaged, or of an unknown kind", file.display())]
    BadKey {
        /// The file.
        file: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// The private key belongs to a certificate of the chain, but not to the first.
    #[error(
        "{}: the private key belongs to certificate {position} of this file, not to the first",
        certificate.display()
    )]
    LeafNotFirst {
        /// The file with the chain.
        certificate: PathBuf,
        /// The position of the key's certificate in the chain, counted from 1.
        position: usize,
    },
    /// The private key belongs to no certificate of the chain.
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
    /// Returns the role of the file at fault.
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
            Self::NoCertificate { file, contents } => contents.remedy(PemKind::Certificate, file),
            Self::BadCertificate { file, .. } => {
                Some(format!("look at it: openssl x509 -in {} -noout -text", file.display()))
            }
            Self::NoKey { file, contents } => contents.remedy(PemKind::PrivateKey, file),
            Self::EncryptedKey { file } => {
                Contents::Pem(PemKind::EncryptedPrivateKey).remedy(PemKind::PrivateKey, file)
            }
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

/// Returns the fault of an own certificate, as text; the library's wording describes a peer's certificate.
fn fault_of(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => "it is not valid X.509".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the remedy for a file that cannot be read.
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

    /// Does the same as [`from_pem_files`](Self::from_pem_files), and reports the faults of both files.
    ///
    /// # Errors
    ///
    /// One fault of each file that cannot be used, or one of the pair.
    pub fn faults(certificate: &Path, private_key: &Path, cache: &FileCache) -> Result<Self, Vec<IdentityError>> {
        match (read_chain(certificate, cache), read_key(private_key, cache)) {
            (Ok(chain), Ok(key)) => Self::pair(chain, key, certificate, private_key).map_err(|error| vec![error]),
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// Reads chain and key from the text of one PEM file, and checks that they are a pair.
    ///
    /// # Errors
    ///
    /// A fault of the chain or the key; it names `file`.
    pub fn from_pem(text: &[u8], file: &Path) -> Result<Self, IdentityError> {
        Self::pair(chain_of(file, text)?, key_of(file, text)?, file, file)
    }

    /// Reads the certificate and key of a challenge from the text of one PEM file. They are not checked: the library
    /// refuses to parse a certificate with an unknown critical extension, which that of a challenge must have (RFC 8737 §3).
    pub(super) fn for_challenge(text: &[u8], file: &Path) -> Option<Arc<CertifiedKey>> {
        let (chain, key) = (chain_of(file, text).ok()?, key_of(file, text).ok()?);
        let signer = super::provider().key_provider.load_private_key(key).ok()?;
        Some(Arc::new(CertifiedKey::new(chain, signer)))
    }

    /// Creates an identity from a certificate chain, leaf first, and a private key (PKCS#8, PKCS#1 or SEC1), all in
    /// DER.
    ///
    /// # Errors
    ///
    /// The chain is empty, a part is malformed or unsupported, or the key does not belong to the leaf.
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

    /// Returns the fields of its leaf, which was read from `file` and is presented for `for_names`; `None` if the leaf
    /// cannot be parsed.
    pub(super) fn certificate(&self, file: Option<&Path>, for_names: &[Box<str>]) -> Option<Certificate> {
        Certificate::of(self.key.end_entity_cert().ok()?, file.map(Path::to_path_buf), for_names)
    }

    /// Returns the fields of its leaf; `None` if the leaf cannot be parsed.
    pub fn leaf(&self) -> Option<Certificate> {
        self.certificate(None, &[])
    }

    /// Returns the leaf in DER.
    pub fn leaf_der(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// Returns whether the leaf covers `name`, by the rules that a client applies.
    pub fn is_for(&self, name: &str) -> bool {
        is_for(&self.key, name)
    }

    /// Returns the identifier of the leaf towards its authority, in two parts: the key identifier of the authority and
    /// the serial number (RFC 9773 §4.1). `None` if the leaf does not name the authority's key.
    pub fn renewal_id(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let leaf = x509_cert::Certificate::from_der(self.leaf_der()).ok()?;
        let leaf = leaf.tbs_certificate();
        let (_, authority) = leaf.get_extension::<AuthorityKeyIdentifier>().ok().flatten()?;
        let key = authority.key_identifier?.as_bytes().to_vec();
        Some((key, leaf.serial_number().as_bytes().to_vec()))
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

/// Returns whether `key` is the private key of `certificate`. A key that does not disclose its public half (none of the
/// provider's) counts as a mismatch.
fn matches(certificate: &CertificateDer<'static>, key: &Arc<dyn SigningKey>) -> Result<bool, rustls::Error> {
    match CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match() {
        Ok(()) => Ok(true),
        Err(rustls::Error::InconsistentKeys(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether the leaf of `key` covers `name`, by the rules that a client applies.
pub(super) fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let leaf = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    match (leaf, ServerName::try_from(name)) {
        (Ok(leaf), Ok(name)) => verify_server_name(&leaf, &name).is_ok(),
        _ => false,
    }
}

fn read_chain(file: &Path, cache: &FileCache) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    chain_of(file, &read(file, TlsRole::Certificate, cache)?)
}

fn chain_of(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = sections::<CertificateDer<'static>>(file, TlsRole::Certificate, text)?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate { file: file.into(), contents: Contents::of(text) });
    }
    Ok(chain)
}

fn read_key(file: &Path, cache: &FileCache) -> Result<PrivateKeyDer<'static>, IdentityError> {
    key_of(file, &read(file, TlsRole::PrivateKey, cache)?)
}

fn key_of(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if is_encrypted(text) {
        return Err(IdentityError::EncryptedKey { file: file.into() });
    }
    let mut keys = sections::<PrivateKeyDer<'static>>(file, TlsRole::PrivateKey, text)?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(IdentityError::SeveralKeys { file: file.into(), count: others + 1 }),
        (None, _) => Err(IdentityError::NoKey { file: file.into(), contents: Contents::of(text) }),
    }
}

fn read(file: &Path, role: TlsRole, cache: &FileCache) -> Result<Rc<[u8]>, IdentityError> {
    cache.read(file).map_err(|source| IdentityError::Read { file: file.into(), role, source })
}

/// Returns all PEM sections of one kind. Sections of other kinds are skipped, so one file may hold certificate and key.
fn sections<T: PemObject>(file: &Path, role: TlsRole, text: &[u8]) -> Result<Vec<T>, IdentityError> {
    T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|error| IdentityError::Pem {
        file: file.into(),
        role,
        reason: reason(error),
    })
}

/// Returns the fault of a PEM file, as text; the library prints the missing line as a list of byte values.
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

/// Returns whether a PEM file holds an encrypted private key: PKCS#8 has the word in the section's label (RFC 7468
/// §11), the older formats in a header (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || line.starts_with(b"Proc-Type:") && line.windows(9).any(|word| word == b"ENCRYPTED")
    })
}

#[cfg(test)]
mod tests;
