//! The address of a running proxy, and the source that it comes from.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use super::address::Address;

/// The address of a listener, and the source that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct AdminAddress {
    /// The address.
    pub(in crate::cli) address: Address,
    /// The flag that sets another address.
    pub(super) flag: &'static str,
    pub(super) origin: AddressSource,
}

/// The source of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressSource {
    Flag,
    Configured(PathBuf),
    Default,
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match &self.origin {
            AddressSource::Flag => Ok(()),
            AddressSource::Configured(file) => write!(f, " (of {})", file.display()),
            AddressSource::Default => f.write_str(" (the default)"),
        }
    }
}

impl AdminAddress {
    /// Creates an address given on the command line; `flag` is the one that sets it.
    pub(super) fn flagged(address: Address, flag: &'static str) -> Self {
        Self { address, flag, origin: AddressSource::Flag }
    }

    /// Returns the advice for an address where no proxy listens.
    pub(super) fn remedy(&self) -> String {
        let Self { flag, origin, .. } = self;
        match (origin, *flag) {
            (AddressSource::Default, "--admin") => {
                "-c names its configuration, --admin the address itself (127.0.0.1:4040 for `pulsegate dev`)".to_owned()
            }
            (AddressSource::Default, flag) => format!("-c names its configuration, {flag} the address itself"),
            (_, flag) => format!("{flag} names another address"),
        }
    }

    /// Returns whether the path of a unix socket belongs to another kind of file.
    pub(super) fn is_not_a_socket(&self) -> bool {
        let Address::Unix(path) = &self.address else { return false };
        fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
    }
}

impl AddressSource {
    /// A value equal to the default has no source to name. Another value without a file comes from a variable; the
    /// address alone then describes it.
    pub(super) fn of(default: bool, file: Option<PathBuf>) -> Self {
        match file {
            _ if default => Self::Default,
            Some(file) => Self::Configured(file),
            None => Self::Flag,
        }
    }
}
