//! The configuration as it is in force: every key with its value, and who has said so.

mod keys;

use std::fmt::{self, Write as _};

use serde_json::{Map, json};
use toml_edit::Value;

use super::layers::Layers;
use super::report::{Place, printable};
use super::sections::Sections;

/// Every key of the configuration with the value that is in force, be it set or a default, and its origin.
///
/// It is a configuration itself: read again it yields the same settings. Paths are absolute in it, so that it may be
/// read from any folder. What a token file holds is no part of it.
#[derive(Clone, Debug)]
pub struct Shown {
    blocks: Vec<Block>,
}

/// What stands below one header.
#[derive(Clone, Debug)]
struct Block {
    /// The path of the table.
    header: &'static str,
    kind: Kind,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The only table of this name.
    Section,
    /// One table of a list.
    Element,
}

/// One key.
#[derive(Clone, Debug)]
struct Line {
    /// Its path below the header.
    key: String,
    /// `None` where it is not set, and has no default.
    value: Option<Value>,
    origin: Origin,
}

/// Who has said what is in force.
///
/// `Display` says it in short: `config/proxy.toml:12`, `environment PULSEGATE__LOG__LEVEL`, `--listen` or `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Default,
    Set(Place),
}

impl Shown {
    /// What `sections` came to, and where in `layers` it was set.
    pub(super) fn new(layers: &Layers, sections: &Sections) -> Self {
        Self { blocks: keys::blocks(layers, sections) }
    }

    /// As TOML; with the `origin` of each key in a comment behind it, if it is asked for.
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
        for Block { header, kind, lines } in &self.blocks {
            let said = lines.iter().map(|Line { key, value, origin }| {
                let value = value.as_ref().map_or(serde_json::Value::Null, plain);
                (key.clone(), json!({ "value": value, "origin": origin.to_string() }))
            });
            match (kind, all.get_mut(*header)) {
                (Kind::Element, Some(serde_json::Value::Array(elements))) => {
                    elements.push(serde_json::Value::Object(said.collect()));
                }
                _ => all.extend(said.map(|(key, said)| (format!("{header}.{key}"), said))),
            }
        }
        serde_json::Value::Object(all)
    }
}

impl fmt::Display for Shown {
    /// As TOML, without origins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml(false))
    }
}

impl Block {
    /// Keys that are longer do not move the origins of all others.
    const WIDEST: usize = 48;

    fn write(&self, origins: bool, text: &mut String) {
        let header = self.header;
        // Writing to a string cannot fail.
        let _ = match self.kind {
            Kind::Section => writeln!(text, "[{header}]"),
            Kind::Element => writeln!(text, "[[{header}]]"),
        };
        let texts: Vec<String> = self.lines.iter().map(Line::text).collect();
        let widths = texts.iter().map(|text| text.chars().count());
        let width = widths.filter(|width| *width <= Self::WIDEST).max().unwrap_or(0);
        for (line, said) in self.lines.iter().zip(texts) {
            let _ = match (&line.value, origins) {
                (Some(_), true) => writeln!(text, "{said:width$}  # {}", line.origin),
                _ => writeln!(text, "{said}"),
            };
        }
    }
}

impl Line {
    fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {value}", self.key),
            None => format!("# {} is not set", self.key),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set(Place::File { file }) => f.write_str(&printable(file)),
            Self::Set(Place::Line { file, line, .. }) => write!(f, "{}:{line}", printable(file)),
            Self::Set(Place::Variable { variable }) => write!(f, "environment {}", printable(variable)),
            Self::Set(Place::Flag { flag }) => f.write_str(flag),
        }
    }
}

fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => json!(text.value()),
        Value::Integer(number) => json!(number.value()),
        Value::Float(number) => json!(number.value()),
        Value::Boolean(flag) => json!(flag.value()),
        Value::Array(values) => values.iter().map(plain).collect(),
        // Neither is ever shown.
        Value::Datetime(_) | Value::InlineTable(_) => json!(value.to_string()),
    }
}
