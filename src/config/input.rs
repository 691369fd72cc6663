//! The source of a configuration's text: a file, standard input, or none at all.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Document;
use super::overrides::{Environment, Overrides, overrides_or_environment_set};
use super::report::{Finding, Report, Spot};

/// The path that stands for standard input on a command line.
const STDIN: &str = "-";
/// The largest text that is read from standard input.
const MOST: u64 = 16 * 1024 * 1024;

/// The source of a configuration's text.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, read at every load.
    File(PathBuf),
    /// Text that was read from standard input, once.
    Text(Arc<str>),
    /// No text: environment and flags say everything.
    Nothing,
}

impl Input {
    /// The path of the file that is read if the command line names none.
    pub const DEFAULT: &str = "config/proxy.toml";

    /// Returns the input that `-c` names: a path, or `-` for standard input, which is read here.
    ///
    /// # Errors
    ///
    /// Returns a report where standard input cannot be read; a file is read later.
    pub fn named(path: &Path) -> Result<Self, Report> {
        if path == Path::new(STDIN) { Self::from_reader(io::stdin().lock()) } else { Ok(Self::File(path.into())) }
    }

    /// Returns the input of a command line: the one it names, else the file at [`DEFAULT`](Self::DEFAULT), and nothing
    /// where that is missing and environment or flags set keys.
    ///
    /// # Errors
    ///
    /// As [`Self::named`].
    pub fn of(named: Option<&Path>, overrides: &Overrides) -> Result<Self, Report> {
        let default = Path::new(Self::DEFAULT);
        match named {
            Some(path) => Self::named(path),
            None if !is_missing(default) => Ok(Self::File(default.into())),
            None if overrides_or_environment_set(overrides, &Environment::of_process()) => Ok(Self::Nothing),
            // The error names both remedies.
            None => Ok(Self::File(default.into())),
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) | Self::Nothing => None,
        }
    }

    pub(super) fn document(&self) -> Result<Document, Report> {
        match self {
            Self::File(path) => Document::read(path),
            Self::Text(text) => Document::parse_as(self.to_string(), Path::new(""), text.as_ref().to_owned()),
            Self::Nothing => Ok(Document::empty(self.to_string())),
        }
    }

    fn from_reader(input: impl Read) -> Result<Self, Report> {
        let refused = |what: String, help: &str| {
            let name = Self::Text("".into()).to_string();
            Report::of(Finding::new(Spot::file(&name), what, Some(help.to_owned())))
        };
        let mut bytes = Vec::new();
        let read = input.take(MOST + 1).read_to_end(&mut bytes);
        read.map_err(|error| {
            refused(
                format!("cannot read standard input: {error}"),
                "pass the configuration in a pipe, or name a file with -c",
            )
        })?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST) {
            return Err(refused(format!("standard input is longer than {MOST} bytes"), "pass the configuration alone"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| refused("standard input is not UTF-8 text".to_owned(), "pass the configuration as UTF-8"))?;
        Ok(Self::Text(text.into()))
    }
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(_) => f.write_str("standard input"),
            Self::Nothing => f.write_str("environment and flags"),
        }
    }
}

/// Returns whether `path` does not exist; an error of another kind does not count as missing.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn standard_input_is_read_once_and_has_a_name_in_errors() {
        let input = Input::from_reader(&b"[log]\nlevel = \"inf\"\n"[..]).expect("text");
        assert_eq!(input.file(), None);
        let text = input.document().expect("TOML");
        assert_eq!((text.name(), text.folder()), ("standard input", Path::new("")));
        let error = |bytes: &[u8]| Input::from_reader(bytes).expect_err("no text").one_line();
        assert_snapshot!(error(b"\xff"), @"standard input: standard input is not UTF-8 text (pass the configuration as UTF-8)");
        let long = vec![b'#'; usize::try_from(MOST).expect("small") + 1];
        assert_snapshot!(error(&long), @"standard input: standard input is longer than 16777216 bytes (pass the configuration alone)");
    }
}
