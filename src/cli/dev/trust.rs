//! `--trust` and `--untrust`: the kept authority in the places where this system and its browsers look for authorities.
//!
//! ```text
//! TrustStores::find → the user agrees → KeptCaFiles → each store: install, or undo and report
//! ```

mod keychain;
mod lock;
mod nss;
mod system;
mod tool;

use std::fmt::{self, Display};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::bail;

use self::keychain::Keychain;
use self::lock::TrustLock;
use self::nss::{NssDatabase, databases};
use self::system::SystemStore;
use self::tool::{ToolError, Tools};
use super::kept_ca::{KeptCa, KeptCaFiles};
use crate::config::UserEnvironment;

/// The remedy on a system without a known list of authorities.
const BY_HAND: &str = "`--ca-out FILE` writes the CA of one run, for you to import by hand";

/// What is printed while another process has the lock.
const WAITING: &str = "Waiting for another `pulsegate dev` that installs or removes the CA …";

/// A request to install or to remove the authority.
#[derive(Debug)]
pub(super) struct TrustRequest<'a> {
    /// The environment of the user.
    pub(super) user: &'a UserEnvironment,
    /// The folder below which the files of the system are; `None` for the system that runs.
    pub(super) root: Option<&'a Path>,
    /// Set if the user agrees without a question.
    pub(super) agreed: bool,
}

/// A place in which authorities are trusted.
#[derive(Debug)]
enum TrustStore {
    System(SystemStore),
    Keychain(Keychain),
    Nss(NssDatabase),
}

/// All such places of a user.
#[derive(Debug)]
struct TrustStores {
    list: Vec<TrustStore>,
    /// The databases of browsers that cannot be changed for lack of `certutil`.
    closed: Vec<PathBuf>,
    /// The user who does not get the authority, since the command runs by sudo.
    sudo_user: Option<String>,
}

impl TrustStore {
    /// Returns whether it has the certificate of this authority.
    fn holds(&self, kept: &KeptCa) -> bool {
        match self {
            Self::System(store) => store.holds(kept.authority.pem()),
            Self::Keychain(store) => store.holds(&kept.certificate),
            Self::Nss(store) => store.holds(kept.authority.pem()),
        }
    }

    /// Returns whether it may have a certificate of an authority of `dev`, the kept one or an older one.
    fn may_hold(&self, files: &KeptCaFiles, kept: Option<&str>) -> bool {
        match self {
            Self::System(store) => store.may_hold(kept, files.exist()),
            Self::Keychain(_) => files.certificate().exists(),
            Self::Nss(store) => store.holds_any(),
        }
    }

    /// Returns whether it is known to have the certificate still, after an installation that failed.
    fn trusts_after_failure(&self, kept: &KeptCa) -> bool {
        match self {
            Self::System(store) => store.trusts(kept.authority.pem()) == Some(true),
            Self::Keychain(_) => false,
            Self::Nss(store) => store.holds(kept.authority.pem()),
        }
    }

    /// Fails if the certificate cannot be put into its place, since something else is there.
    fn check(&self) -> Result<(), ToolError> {
        match self {
            Self::System(store) => store.check(),
            Self::Keychain(_) | Self::Nss(_) => Ok(()),
        }
    }

    fn install(&self, certificate: &Path) -> Result<(), ToolError> {
        match self {
            Self::System(store) => store.install(certificate),
            Self::Keychain(store) => store.install(certificate),
            Self::Nss(store) => store.install(certificate),
        }
    }

    fn remove(&self, certificate: &Path) -> Result<(), ToolError> {
        match self {
            Self::System(store) => store.remove(),
            Self::Keychain(store) => store.remove(certificate),
            Self::Nss(store) => store.remove(),
        }
    }
}

impl Display for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(store) => store.fmt(f),
            Self::Keychain(store) => store.fmt(f),
            Self::Nss(store) => store.fmt(f),
        }
    }
}

impl TrustStores {
    fn find(request: &TrustRequest<'_>) -> Self {
        let TrustRequest { user, root, .. } = request;
        let tools = Tools::of(user, *root);
        let root = root.unwrap_or(Path::new("/"));
        let system = SystemStore::find(root, &tools).map(TrustStore::System);
        let keychain = Keychain::find(root, user.home.as_deref(), &tools).map(TrustStore::Keychain);
        let databases = databases(user);
        let (nss, closed) = match tools.find("certutil") {
            Some(certutil) => {
                let open = |folder| TrustStore::Nss(NssDatabase { folder, certutil: certutil.clone() });
                (databases.into_iter().map(open).collect(), Vec::new())
            }
            None => (Vec::new(), databases),
        };
        Self {
            list: system.into_iter().chain(keychain).chain(nss).collect(),
            closed,
            sudo_user: user.sudo_user.clone(),
        }
    }

    /// Returns the advice for a user whose browsers do not get the authority.
    fn advice(&self) -> Option<String> {
        if let Some(user) = &self.sudo_user {
            return Some(format!(
                "This runs by sudo: the CA is root's, and browsers and later runs of {user} do not get it. Without sudo they \
                 do, and sudo is called where it is needed."
            ));
        }
        let first = self.closed.first()?;
        Some(format!(
            "Browsers have authorities of their own, as in {}: for these install certutil (package libnss3-tools, \
             nss-tools or nss), and repeat the command.",
            first.display()
        ))
    }
}

