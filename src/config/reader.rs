//! Reading of the merged tree. Every key that is read is known from then on; any other key is an unknown one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::document::EntryPart;
use super::layers::Layers;
use super::overrides;
use super::parse::{Given, Problem};
use super::path::{KeyPath, NodeKind};
use super::report::{Finding, Report, Spot};
use super::unknown_keys::UnknownKeys;

/// The reading of one tree, and the findings it has made.
#[derive(Debug)]
pub(super) struct TreeReader<'a> {
    layers: &'a Layers,
    known: RefCell<BTreeMap<KeyPath, NodeKind>>,
    findings: RefCell<Vec<Finding>>,
}

/// A table of the tree, or the place where it would be.
#[derive(Clone, Debug)]
pub(super) struct Table<'a> {
    reader: &'a TreeReader<'a>,
    path: KeyPath,
    values: Option<&'a Dict>,
}

/// The entry at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyValue<T> {
    /// It is not set.
    Unset,
    /// Its value has been refused.
    Refused,
    /// It has this value.
    Is(T),
}

/// A value that has been refused, and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl<T> KeyValue<T> {
    /// Returns the value, if one is set.
    pub(super) fn optional(self) -> Result<Option<T>, Refused> {
        match self {
            Self::Unset => Ok(None),
            Self::Refused => Err(Refused),
            Self::Is(value) => Ok(Some(value)),
        }
    }
}

impl<'a> TreeReader<'a> {
    /// A reader of `layers` that has `findings` to begin with.
    pub(super) fn new(layers: &'a Layers, findings: Vec<Finding>) -> Self {
        Self { layers, known: RefCell::default(), findings: RefCell::new(findings) }
    }

    /// Returns the table that all others stand in.
    pub(super) fn root(&'a self) -> Table<'a> {
        Table { reader: self, path: KeyPath::default(), values: Some(self.layers.values()) }
    }

    /// Ends the reading. Returns what was `read`, or every finding, unknown keys included.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Report> {
        let mut findings = self.findings.into_inner();
        let known = self.known.into_inner();
        let strangers = UnknownKeys { layers: self.layers, known: &known };
        strangers.find(&KeyPath::default(), self.layers.values(), &mut findings);
        // A reading that did not come to its end has reported why.
        read.filter(|_| findings.is_empty()).ok_or_else(|| Report::new(findings))
    }

    /// Returns every key that was read, set or not.
    pub(super) fn keys(&self) -> Vec<KeyPath> {
        let known = self.known.borrow();
        known.iter().filter(|(_, kind)| **kind == NodeKind::Key).map(|(path, _)| path.clone()).collect()
    }

