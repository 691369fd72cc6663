//! Certificates under the file names of earlier versions, whose first domain named the file.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::storage::{OrderLock, StorageError, rename};
use crate::config::AcmeSettings;
use crate::tls::Identity;

/// Gives the certificate for exactly the domains of `settings` the name that belongs to them, if it has a former one.
/// Returns the former path.
///
/// # Errors
///
/// It cannot be renamed.
pub(super) fn adopt(settings: &AcmeSettings, _lock: &OrderLock) -> Result<Option<PathBuf>, StorageError> {
    let own = settings.certificate();
    if own.exists() {
        return Ok(None);
    }
    let wanted: BTreeSet<&str> = settings.domains.iter().map(|domain| &**domain).collect();
    let is_it = |path: &PathBuf| {
        let Some(identity) = fs::read(path).ok().and_then(|text| Identity::from_pem(&text, path).ok()) else {
            return false;
        };
        identity.leaf().is_some_and(|leaf| {
            let names: BTreeSet<String> = leaf.names.iter().map(|name| name.to_ascii_lowercase()).collect();
            leaf.not_after > SystemTime::now() && names.iter().map(String::as_str).eq(wanted.iter().copied())
        })
    };
    let mut former = settings.domains.iter().map(|domain| settings.folder().join(format!("{domain}.pem")));
    let Some(former) = former.find(is_it) else { return Ok(None) };
    rename(&former, &own)?;
    Ok(Some(former))
}
