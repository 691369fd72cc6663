//! The layers laid over each other: file < environment < flags. The defaults lie beneath them, in the code that reads.

use std::path::Path;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::document::{Document, EntryPart, loose};
use super::overrides::{Assignment, Environment, Overrides};
use super::path::{KeyPath, PathStep};
use super::report::{Finding, Location, Spot};

/// The merged tree of values, each with its source.
#[derive(Debug)]
pub(super) struct Layers {
    document: Document,
    assignments: Vec<Assignment>,
    merged: Figment,
    values: Dict,
}

/// One layer as figment takes it. Every value has a tag that leads to the metadata of its layer.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

/// The name of the layer of the file; any other layer has the name of its variable or flag.
const FILE: &str = "configuration file";

impl Layers {
    /// Lays the environment over the document, and the flags over both.
    pub(super) fn new(document: Document, environment: &Environment, overrides: &Overrides) -> (Self, Vec<Finding>) {
        let (mut assignments, mut findings) = environment.assignments();
        assignments.extend(overrides.assignments());
        let file =
            Layer { metadata: Metadata::from(FILE, Path::new(document.name())), values: document.values().clone() };
        let beside = assignments.iter().map(|assignment| Layer {
            metadata: Metadata::named(assignment.name().to_owned()),
            values: nest(assignment.path.keys(), loose(&assignment.text)),
        });
        let merged = beside.fold(Figment::from(file), Figment::merge);
        let values = match merged.data() {
            Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
            Err(error) => {
                findings.push(Finding::new(Spot::file(document.name()), error.to_string(), None));
                Dict::new()
            }
        };
        (Self { document, assignments, merged, values }, findings)
    }

    /// Returns the merged tree.
    pub(super) fn values(&self) -> &Dict {
        &self.values
    }

    /// Returns the value at `path`, if there is one.
    pub(super) fn value(&self, path: &KeyPath) -> Option<&Value> {
        let (first, rest) = path.steps().split_first()?;
        let first = match first {
            PathStep::Key(key) => self.values.get(key)?,
            PathStep::Index(_) => return None,
        };
        rest.iter().try_fold(first, |value, step| match (value, step) {
            (Value::Dict(_, values), PathStep::Key(key)) => values.get(key),
            (Value::Array(_, elements), PathStep::Index(index)) => elements.get(*index),
            _ => None,
        })
    }

    /// Returns the value at `path` as text, as a decoder would read it.
    pub(super) fn text(&self, path: &KeyPath) -> Option<&str> {
        let value = self.value(path)?;
        value.as_str().or_else(|| self.literal(path, value))
    }

    /// Returns the place that sets the value at `path`, if there is one.
    pub(super) fn origin(&self, path: &KeyPath) -> Option<Location> {
        Some(self.spot(path, self.value(path)?, EntryPart::Key).into_place())
    }

    /// Returns the text of a value that a variable or flag sets as a whole.
    pub(super) fn literal(&self, path: &KeyPath, value: &Value) -> Option<&str> {
        let assignment = self.assignment(value.tag())?;
        (assignment.path == *path).then_some(assignment.text.as_str())
    }

    /// Returns the folder that a relative path starts from: the file's own in the file, else the working directory.
    pub(super) fn folder(&self, value: &Value) -> &Path {
        if self.assignment(value.tag()).is_some() { Path::new("") } else { self.document.folder() }
    }

    /// Returns the place of `value`, which the merged tree has at `path`.
    pub(super) fn spot(&self, path: &KeyPath, value: &Value, part: EntryPart) -> Spot {
        match self.assignment(value.tag()) {
            // The key is in the name of the variable: its value is not at fault.
            Some(Assignment { place, path: set, .. }) if part == EntryPart::Key && set.is_within(path) => {
                Spot::nowhere(place.clone())
            }
            Some(assignment) => Spot::whole(assignment.place.clone(), &assignment.text),
            None => self.document.spot(path, part),
        }
    }

    /// Returns the place where a missing value of the table at `path` would be written.
    pub(super) fn gap(&self, path: &KeyPath) -> Spot {
        let mut beside = self.assignments.iter().rev();
        match beside.find(|assignment| !self.document.writes(path) && path.is_within(&assignment.path)) {
            Some(assignment) => Spot::whole(assignment.place.clone(), &assignment.text),
            None => self.document.spot(path, EntryPart::Key),
        }
    }

    fn assignment(&self, tag: Tag) -> Option<&Assignment> {
        let metadata = self.merged.get_metadata(tag)?;
        // Of two with one name the later one counts, as it does in the merged tree.
        self.assignments.iter().rfind(|assignment| assignment.name() == metadata.name)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Returns a tree in which `keys` lead to `value`.
fn nest<'a>(keys: impl DoubleEndedIterator<Item = &'a str>, value: Value) -> Dict {
    let tree = keys.rev().fold(value, |value, key| Value::from(Dict::from([(key.to_owned(), value)])));
    // The prefix is always followed by at least one key, even if by an empty one.
    tree.into_dict().unwrap_or_default()
}
