//! The certificate that all proxies present: ECDSA P-256, signed by an authority that is generated for each run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use thiserror::Error;

/// Writes `ca.pem` (for the client), `cert.pem` and `key.pem` (for nginx and pulsegate) and `both.pem` (the two in one
/// file, for `HAProxy`) into `directory`.
pub fn write(directory: &Path) -> Result<(), CertError> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "pulsegate benchmark authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let authority_certificate = authority.self_signed(&authority_key)?;

    let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = leaf.signed_by(&leaf_key, &Issuer::new(authority, authority_key))?.pem();
    let key = leaf_key.serialize_pem();

    let files = [
        ("ca.pem", authority_certificate.pem()),
        ("both.pem", format!("{certificate}{key}")),
        ("cert.pem", certificate),
        ("key.pem", key),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| CertError::Write { path, source })?;
    }
    Ok(())
}

/// An error in generating the certificate.
#[derive(Debug, Error)]
pub enum CertError {
    /// A failure to generate it.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// A failure to write it.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
