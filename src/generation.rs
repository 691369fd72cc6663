//! The generation in force: one load of the configuration with everything built from it, replaced as a whole.
//!
//! Every setting is read here at its time of use: by a handshake as it begins, by a request when its head is complete.
//! No setting is kept beyond that use, so that a reload takes effect everywhere and leaves open connections
//! undisturbed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::config::{EdgeLimits, Settings};
use crate::tls::{Certificate, Terminator};
use crate::upstream::AppSet;

/// One load of the configuration and everything built from it.
#[derive(Clone)]
pub struct Generation {
    /// The number of the generation: 1 at the start, incremented by each reload that is applied.
    pub number: u64,
    /// The settings.
    pub settings: Arc<Settings>,
    /// The TLS terminator with this generation's settings; `None` if TLS is not terminated here.
    pub terminator: Option<Arc<Terminator>>,
    /// The apps of the routes.
    pub apps: AppSet,
    /// The longest `close_grace` of any session that may still be open: of this generation or an earlier one.
    pub longest_grace: Duration,
}

impl Generation {
    /// Creates the generation of the start.
    pub fn first(settings: Arc<Settings>, terminator: impl Into<Option<Arc<Terminator>>>, apps: AppSet) -> Self {
        let terminator = terminator.into();
        Self { number: 1, longest_grace: settings.close_grace(), settings, terminator, apps }
    }

    /// Creates the successor of this generation.
    #[must_use]
    pub fn next(&self, settings: Arc<Settings>, terminator: Option<Arc<Terminator>>, apps: AppSet) -> Self {
        let longest_grace = self.longest_grace.max(settings.close_grace());
        Self { number: self.number + 1, settings, terminator, apps, longest_grace }
    }

    /// Returns the certificates presented to clients.
    pub fn certificates(&self) -> &[Certificate] {
        self.terminator.as_ref().map_or(&[], |terminator| terminator.certificates())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The handle to the generation in force.
#[derive(Debug)]
pub struct CurrentGeneration {
    generation: ArcSwap<Generation>,
    number: watch::Sender<u64>,
}

impl CurrentGeneration {
    /// Puts `generation` in force until another one is published.
    pub fn new(generation: Generation) -> Arc<Self> {
        let number = watch::Sender::new(generation.number);
        Arc::new(Self { generation: ArcSwap::from_pointee(generation), number })
    }

    /// Returns a guard for a short access.
    pub fn load(&self) -> Guard<Arc<Generation>> {
        self.generation.load()
    }

    /// Returns a function that reads the limits on client connections in force.
    pub fn limits(self: &Arc<Self>) -> impl Fn() -> EdgeLimits + Send + Sync + use<> {
        let current = Arc::clone(self);
        move || current.load().settings.limits
    }

    /// Returns an owned reference, for use across awaits.
    pub fn load_full(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Puts `generation` in force.
    pub fn publish(&self, generation: Generation) {
        let number = generation.number;
        self.generation.store(Arc::new(generation));
        // Notified after the store, so that every receiver loads this generation or a later one.
        self.number.send_replace(number);
    }

    /// Returns a receiver of the number of each generation put in force; it may skip to the latest.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::config::{self, Environment, Overrides};
    use crate::tls::{Identity, testing::localhost};

    /// Returns the settings of a minimal file with `sections` added.
    pub(crate) fn settings(sections: &str) -> Settings {
        let text = format!(
            "[tls]\ncertificate = \"unused\"\nprivate_key = \"unused\"\n\
             [upstream]\nurl = \"http://127.0.0.1:1\"\n{sections}"
        );
        config::from_str(Path::new("test.toml"), &text, &Environment::default(), &Overrides::default())
            .unwrap_or_else(|report| panic!("{report}"))
    }

    /// Puts `settings` in force, with `identity` for all server names.
    pub(crate) fn current_of(settings: Settings, identity: Identity) -> Arc<CurrentGeneration> {
        let terminator = Arc::new(Terminator::new(identity).expect("a terminator"));
        let apps = AppSet::open(&settings, Instant::now()).expect("there is nothing to read");
        CurrentGeneration::new(Generation::first(Arc::new(settings), terminator, apps))
    }

    /// As [`current_of`], with a generated identity.
    pub(crate) fn current(settings: Settings) -> Arc<CurrentGeneration> {
        current_of(settings, localhost().identity)
    }

    #[test]
    fn sessions_of_an_earlier_generation_keep_their_grace() {
        let of = |grace: &str| Arc::new(settings(&format!("[heartbeat]\nclose_grace = \"{grace}\"\n")));
        let first = current(settings("[heartbeat]\nclose_grace = \"30s\"\n")).load_full();
        let next = |settings| first.next(settings, first.terminator.clone(), first.apps.clone());
        assert_eq!(next(of("2s")).longest_grace, Duration::from_secs(30));
        assert_eq!(next(of("40s")).longest_grace, Duration::from_secs(40));
        assert_eq!(next(of("2s")).number, 2);
    }
}
