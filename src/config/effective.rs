//! The configuration in force: every key with its value and its origin.

mod keys;

use std::fmt;

use serde_json::{Map, json};

use super::codec::to_json;
use super::layers::Layers;
use super::listing::{BlockKind, ListedBlock, ListedKey};
use super::sections::Sections;

/// Every key of the configuration with the value that is in force, be it set or a default, and its origin.
///
/// It is a configuration itself: read again it yields the same settings. Paths are absolute in it, so that it may be
/// read from any folder. The content of a token file is left out.
#[derive(Clone, Debug)]
pub struct EffectiveConfig {
    blocks: Vec<ListedBlock>,
}

impl EffectiveConfig {
    /// Lists the values of `sections` with their origins in `layers`.
    pub(super) fn new(layers: &Layers, sections: &Sections) -> Self {
        Self { blocks: keys::blocks(layers, sections) }
    }

    /// Writes it as TOML, with each key's origin in a comment if `origin`.
    pub fn toml(&self, origin: bool) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            if !text.is_empty() {
                text.push('\n');
            }
            block.write(origin, &mut text);
        }
        text
    }

    /// As an object: under the dotted path of each key its `value`, null where there is none, and its `origin`. Lists of
    /// tables are arrays of such objects, with the paths below the table.
    pub fn json(&self) -> serde_json::Value {
        let mut all = Map::new();
        for list in keys::LISTS {
            all.insert(list.to_owned(), json!([]));
        }
        for ListedBlock { header, kind, lines } in &self.blocks {
            let values = lines.iter().map(|ListedKey { key, value, origin }| {
                let value = value.as_ref().map_or(serde_json::Value::Null, to_json);
                (key.clone(), json!({ "value": value, "origin": origin.to_string() }))
            });
            match (kind, all.get_mut(*header)) {
                (BlockKind::Element, Some(serde_json::Value::Array(elements))) => {
                    elements.push(serde_json::Value::Object(values.collect()));
                }
                _ => all.extend(values.map(|(key, values)| (format!("{header}.{key}"), values))),
            }
        }
        serde_json::Value::Object(all)
    }
}

impl fmt::Display for EffectiveConfig {
    /// As TOML, without origins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml(false))
    }
}
