//! Keys that nobody has asked for: slips of the pen, and keys in the wrong place.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::document::Part;
use super::layers::Layers;
use super::path::KeyPath;
use super::reader::Kind;
use super::report::Finding;
use super::suggest::nearest;

/// The search for them, in `layers`, by what is `known`.
#[derive(Debug)]
pub(super) struct Strangers<'a> {
    pub(super) layers: &'a Layers,
    pub(super) known: &'a BTreeMap<KeyPath, Kind>,
}

impl Strangers<'_> {
    /// Adds a finding for each key in `values`, the table at `path`, or below it.
    pub(super) fn find(&self, path: &KeyPath, values: &Dict, findings: &mut Vec<Finding>) {
        for (key, value) in values {
            let path = path.key(key);
            match (self.known.get(&path), value) {
                (None, _) => findings.push(self.unknown(&path, key, value)),
                (Some(Kind::Table), Value::Dict(_, values)) => self.find(&path, values, findings),
                (Some(Kind::List), Value::Array(_, elements)) => {
                    for (index, element) in elements.iter().enumerate() {
                        if let Value::Dict(_, values) = element {
                            self.find(&path.index(index), values, findings);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn unknown(&self, path: &KeyPath, key: &str, value: &Value) -> Finding {
        let parent = path.parent().unwrap_or_default();
        let siblings = self.known.keys().filter(|known| known.parent().as_ref() == Some(&parent));
        let siblings: Vec<&str> = siblings.filter_map(KeyPath::name).collect();
        let elsewhere = || self.known.keys().find(|known| known.name() == Some(key))?.parent();
        let help = if let Some(near) = nearest(key, siblings.iter().copied()) {
            format!("did you mean `{near}`?")
        } else if let Some(home) = elsewhere() {
            format!("`{key}` belongs in {}", home.header())
        } else {
            format!("known here: {}", siblings.join(", "))
        };
        let message = match path.parent().filter(|parent| *parent != KeyPath::default()) {
            Some(parent) => format!("unknown key `{key}` in {}", parent.header()),
            None => format!("unknown key `{key}`"),
        };
        Finding::new(self.layers.spot(path, value, Part::Key), message, Some(help)).about(path)
    }
}
