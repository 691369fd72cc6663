//! A parser of the `OpenMetrics` text format that rejects everything a strict reader would: a sample outside of its
//! family, a series twice, a histogram whose buckets do not add up.

use std::collections::{BTreeMap, BTreeSet};

/// The result of one scrape.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
    text: String,
}

/// One metric, by its name without the suffix of counters.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// As it is written.
    pub(crate) value: String,
}

impl Exposition {
    /// Reads `text`; fails with the line of the first error.
    pub(crate) fn read(text: &str) -> Self {
        let mut families = BTreeMap::new();
        let mut current: Option<(String, Family)> = None;
        let mut seen = BTreeSet::new();
        let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end in {text}"));
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no words in {line:?}"));
                keep(&mut families, current.take());
                current = Some((name.into(), Family { help: help.into(), ..Family::default() }));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, family) = current.as_mut().unwrap_or_else(|| panic!("nothing is described: {line:?}"));
                family.kind = rest.strip_prefix(&format!("{name} ")).unwrap_or_else(|| panic!("{line:?}")).into();
            } else {
                let sample = Sample::read(line);
                let (name, family) = current.as_mut().unwrap_or_else(|| panic!("of no family: {line:?}"));
                assert!(belongs(&sample.name, name, &family.kind), "{line:?} is no {} called {name}", family.kind);
                assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line:?}");
                family.samples.push(sample);
            }
        }
        keep(&mut families, current);
        let exposition = Self { families, text: text.into() };
        exposition.assert_buckets_add_up();
        exposition
    }

    /// Returns the count of the one series of this name with these labels.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let found = self.matching(name, labels);
        assert_eq!(found.len(), 1, "{name} with {labels:?} in\n{}", self.text);
        found[0].count()
    }

    /// Returns the sum of all series of this name with these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.matching(name, labels).iter().map(|sample| sample.count()).sum()
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.samples().count()
    }

    /// Returns every series without its value.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        self.samples().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    /// Returns every value.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.values().flat_map(|family| &family.samples)
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has =
            |sample: &Sample, (label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|v| v == value);
        self.samples().filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label))).collect()
    }

    fn assert_buckets_add_up(&self) {
        for (name, family) in self.families.iter().filter(|(_, family)| family.kind == "histogram") {
            let mut last: Option<(BTreeMap<String, String>, f64, u64)> = None;
            for bucket in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
                let mut labels = bucket.labels.clone();
                let bound = number(&labels.remove("le").unwrap_or_else(|| panic!("{name}: no bound in {bucket:?}")));
                if let Some((_, below, count)) = last.as_ref().filter(|(others, ..)| *others == labels) {
                    assert!(bound > *below && bucket.count() >= *count, "{name}: {bucket:?} behind {below}");
                }
                if bound.is_infinite() {
                    let pairs: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                    assert_eq!(self.count(&format!("{name}_count"), &pairs), bucket.count(), "{name}");
                }
                last = Some((labels, bound, bucket.count()));
            }
        }
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end in {line:?}")))
            }
            None => (series, ""),
        };
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line:?}");
        number(value);
        Self { name: name.into(), labels: labels_of(labels), value: value.into() }
    }

    fn count(&self) -> u64 {
        self.value.parse().unwrap_or_else(|error| panic!("{self:?} is no count: {error}"))
    }
}

/// Parses `a="b",c="d"`; a backslash escapes a character that would end a value.
fn labels_of(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("no value in {text:?}"));
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => panic!("{text:?} ends within a value"),
                },
                Some((_, other)) => value.push(other),
                None => panic!("{text:?} ends within a value"),
            }
        };
        assert!(labels.insert(name.into(), value).is_none(), "{name} twice");
        let rest = &rest[end + 1..];
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}")),
    }
}

fn keep(families: &mut BTreeMap<String, Family>, family: Option<(String, Family)>) {
    if let Some((name, family)) = family {
        assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name} is not described");
        assert!(families.insert(name.clone(), family).is_none(), "{name} twice");
    }
}

/// Returns whether a sample called `sample` may belong to the family.
fn belongs(sample: &str, family: &str, kind: &str) -> bool {
    let suffixes: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "gauge" => &[""],
        _ => &[],
    };
    sample.strip_prefix(family).is_some_and(|suffix| suffixes.contains(&suffix))
}
