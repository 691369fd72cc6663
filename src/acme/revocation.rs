//! The revocation of a certificate (RFC 8555 §7.6).

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::error::OrderError;
use super::order::{self, RevocationReason};
use super::storage::{self, StorageError};
use super::{certificate_key, former_name};
use crate::config::AcmeSettings;
use crate::tls::{Identity, IdentityError};

/// A certificate that was not revoked.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// The storage folder.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no certificate.
    #[error("there is no certificate in {}; nothing is revoked", .0.display())]
    Missing(PathBuf),
    /// The file of the certificate is damaged.
    #[error(transparent)]
    Damaged(#[from] IdentityError),
    /// Another process has the lock.
    #[error("another process orders or revokes a certificate now ({}); try again in a minute", .0.display())]
    Busy(PathBuf),
    /// The authority was not reached, or refuses.
    #[error("{0}")]
    Authority(String),
}

/// A certificate that was revoked.
#[derive(Debug)]
pub struct Revocation {
    /// Its names.
    pub names: Vec<String>,
    /// The reason for which its own key signed the request, and not the account that ordered it.
    pub without_account: Option<String>,
}

/// Revokes the certificate in the storage folder and removes its file. The account that ordered it signs the request; where
/// that is lost, the key of the certificate does. Blocks on files.
///
/// # Errors
///
/// There is no certificate, another process orders one, or the authority refuses: then the file stays.
pub async fn revoke(settings: &AcmeSettings, reason: RevocationReason) -> Result<Revocation, RevocationError> {
    let path = settings.certificate();
    let missing = || RevocationError::Missing(path.clone());
    // There is nothing to lock in a folder that does not exist.
    if !settings.folder().exists() {
        return Err(missing());
    }
    let lock = storage::try_lock(settings)?.ok_or_else(|| RevocationError::Busy(settings.lock()))?;
    former_name::adopt(settings, &lock)?;
    let text = storage::read(&path)?.ok_or_else(missing)?;
    let identity = Identity::from_pem(&text, &path)?;
    let settings = Arc::new(settings.clone());
    let leaf = identity.leaf_der();
    let mut without_account = None;
    let mut revoked = order::revoke(&settings, leaf, reason).await;
    if let Err(lost) = &revoked
        && (matches!(lost, OrderError::NoAccount(_)) || lost.is_unknown_account())
    {
        without_account = Some(lost.to_string());
        revoked = certificate_key::revoke(&settings, leaf, &text, reason).await;
    }
    revoked.map_err(|error| {
        let lost = without_account.as_ref().map(|lost| format!("{lost}; ")).unwrap_or_default();
        RevocationError::Authority(format!("{lost}{}", error.one_line()))
    })?;
    storage::remove(&path)?;
    drop(lock);
    Ok(Revocation { names: identity.leaf().map(|leaf| leaf.names).unwrap_or_default(), without_account })
}
