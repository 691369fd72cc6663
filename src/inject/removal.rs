//! The way back: the removal of what an earlier run injected, as its records say.

use std::collections::HashSet;
use std::ops::Range;

use super::edits::{TextEdits, behind, line_start, next_line};
use super::error::InjectError;
use super::objects::{ManifestObject, objects};
use super::record::{ANNOTATION, InjectRecord};
use super::tree::{self, YamlContent, YamlDocument, YamlEntry, YamlNode};

/// A manifest without what was injected.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) text: String,
    /// The objects that were changed, as kind and name.
    pub(super) changed: Vec<String>,
}

/// Returns `text` as it was before the injection, which is `text` itself if there was none.
///
/// # Errors
///
/// The text is no YAML, a record is not as it was written, or what was injected shares a line with something else.
pub(super) fn uninject(text: &str) -> Result<Restored, InjectError> {
    let documents = tree::parse(text)?;
    let mut edits = TextEdits::default();
    let mut changed = Vec::new();
    let mut is_open = false;
    for object in objects(&documents) {
        let Some(record) = InjectRecord::of(object.root)? else { continue };
        changed.push(object.title());
        if record.document {
            let range = document_range(text, &documents, object);
            is_open |= record.newline && range.end == text.len();
            edits.replace(range, String::new());
        } else {
            Removal { text, root: object.root, record: &record, removed: HashSet::new(), edits: &mut edits }.run()?;
        }
    }
    let mut restored = edits.apply(text);
    if is_open && restored.ends_with('\n') {
        restored.pop();
        restored.truncate(restored.strip_suffix('\r').map_or(restored.len(), str::len));
    }
    Ok(Restored { text: restored, changed })
}

/// Returns the range of a document that was appended, from its `---`.
fn document_range(text: &str, documents: &[YamlDocument], object: ManifestObject<'_>) -> Range<usize> {
    let at = documents.iter().position(|document| std::ptr::eq(document, object.document)).unwrap_or_default();
    let start = object.document.marker.unwrap_or_else(|| line_start(text, object.document.root.start));
    let next = documents[at + 1..].iter().find_map(|document| document.marker);
    let own_end = behind(text, object.document.root.end, 0);
    let end = next.map_or(own_end, |next| own_end.min(next));
    start..end
}

/// The removal from one object.
struct Removal<'a> {
    text: &'a str,
    root: &'a YamlNode,
    record: &'a InjectRecord,
    /// The starts of the entries and items that are removed.
    removed: HashSet<usize>,
    edits: &'a mut TextEdits,
}

/// The place that a path leads to.
#[derive(Clone, Copy)]
enum Found<'a> {
    Entry(&'a YamlEntry),
    Item(&'a YamlNode),
}

impl<'a> Found<'a> {
    fn value(self) -> &'a YamlNode {
        match self {
            Self::Entry(entry) => &entry.value,
            Self::Item(item) => item,
        }
    }

    /// Returns the node with which it begins.
    fn first(self) -> &'a YamlNode {
        match self {
            Self::Entry(entry) => &entry.key,
            Self::Item(item) => item,
        }
    }
}

impl<'a> Removal<'a> {
    fn run(mut self) -> Result<(), InjectError> {
        if let Some(annotations) = self.find("metadata/annotations")
            && let Some(record) = annotations.value().entry(ANNOTATION)
        {
            self.remove(Found::Entry(record))?;
        }
        let mut paths: Vec<String> = self.record.added.iter().map(|path| self.record.absolute(path)).collect();
        // What is below comes first, so that it is known which parents are left empty.
        paths.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        for path in &paths {
            let Some(found) = self.find(path) else { continue };
            let below = format!("{path}/");
            let is_parent = paths.iter().any(|other| other.starts_with(&below)) || path == "metadata/annotations";
            if !is_parent || self.is_left_empty(found.value()) {
                self.remove(found)?;
            }
        }
        for (path, former) in &self.record.was {
            if let Some(Found::Entry(entry)) = self.find(&self.record.absolute(path)) {
                self.restore(entry, former);
            }
        }
        Ok(())
    }

    /// Returns the place of a path; `None` if it is gone.
    fn find(&self, path: &str) -> Option<Found<'a>> {
        let mut found = Found::Item(self.root);
        for step in path.split('/') {
            let node = found.value();
            found = match &node.content {
                YamlContent::Mapping { .. } => Found::Entry(node.entry(step)?),
                YamlContent::Sequence { items, .. } => {
                    let named = || items.iter().find(|item| item.text_at(&["name"]) == Some(step));
                    let indexed = || items.get(step.parse::<usize>().ok()?);
                    Found::Item(named().or_else(indexed)?)
                }
                YamlContent::Scalar { .. } | YamlContent::Alias(_) => return None,
            };
        }
        Some(found)
    }

    fn is_left_empty(&self, node: &YamlNode) -> bool {
        let removed = |node: &YamlNode| self.removed.contains(&node.start);
        match &node.content {
            YamlContent::Mapping { entries, .. } => entries.iter().all(|entry| removed(&entry.key)),
            YamlContent::Sequence { items, .. } => items.iter().all(|item| removed(item)),
            YamlContent::Scalar { .. } | YamlContent::Alias(_) => node.is_null(),
        }
    }

    /// Removes the lines of an entry or item.
    fn remove(&mut self, found: Found<'_>) -> Result<(), InjectError> {
        let (first, value) = (found.first(), found.value());
        let start = line_start(self.text, first.start);
        let before = &self.text[start..first.start];
        let is_alone = match found {
            Found::Entry(_) => before.trim_matches(' ').is_empty(),
            Found::Item(_) => before.trim_matches(' ') == "-",
        };
        if !is_alone {
            return Err(InjectError::at(
                first.line,
                "this was injected, and shares its line with something else; write it on a line of its own, or remove it by hand",
            ));
        }
        self.removed.insert(first.start);
        self.edits.replace(start..next_line(self.text, value.end.max(first.end)), String::new());
        Ok(())
    }

    /// Puts the text back that followed the colon of an entry.
    fn restore(&mut self, entry: &YamlEntry, former: &str) {
        let Some(colon) = behind_colon(self.text, entry) else { return };
        let end = match &entry.value.content {
            YamlContent::Scalar { .. } => entry.value.end.max(colon),
            // Of what was put in place of `{}`, only what was injected may go.
            _ if self.is_left_empty(&entry.value) => colon,
            _ => return,
        };
        self.edits.replace(colon..end, former.to_owned());
    }
}

/// Returns the byte behind the colon of an entry; `None` if its key is written with a question mark.
pub(super) fn behind_colon(text: &str, entry: &YamlEntry) -> Option<usize> {
    let rest = &text[entry.key.end..];
    let spaces = rest.len() - rest.trim_start_matches(' ').len();
    rest[spaces..].starts_with(':').then_some(entry.key.end + spaces + 1)
}
