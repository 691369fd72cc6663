//! The source of the configuration, which is read in one piece although it lies in several files.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::watch::Snapshot;
use crate::config::{EffectiveConfig, FileCache, Http2, Report, Settings, TlsFault};
use crate::tls::{ServerConfigError, ServerConfigs, TerminatorError};
use crate::upstream::{AppError, AppSet};

/// The number of attempts to read files that change meanwhile.
const TRIES: usize = 5;

/// The pause before each attempt but the first, in which a writer may finish.
const REST: Duration = Duration::from_millis(100);

/// Reads and validates all settings; the TLS files that they name are read through the cache.
type Load = Box<dyn Fn(&FileCache) -> Result<(Settings, EffectiveConfig), Report> + Send + Sync>;

/// The source of the configuration.
pub struct ConfigSource {
    /// `None` where the configuration is not read from a file.
    file: Option<PathBuf>,
    load: Load,
}

/// A configuration with all that its files hold, read in one piece.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The settings.
    pub settings: Settings,
    /// The same for people.
    pub shown: EffectiveConfig,
    /// The terms of handshakes; `None` where TLS is not terminated here.
    pub terms: Option<ServerConfigs>,
    /// The apps.
    pub apps: AppSet,
    /// The contents of the files.
    pub snapshot: Snapshot,
}

/// The errors of a configuration that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Its contents.
    #[error(transparent)]
    Settings(#[from] Report),
    /// A certificate, a key or the authorities of clients.
    #[error("{error}{}", remedy(.error))]
    Terms {
        /// Their faults.
        #[from]
        error: ServerConfigError,
    },
    /// The TLS library does not take them.
    #[error(transparent)]
    Terminator(#[from] TerminatorError),
    /// The TLS files for an app.
    #[error("{error}{}", because(.error))]
    Apps {
        /// Their faults.
        #[from]
        error: AppError,
    },
    /// The files changed during every attempt.
    #[error("the files changed while they were read; they are read again when they stop changing")]
    Restless,
    /// A pipe, say.
    #[error("{}: not a regular file, which cannot be read a second time; a restart reads it", .0.display())]
    Special(PathBuf),
    /// A bug.
    #[error("the configuration could not be loaded: internal error; please report this")]
    Panicked,
}

/// A load that failed.
#[derive(Debug)]
pub(super) struct LoadFailure {
    /// The cause.
    pub(super) error: Box<LoadError>,
    /// The contents of the files.
    pub(super) found: Snapshot,
}

impl LoadFailure {
    pub(super) fn new(error: impl Into<LoadError>, found: Snapshot) -> Self {
        Self { error: Box::new(error.into()), found }
    }
}

fn remedy(error: &ServerConfigError) -> String {
    TlsFault::from(error).help.map_or_else(String::new, |help| format!(" ({help})"))
}

fn because(error: &AppError) -> String {
    let mut why = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    why
}

impl LoadError {
    /// All of it in one line, for a log.
    pub fn one_line(&self) -> String {
        let text = match self {
            Self::Settings(report) => report.one_line(),
            other => other.to_string(),
        };
        // The system's and the libraries' words may have line breaks.
        text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl ConfigSource {
    /// The configuration whose file is `file`, if it has one; `load` reads and validates that and all that is laid over it,
    /// and reads TLS files through the cache that it is given.
    pub fn new(
        file: impl Into<Option<PathBuf>>,
        load: impl Fn(&FileCache) -> Result<(Settings, EffectiveConfig), Report> + Send + Sync + 'static,
    ) -> Self {
        Self { file: file.into(), load: Box::new(load) }
    }

    /// Reads the configuration and all files that it names, for the first time. Blocks.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the settings, a TLS file or an app; or that the files kept changing while they were read.
    pub fn open(&self) -> Result<LoadedConfig, LoadError> {
        let first = || Snapshot::take(self.file.clone());
        self.read(first).map_err(|failure| *failure.error)
    }

    /// Reads everything again; `known` are the files of the last time. A failure comes with what they held.
    pub(super) fn reopen(&self, known: &Snapshot) -> Result<LoadedConfig, LoadFailure> {
        let now = known.again();
        match now.special() {
            Some(file) => Err(LoadFailure::new(LoadError::Special(file.into()), now)),
            None => self.read(|| known.again()).and_then(undamaged),
        }
    }

    /// Reads until nothing has changed meanwhile, so that a certificate comes with its own key. Each TLS file is read once
    /// in a try, and looked at again at its end. Blocks, and sleeps between two tries. `known` looks at the files that are
    /// known before the configuration is.
    fn read(&self, known: impl Fn() -> Snapshot) -> Result<LoadedConfig, LoadFailure> {
        let mut last = None;
        for turn in 0..TRIES {
            if turn > 0 {
                thread::sleep(REST);
            }
            let (before, cache) = (known(), FileCache::default());
            let (settings, shown) = match (self.load)(&cache) {
                Ok(loaded) => loaded,
                Err(report) => {
                    let read = Snapshot::of(cache.paths(), &cache);
                    // Not all files that it would name are known; those of the last time may be at fault.
                    if known() == before && read.again() == read {
                        return Err(LoadFailure::new(report, before));
                    }
                    last = Some(before);
                    continue;
                }
            };
            let found = Snapshot::of(settings.files().into_iter().chain(self.file.clone()), &cache);
            let terms = settings.tls.terminate().map(|tls| ServerConfigs::from_pem_files(tls, &cache)).transpose();
            let opened = terms
                .map_err(LoadError::from)
                .map(|terms| terms.map(|terms| terms.with_http2(settings.listen.http2 != Http2::Off)))
                .and_then(|terms| Ok((terms, AppSet::load(&settings, &cache, Instant::now())?)));
            let is_calm = found == found.again() && before.agrees_with(&found);
            match opened {
                Ok((terms, apps)) if is_calm => {
                    return Ok(LoadedConfig { settings, shown, terms, apps, snapshot: found });
                }
                Err(error) if is_calm => return Err(LoadFailure::new(error, found)),
                _ => last = Some(found),
            }
        }
        Err(LoadFailure::new(LoadError::Restless, last.unwrap_or_else(known)))
    }
}

/// Refuses a damaged certificate of an authority: the sound one in force is presented until another is there. A start
/// counts it as missing instead.
fn undamaged(mut loaded: LoadedConfig) -> Result<LoadedConfig, LoadFailure> {
    match loaded.terms.as_mut().and_then(ServerConfigs::take_damage) {
        Some(error) => Err(LoadFailure::new(ServerConfigError::from(error), loaded.snapshot)),
        None => Ok(loaded),
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}
