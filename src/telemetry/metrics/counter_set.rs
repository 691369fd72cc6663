//! Counters for the values of a closed label.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::catalogue::{Metric, Values, register};

/// A counter metric with one label. All series exist from the start, so that rates include the first event, and
/// counting takes no lock.
#[derive(Debug)]
pub(super) struct CounterSet {
    metric: &'static Metric,
    family: Family<[(&'static str, &'static str); 1], Counter>,
    counters: Box<[(&'static str, Counter)]>,
}

impl CounterSet {
    /// Returns the counters of `metric`, which has one label with a closed set of values.
    pub(super) fn of(metric: &'static Metric) -> Self {
        let family = Family::<_, Counter>::default();
        let words = metric.labels.iter().flat_map(|label| match label.values {
            Values::Closed(words) => words.iter().map(|word| (label.name, *word)).collect(),
            Values::Configured(_) => Vec::new(),
        });
        let counters = words.map(|(label, word)| (word, family.get_or_create_owned(&[(label, word)]))).collect();
        Self { metric, family, counters }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        register(registry, self.metric, &self.family);
    }

    /// Increments the counter of `word`, which must belong to the set.
    pub(super) fn inc(&self, word: &str) {
        let counter = self.counters.iter().find(|(known, _)| *known == word);
        match counter {
            Some((_, counter)) => drop(counter.inc()),
            None => debug_assert!(false, "{} does not know {word:?}", self.metric.name),
        }
    }
}
