//! The lines of `pulsegate config show`: each key with its value and its origin, below the header of its table.

use std::fmt::{self, Write as _};

use toml_edit::Value;

use super::layers::Layers;
use super::path::KeyPath;
use super::report::{Location, printable};

/// The keys below one header.
#[derive(Clone, Debug)]
pub(super) struct ListedBlock {
    /// The path of the table.
    pub(super) header: &'static str,
    pub(super) kind: BlockKind,
    pub(super) lines: Vec<ListedKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// The only table of this name.
    Section,
    /// One table of a list.
    Element,
}

/// One key.
#[derive(Clone, Debug)]
pub(super) struct ListedKey {
    /// Its path below the header.
    pub(super) key: String,
    /// `None` where it is not set, and has no default.
    pub(super) value: Option<Value>,
    pub(super) origin: ValueOrigin,
}

/// The source of a value in force.
///
/// `Display` writes it in short: `config/proxy.toml:12`, `environment PULSEGATE__LOG__LEVEL`, `--listen` or `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueOrigin {
    Default,
    Set(Location),
}

/// A table, or a part of one, while its lines are written.
pub(super) struct ListedTable<'a> {
    pub(super) layers: &'a Layers,
    pub(super) lines: &'a mut Vec<ListedKey>,
    /// The path of the table below the header, with a dot at its end.
    pub(super) prefix: String,
    /// The tables in which a key may have been set; the first in which it is counts.
    pub(super) homes: Vec<KeyPath>,
}

impl ListedBlock {
    /// Longer keys do not move the origins of all others.
    const WIDEST: usize = 48;

    /// Appends the block to `text` as TOML, with each key's origin in a comment if `origins`.
    pub(super) fn write(&self, origins: bool, text: &mut String) {
        let header = self.header;
        // Writing to a string cannot fail.
        let _ = match self.kind {
            BlockKind::Section => writeln!(text, "[{header}]"),
            BlockKind::Element => writeln!(text, "[[{header}]]"),
        };
        let texts: Vec<String> = self.lines.iter().map(ListedKey::text).collect();
        let widths = texts.iter().map(|text| text.chars().count());
        let width = widths.filter(|width| *width <= Self::WIDEST).max().unwrap_or(0);
        for (line, rendered) in self.lines.iter().zip(texts) {
            let _ = match (&line.value, origins) {
                (Some(_), true) => writeln!(text, "{rendered:width$}  # {}", line.origin),
                _ => writeln!(text, "{rendered}"),
            };
        }
    }
}

impl ListedKey {
    fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {value}", self.key),
            None => format!("# {} is not set", self.key),
        }
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Set(Location::File { file }) => f.write_str(&printable(file)),
            Self::Set(Location::Line { file, line, .. }) => write!(f, "{}:{line}", printable(file)),
            Self::Set(Location::Variable { variable }) => write!(f, "environment {}", printable(variable)),
            Self::Set(Location::Flag { flag }) => f.write_str(flag),
        }
    }
}

impl ListedTable<'_> {
    /// Writes `key` with `value`.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.set_by(key, value, &[key]);
    }

    /// Writes `key` with `value`, whose origin is the first of the keys `causes` that is set.
    pub(super) fn set_by(&mut self, key: &str, value: impl Into<Value>, causes: &[&str]) {
        let mut paths = self.homes.iter().flat_map(|home| causes.iter().map(|cause| home.key(cause)));
        let place = paths.find_map(|path| self.layers.origin(&path));
        self.set_at(key, value, place);
    }

    /// Writes `key` with `value`, which was set at `place`.
    pub(super) fn set_at(&mut self, key: &str, value: impl Into<Value>, place: Option<Location>) {
        let origin = place.map_or(ValueOrigin::Default, ValueOrigin::Set);
        self.lines.push(ListedKey { key: format!("{}{key}", self.prefix), value: Some(value.into()), origin });
    }

    /// Writes `key` with `value`, or that it is not set.
    pub(super) fn maybe(&mut self, key: &str, value: Option<impl Into<Value>>) {
        match value {
            Some(value) => self.set(key, value),
            None => self.unset(key),
        }
    }

    /// Writes that `key` is not set; nothing where it could be inherited, for a route may leave out any key.
    pub(super) fn unset(&mut self, key: &str) {
        if self.homes.len() == 1 {
            self.lines.push(ListedKey {
                key: format!("{}{key}", self.prefix),
                value: None,
                origin: ValueOrigin::Default,
            });
        }
    }

    /// Returns the table at `key`.
    pub(super) fn under(&mut self, key: &str) -> ListedTable<'_> {
        let homes = self.homes.iter().map(|home| home.key(key)).collect();
        ListedTable { layers: self.layers, prefix: format!("{}{key}.", self.prefix), homes, lines: self.lines }
    }

    /// Returns the same table without those it inherits from.
    pub(super) fn alone(&mut self) -> ListedTable<'_> {
        let homes = self.homes[..1].to_vec();
        ListedTable { layers: self.layers, prefix: self.prefix.clone(), homes, lines: self.lines }
    }

    /// Returns the same table unchanged.
    pub(super) fn reborrow(&mut self) -> ListedTable<'_> {
        ListedTable { layers: self.layers, prefix: self.prefix.clone(), homes: self.homes.clone(), lines: self.lines }
    }
}
