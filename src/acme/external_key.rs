//! The MAC key of an external account (RFC 8555 §7.3.4).

use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use instant_acme::ExternalAccountKey;
use thiserror::Error;

use crate::config::{AcmeSettings, ExternalAccount, FileCache, TlsFault, TlsRole};

/// A file of which no MAC key can be made.
#[derive(Debug, Error)]
#[error("{what} (tls.acme.external_account.key_file); {help}")]
pub(super) struct ExternalKeyError {
    file: PathBuf,
    what: String,
    help: &'static str,
}

/// Reads the MAC key of `account`, through `cache`.
///
/// # Errors
///
/// The file cannot be read, or holds something else.
pub(super) fn read(account: &ExternalAccount, cache: &FileCache) -> Result<ExternalAccountKey, ExternalKeyError> {
    let file = &account.key_file;
    let text = cache.read(file).map_err(|error| ExternalKeyError {
        file: file.clone(),
        what: format!("{}: cannot be read: {error}", file.display()),
        help: "name a file that the user that pulsegate runs as can read",
    })?;
    let text = text.trim_ascii();
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    match BASE64URL_NOPAD.decode(&text[..end]) {
        Ok(key) if !key.is_empty() => Ok(ExternalAccountKey::new(account.key_id.to_string(), &key)),
        _ => Err(ExternalKeyError {
            file: file.clone(),
            what: format!("{}: no MAC key in this file", file.display()),
            help: "put the key there as the authority shows it, in base64url",
        }),
    }
}

/// Returns the fault of the MAC key, where it is needed: an account that is there already has been bound by it.
pub(super) fn fault(settings: &AcmeSettings, cache: &FileCache) -> Option<TlsFault> {
    let account = settings.external_account.as_ref().filter(|_| !settings.account().exists())?;
    let ExternalKeyError { file, what, help } = read(account, cache).err()?;
    Some(TlsFault { role: TlsRole::ExternalKey, file, what, help: Some(help.to_owned()) })
}