    fn report(&self, path: &KeyPath, spot: Spot, problem: Problem) {
        let message = format!("`{path}` {}", problem.what);
        let finding = Finding::new(spot, message, problem.help).about(path);
        let mut findings = self.findings.borrow_mut();
        // A table that is read twice is refused once.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}

impl<'a> Table<'a> {
    /// Returns the entry at `key`.
    pub(super) fn entry<T>(&self, key: &str, form: impl Fn(&Given<'_>) -> Result<T, Problem>) -> KeyValue<T> {
        self.asked(key, NodeKind::Key);
        match self.value(key) {
            Some(value) => self.read(key, value, form).map_or(KeyValue::Refused, KeyValue::Is),
            None => KeyValue::Unset,
        }
    }

    /// Returns the table at `key`, or the entry there where that is no table.
    pub(super) fn table_or<T>(
        &self,
        key: &str,
        form: impl Fn(&Given<'_>) -> Result<T, Problem>,
    ) -> Result<Table<'a>, KeyValue<T>> {
        match self.value(key) {
            Some(Value::Dict(..)) => Ok(self.table(key)),
            _ => Err(self.entry(key, form)),
        }
    }

    /// Returns the value of `key`, which has no default; `what` says what is missing without it.
    pub(super) fn required<T>(
        &self,
        key: &str,
        form: impl Fn(&Given<'_>) -> Result<T, Problem>,
        what: &str,
    ) -> Option<T> {
        self.asked(key, NodeKind::Key);
        if let Some(value) = self.value(key) {
            return self.read(key, value, form);
        }
        self.missing(key, what);
        None
    }

    /// Returns the values of the list at `key`, each of which `form` reads.
    pub(super) fn list<T>(&self, key: &str, form: impl Fn(&Given<'_>) -> Result<T, Problem>) -> KeyValue<Vec<T>> {
        self.asked(key, NodeKind::Key);
        let path = self.path.key(key);
        let elements = match self.value(key) {
            None => return KeyValue::Unset,
            Some(Value::Array(_, elements)) => elements,
            Some(other) => {
                let problem = Problem::new("must be a list");
                let problem = match other.as_str() {
                    Some(text) => problem.with_help(format!("write [\"{text}\"]")),
                    None => problem,
                };
                self.misfit(&path, other, problem);
                return KeyValue::Refused;
            }
        };
        let read = elements.iter().enumerate().map(|(index, element)| self.read_at(&path.index(index), element, &form));
        // Every element is read, so that every error is reported.
        let read: Vec<Option<T>> = read.collect();
        read.into_iter().collect::<Option<_>>().map_or(KeyValue::Refused, KeyValue::Is)
    }

    /// Returns the values of the list at `key`, which has no default and may not be empty; `what` says what is missing
    /// then.
    pub(super) fn required_list<T>(
        &self,
        key: &str,
        form: impl Fn(&Given<'_>) -> Result<T, Problem>,
        what: &str,
    ) -> Option<Vec<T>> {
        match self.list(key, form) {
            KeyValue::Is(values) if values.is_empty() => {
                self.refuse(&[key], Problem::new(format!("must not be empty: {what}")));
                None
            }
            KeyValue::Is(values) => Some(values),
            KeyValue::Refused => None,
            KeyValue::Unset => {
                self.missing(key, what);
                None
            }
        }
    }

    /// Returns the table at `key`; it is empty where it is not set.
    pub(super) fn table(&self, key: &str) -> Table<'a> {
        self.asked(key, NodeKind::Table);
        let path = self.path.key(key);
        let values = match self.value(key) {
            Some(Value::Dict(_, values)) => Some(values),
            None => None,
            Some(other) => {
                let help = match other {
                    Value::Array(..) => format!("write [{path}]"),
                    _ => format!("write [{path}] and its keys below it, or {key} = {{ … }}"),
                };
                self.misfit(&path, other, Problem::new("must be a table").with_help(help));
                None
            }
        };
        Table { reader: self.reader, path, values }
    }

    /// Returns the tables of the list at `key`.
    pub(super) fn tables(&self, key: &str) -> Vec<Table<'a>> {
        self.asked(key, NodeKind::List);
        let path = self.path.key(key);
        let elements = match self.value(key) {
            Some(Value::Array(_, elements)) => elements.as_slice(),
            None => &[],
            Some(other) => {
                let help = format!("write [[{path}]] in the file");
                self.misfit(&path, other, Problem::new("must be a list of tables").with_help(help));
                &[]
            }
        };
        let tables = elements.iter().enumerate().filter_map(|(index, element)| {
            let path = path.index(index);
            self.reader.known.borrow_mut().insert(path.clone(), NodeKind::Table);
            let Value::Dict(_, values) = element else {
                self.misfit(&path, element, Problem::new("must be a table"));
                return None;
            };
            Some(Table { reader: self.reader, path, values: Some(values) })
        });
        tables.collect()
    }

    /// Refuses values of `keys` that do not go together; points at the first of them that is set here.
    ///
    /// Reports nothing where none is (an inherited value is refused where it is set), and nothing about a value that
    /// has been refused by itself, because a default stands in for it.
    pub(super) fn refuse(&self, keys: &[&str], problem: Problem) {
        let refused = |key: &&str| {
            let path = self.path.key(key).to_string();
            self.reader.findings.borrow().iter().any(|finding| finding.key.as_ref() == Some(&path))
        };
        let set = keys.iter().find_map(|key| Some((*key, self.value(key)?)));
        if let Some((key, value)) = set
            && !keys.iter().any(refused)
        {
            self.misfit(&self.path.key(key), value, problem);
        }
    }

    /// Returns whether `key` is set.
    pub(super) fn sets(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Returns whether any key of the table is set.
    pub(super) fn is_set(&self) -> bool {
        self.values.is_some()
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.values?.get(key)
    }

    fn missing(&self, key: &str, what: &str) {
        let path = self.path.key(key);
        let mut ways = vec![format!("`{key}` in {}", self.path.header())];
        if !path.in_list() {
            ways.push(overrides::variable(&path));
        }
        ways.extend(overrides::flag(&path).map(str::to_owned));
        let last = ways.pop().unwrap_or_default();
        let help = if ways.is_empty() { format!("set {last}") } else { format!("set {}, or {last}", ways.join(", ")) };
        let problem = Problem::new(format!("is missing: {what}")).with_help(help);
        self.reader.report(&path, self.reader.layers.gap(&self.path), problem);
    }

    fn read<T>(&self, key: &str, value: &Value, form: impl Fn(&Given<'_>) -> Result<T, Problem>) -> Option<T> {
        self.read_at(&self.path.key(key), value, form)
    }

    fn read_at<T>(&self, path: &KeyPath, value: &Value, form: impl Fn(&Given<'_>) -> Result<T, Problem>) -> Option<T> {
        let layers = self.reader.layers;
        let given = Given { value, literal: layers.literal(path, value), folder: layers.folder(value) };
        form(&given).map_err(|problem| self.misfit(path, value, problem)).ok()
    }

    fn misfit(&self, path: &KeyPath, value: &Value, problem: Problem) {
        self.reader.report(path, self.reader.layers.spot(path, value, EntryPart::Value), problem);
    }

    fn asked(&self, key: &str, kind: NodeKind) {
        self.reader.known.borrow_mut().insert(self.path.key(key), kind);
    }
}
