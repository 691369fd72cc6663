//! The databases of Firefox and Chromium on Linux, which the library NSS reads.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};

use super::tool::{ToolError, run};
use crate::config::UserEnvironment;

/// The name of the authority in a database.
const NICKNAME: &str = "pulsegate dev CA";
/// The file that shows that a folder is a database.
const SIGN: &str = "cert9.db";
/// The databases of Chromium and its relatives, below the home folder.
const CHROMIUM: [&str; 2] = [".pki/nssdb", "snap/chromium/current/.pki/nssdb"];
/// The folders of Firefox's profiles, below the home folder.
const FIREFOX: [&str; 5] = [
    ".mozilla/firefox",
    ".config/mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
    "Library/Application Support/Firefox/Profiles",
];

/// One database.
#[derive(Debug)]
pub(super) struct NssDatabase {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The tool that changes it.
    pub(super) certutil: PathBuf,
}

/// Returns the databases of the user's browsers.
pub(super) fn databases(user: &UserEnvironment) -> Vec<PathBuf> {
    let Some(home) = &user.home else { return Vec::new() };
    let chromium = CHROMIUM.iter().map(|folder| home.join(folder));
    let chromium = chromium.chain(user.data.iter().map(|data| data.join("pki/nssdb")));
    let profiles = FIREFOX.iter().filter_map(|folder| fs::read_dir(home.join(folder)).ok()).flatten().flatten();
    let mut found: Vec<_> =
        chromium.chain(profiles.map(|entry| entry.path())).filter(|folder| folder.join(SIGN).is_file()).collect();
    found.sort();
    found
}

impl NssDatabase {
    /// Returns whether it has this certificate.
    pub(super) fn holds(&self, pem: &str) -> bool {
        self.stored().is_some_and(|stored| body(&stored) == body(pem))
    }

    /// Returns whether it has a certificate by the name of the authority.
    pub(super) fn holds_any(&self) -> bool {
        self.stored().is_some()
    }

    /// Adds the certificate as an authority for servers, in the place of an older one.
    pub(super) fn install(&self, certificate: &Path) -> Result<(), ToolError> {
        if self.holds_any() {
            self.remove()?;
        }
        let arguments = ["-A".into(), "-t".into(), "C,,".into(), "-i".into(), certificate.into()];
        run(&self.command(arguments)).map(drop)
    }

    /// Removes the certificate.
    pub(super) fn remove(&self) -> Result<(), ToolError> {
        run(&self.command(["-D".into()])).map(drop)
    }

    fn stored(&self) -> Option<String> {
        run(&self.command(["-L".into(), "-a".into()])).ok()
    }

    fn command<const N: usize>(&self, arguments: [OsString; N]) -> Vec<OsString> {
        let mut database = OsString::from("sql:");
        database.push(&self.folder);
        let common = [self.certutil.clone().into(), "-d".into(), database, "-n".into(), NICKNAME.into()];
        common.into_iter().chain(arguments).collect()
    }
}

impl Display for NssDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let browser = if self.folder.ends_with("nssdb") { "Chromium" } else { "Firefox" };
        write!(f, "{}, of {browser}, by certutil", self.folder.display())
    }
}

/// Returns what identifies a certificate in PEM, whatever its line breaks are.
fn body(pem: &str) -> String {
    pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn databases_of_both_browsers_are_found() {
        let home = TempDir::new().expect("a folder");
        let folders = [".pki/nssdb", ".mozilla/firefox/abc.default", "share/pki/nssdb"];
        for folder in folders {
            fs::create_dir_all(home.path().join(folder)).expect("made");
            fs::write(home.path().join(folder).join(SIGN), "").expect("written");
        }
        fs::create_dir_all(home.path().join(".mozilla/firefox/Crash Reports")).expect("made");
        let user = UserEnvironment {
            home: Some(home.path().into()),
            data: Some(home.path().join("share")),
            ..UserEnvironment::default()
        };
        let expected = [".mozilla/firefox/abc.default", ".pki/nssdb", "share/pki/nssdb"];
        assert_eq!(databases(&user), expected.map(|folder| home.path().join(folder)));
        assert_eq!(databases(&UserEnvironment::default()), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn line_breaks_do_not_matter() {
        assert_eq!(body("-----BEGIN X-----\r\nAB\r\nC\r\n-----END X-----\r\n"), "ABC");
    }
}
