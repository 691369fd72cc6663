//! The text of a configuration file: its values, and where each of them stands.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};
use toml_edit::{ImDocument, Item, TableLike};

use super::path::KeyPath;
use super::report::{Finding, Report, Spot};
use super::syntax;

/// A TOML document, taken apart into plain values and their places.
#[derive(Debug, Default)]
pub(super) struct Document {
    name: String,
    folder: PathBuf,
    text: String,
    values: Dict,
    spans: BTreeMap<KeyPath, Spans>,
}

/// The positions of a key and its value, in bytes.
#[derive(Clone, Debug)]
struct Spans {
    key: Range<usize>,
    value: Range<usize>,
}

/// The part of an entry that a finding points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryPart {
    /// The key, or the header of a table.
    Key,
    /// The value.
    Value,
}

impl Document {
    /// Reads the file at exactly `path`; no other folder is searched.
    pub(super) fn read(path: &Path) -> Result<Self, Report> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            let help = match error.kind() {
                io::ErrorKind::PermissionDenied => "let the user that pulsegate runs as read it".to_owned(),
                io::ErrorKind::IsADirectory => format!("name the file, such as -c {file}/proxy.toml"),
                _ => "name the file with -c (- is standard input), or do without one: --listen, --upstream, \
                      --certificate and --private-key, or PULSEGATE__ variables"
                    .to_owned(),
            };
            Report::of(Finding::new(Spot::file(&file), format!("cannot read {file}: {error}"), Some(help)))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let help = Some("save the file as UTF-8".to_owned());
            Report::of(Finding::new(Spot::span(&file, &text, at..at + 1), format!("{file} is not UTF-8 text"), help))
        })?;
        Self::parse(path, text)
    }

    /// Takes `text` apart; errors are said to stand in `path`, and relative paths start from its folder.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Report> {
        Self::parse_as(path.display().to_string(), path.parent().unwrap_or(Path::new("")), text)
    }

    /// A document that says nothing, under a `name` for errors.
    pub(super) fn empty(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Takes `text` apart; errors are said to stand in `name`, and relative paths start from `folder`.
    pub(super) fn parse_as(name: String, folder: &Path, text: String) -> Result<Self, Report> {
        let toml = match ImDocument::parse(text.as_str()) {
            Ok(toml) => toml,
            Err(error) => {
                let find_line =
                    |text: &str, keys: &[&str]| Self::parse(Path::new(""), text.to_owned()).ok()?.line_of(keys);
                return Err(syntax::report(&name, &text, &error, find_line));
            }
        };
        let mut spans = BTreeMap::new();
        let values = table(&mut spans, &KeyPath::default(), toml.as_table());
        Ok(Self { name, folder: folder.to_owned(), text, values, spans })
    }

    /// The folder that relative paths in the document start from.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The document's path, as it was given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The values without their places.
    pub(super) fn values(&self) -> &Dict {
        &self.values
    }

    /// Returns whether `path` is written in the document.
    pub(super) fn writes(&self, path: &KeyPath) -> bool {
        self.spans.contains_key(path)
    }

    /// The line, counted from 1, of the last key with these names, whatever lists it stands in.
    pub(super) fn line_of(&self, keys: &[&str]) -> Option<usize> {
        let found = self.spans.iter().filter(|(path, _)| path.keys().eq(keys.iter().copied()));
        let last = found.map(|(_, spans)| spans.key.start).max()?;
        Some(self.text.get(..last)?.matches('\n').count() + 1)
    }

    /// The place of `path`, or of the table nearest above it that is written out, or the file as a whole.
    pub(super) fn spot(&self, path: &KeyPath, part: EntryPart) -> Spot {
        if let Some(spans) = self.spans.get(path) {
            let span = if part == EntryPart::Key { &spans.key } else { &spans.value };
            return Spot::span(&self.name, &self.text, span.clone());
        }
        match path.parent() {
            Some(parent) => self.spot(&parent, EntryPart::Key),
            None => Spot::file(&self.name),
        }
    }
}

/// Reads `text` as a TOML value; text that is none stands for itself, so that `25s` needs no quotes in a variable.
pub(super) fn loose(text: &str) -> Value {
    match text.parse::<toml_edit::Value>() {
        Ok(parsed) => value(&mut BTreeMap::new(), &KeyPath::default(), &parsed),
        Err(_) => Value::from(text),
    }
}

fn table(spans: &mut BTreeMap<KeyPath, Spans>, path: &KeyPath, from: &dyn TableLike) -> Dict {
    let mut into = Dict::new();
    for (name, _) in from.iter() {
        let Some((key, entry)) = from.get_key_value(name) else { continue };
        let path = path.key(name);
        if let Some(key) = key.span() {
            let value = entry.span().unwrap_or_else(|| key.clone());
            spans.insert(path.clone(), Spans { key, value });
        }
        if let Some(read) = item(spans, &path, entry) {
            into.insert(name.to_owned(), read);
        }
    }
    into
}

fn item(spans: &mut BTreeMap<KeyPath, Spans>, path: &KeyPath, from: &Item) -> Option<Value> {
    match from {
        Item::None => None,
        Item::Value(from) => Some(value(spans, path, from)),
        Item::Table(from) => Some(Value::from(table(spans, path, from))),
        Item::ArrayOfTables(from) => {
            let tables = from.iter().enumerate().map(|(index, from)| {
                let path = path.index(index);
                if let Some(span) = from.span() {
                    spans.insert(path.clone(), Spans { key: span.clone(), value: span });
                }
                table(spans, &path, from)
            });
            Some(Value::from(tables.collect::<Vec<_>>()))
        }
    }
}

fn value(spans: &mut BTreeMap<KeyPath, Spans>, path: &KeyPath, from: &toml_edit::Value) -> Value {
    match from {
        toml_edit::Value::String(from) => Value::from(from.value().as_str()),
        toml_edit::Value::Integer(from) => Value::from(*from.value()),
        toml_edit::Value::Float(from) => Value::from(*from.value()),
        toml_edit::Value::Boolean(from) => Value::from(*from.value()),
        // No key takes a date; as text it is refused like any other text that does not fit.
        toml_edit::Value::Datetime(from) => Value::from(from.value().to_string()),
        toml_edit::Value::InlineTable(from) => Value::from(table(spans, path, from)),
        toml_edit::Value::Array(from) => {
            let values = from.iter().enumerate().map(|(index, from)| {
                let path = path.index(index);
                if let Some(span) = from.span() {
                    spans.insert(path.clone(), Spans { key: span.clone(), value: span });
                }
                value(spans, &path, from)
            });
            Value::from(values.collect::<Vec<_>>())
        }
    }
}
