//! The revocation of a certificate by the account that ordered it (RFC 8555 §7.6).

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::error::OrderError;
use super::order::{self, RevocationReason};
use super::storage::{self, StorageError};
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

/// Revokes the certificate in the storage folder and removes its file. Returns its names. Blocks on files.
///
/// # Errors
///
/// There is no certificate, another process orders one, or the authority refuses: then the file stays.
pub async fn revoke(settings: &AcmeSettings, reason: RevocationReason) -> Result<Vec<String>, RevocationError> {
    let path = settings.certificate();
    let missing = || RevocationError::Missing(path.clone());
    let text = storage::read(&path)?.ok_or_else(missing)?;
    let identity = Identity::from_pem(&text, &path)?;
    let lock = storage::try_lock(settings)?.ok_or_else(|| RevocationError::Busy(settings.lock()))?;
    let settings = Arc::new(settings.clone());
    let revoked = order::revoke(&settings, identity.leaf_der(), reason).await;
    revoked.map_err(|error: OrderError| RevocationError::Authority(error.one_line()))?;
    storage::remove(&path)?;
    drop(lock);
    Ok(identity.leaf().map(|leaf| leaf.names).unwrap_or_default())
}
