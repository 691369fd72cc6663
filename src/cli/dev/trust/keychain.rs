//! The login keychain of macOS.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use super::tool::{ToolError, Tools, run};

/// The folder that shows that a system is macOS.
const SIGN: &str = "Library/Keychains";
/// The user's keychain, below the home folder.
const LOGIN: &str = "Library/Keychains/login.keychain-db";

/// The user's keychain, and the tool that changes it. The system itself asks for the user's password.
#[derive(Debug)]
pub(super) struct Keychain {
    path: PathBuf,
    security: PathBuf,
}

impl Keychain {
    /// Returns the keychain of a user of the system below `root`.
    pub(super) fn find(root: &Path, home: Option<&Path>, tools: &Tools) -> Option<Self> {
        let security = tools.find("security").filter(|_| root.join(SIGN).is_dir())?;
        Some(Self { path: home?.join(LOGIN), security })
    }

    /// Returns whether the certificate is trusted already.
    pub(super) fn holds(&self, certificate: &Path) -> bool {
        let words = ["verify-cert", "-l", "-L", "-q", "-c"].map(OsString::from);
        run(&self.command(words.into_iter().chain([certificate.into()]))).is_ok()
    }

    /// Adds the certificate, trusted as a root.
    pub(super) fn install(&self, certificate: &Path) -> Result<(), ToolError> {
        let words = ["add-trusted-cert", "-r", "trustRoot", "-k"].map(OsString::from);
        run(&self.command(words.into_iter().chain([self.path.clone().into(), certificate.into()]))).map(drop)
    }

    /// Removes the trust. The certificate itself stays in the keychain, without effect.
    pub(super) fn remove(&self, certificate: &Path) -> Result<(), ToolError> {
        run(&self.command(["remove-trusted-cert".into(), certificate.into()])).map(drop)
    }

    fn command(&self, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        std::iter::once(self.security.clone().into()).chain(words).collect()
    }
}

impl Display for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, by security", self.path.display())
    }
}