/// Returns the places in which `--trust` would install an authority, for a sentence; `None` if there are none.
pub(super) fn places(request: &TrustRequest<'_>) -> Option<String> {
    let stores = TrustStores::find(request);
    let has = |is: fn(&TrustStore) -> bool| stores.list.iter().any(is);
    let system = has(|store| !matches!(store, TrustStore::Nss(_))).then_some("this system");
    let browsers = has(|store| matches!(store, TrustStore::Nss(_))).then_some("its browsers");
    let names: Vec<&str> = system.into_iter().chain(browsers).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// Installs the kept authority, which is made if there is none, wherever it is missing. Returns `None` if the user does not
/// agree and none is kept.
///
/// # Errors
///
/// There is no place for it, the user cannot be asked, a file cannot be written, or a tool fails. An authority that was
/// made in vain is removed.
pub(super) fn install(request: &TrustRequest<'_>) -> anyhow::Result<Option<KeptCa>> {
    let (files, now) = (KeptCaFiles::of(request.user)?, SystemTime::now());
    let stores = TrustStores::find(request);
    if stores.list.is_empty() {
        let advice = stores.advice().map(|advice| format!(" {advice}")).unwrap_or_default();
        bail!(
            "no list of trusted authorities was found that can be changed on this system; on Linux the package \
             ca-certificates has one, and {BY_HAND}.{advice}"
        );
    }
    let _lock = TrustLock::acquire(&files, || print_line(WAITING))?;
    files.check()?;
    stores.list.iter().try_for_each(TrustStore::check)?;
    let kept = files.load_unless_old(now)?;
    let is_missing = |store: &&TrustStore| !kept.as_ref().is_some_and(|kept| store.holds(kept));
    let missing: Vec<_> = stores.list.iter().filter(is_missing).collect();
    if kept.is_some() && missing.is_empty() {
        print_line("The CA is installed already.")?;
        stores.advice().map_or(Ok(()), |advice| print_line(&advice))?;
        return Ok(kept);
    }
    print_line(&plan(&files, kept.is_none(), &missing, stores.advice().as_deref()))?;
    if !request.agreed && !agrees()? {
        print_line("Nothing was changed.")?;
        return Ok(kept);
    }
    let is_new = kept.is_none();
    let kept = match kept {
        Some(kept) => kept,
        None => files.create(now)?,
    };
    kept.restore_certificate()?;
    let mut faults = Vec::new();
    // The commands of an error may name the file of the certificate, and a tool may have taken it up before it failed.
    let mut is_needed = false;
    for store in &missing {
        match store.install(&kept.certificate) {
            Ok(()) => print_line(&format!("  installed  {store}"))?,
            Err(error) => {
                is_needed |= matches!(error, ToolError::NoSudo { .. }) || store.trusts_after_failure(&kept);
                faults.push(error.to_string());
            }
        }
    }
    if faults.is_empty() {
        print_line("")?;
        return Ok(Some(kept));
    }
    if is_new && !is_needed && faults.len() == missing.len() {
        files.remove()?;
    }
    bail!("the CA is not trusted everywhere: {}", faults.join("; "));
}

/// Removes the authority from every place, and its files.
///
/// # Errors
///
/// A tool fails, or a file cannot be removed; the files are kept until no place has the authority any more.
pub(super) fn remove(request: &TrustRequest<'_>) -> anyhow::Result<()> {
    let files = KeptCaFiles::of(request.user)?;
    let stores = TrustStores::find(request);
    // Where there is no folder, there is nothing that another process changes.
    let lock = files.folder().is_dir().then(|| TrustLock::acquire(&files, || print_line(WAITING)));
    let _lock = lock.transpose()?;
    files.check()?;
    let certificate = files.certificate();
    let kept = files.certificate_pem();
    let holders: Vec<_> = stores.list.iter().filter(|store| store.may_hold(&files, kept.as_deref())).collect();
    if holders.is_empty() && !files.exist() {
        print_line("No CA of pulsegate dev is installed.")?;
        return Ok(());
    }
    let mut faults = Vec::new();
    for store in holders {
        match store.remove(&certificate) {
            Ok(()) => print_line(&format!("  removed  {store}"))?,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if !faults.is_empty() {
        bail!(
            "the CA is still trusted, and kept in {}: {}; then repeat the command",
            files.secret().display(),
            faults.join("; ")
        );
    }
    files.remove()?;
    print_line(&format!("  removed  {}", files.secret().display()))?;
    stores.advice().map_or(Ok(()), |advice| print_line(&advice))?;
    Ok(())
}

/// Returns the text that a user agrees to.
fn plan(files: &KeptCaFiles, is_new: bool, missing: &[&TrustStore], advice: Option<&str>) -> String {
    let mut lines =
        vec!["--trust installs a certificate authority for servers of localhost and private addresses:".to_owned()];
    lines.push(String::new());
    if is_new {
        lines.push(format!("  creates    {}, with its key, for you alone to read", files.secret().display()));
    }
    lines.extend(missing.iter().map(|store| format!("  installs   {store}")));
    lines.push(String::new());
    lines.extend(advice.map(|advice| format!("{advice}\n")));
    lines.join("\n")
}

/// Asks the user, on a terminal.
fn agrees() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "nothing was changed: standard input is no terminal, so that you cannot be asked; --yes agrees in advance"
        );
    }
    let mut out = io::stdout().lock();
    write!(out, "Continue? [y/N] ")?;
    out.flush()?;
    let mut answer = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut answer)?;
    let Ok(answer) = str::from_utf8(&answer) else {
        print_line("The answer is no text in UTF-8, and counts as no.")?;
        return Ok(false);
    };
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
