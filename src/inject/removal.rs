//! The way back: the removal of what an earlier run injected, as its records say.

use std::collections::HashSet;
use std::ops::Range;

use super::edits::{TextEdits, behind, line_start, next_line};
use super::error::InjectError;
use super::fingerprint::fingerprint;
use super::objects::{ManifestObject, objects};
use super::record::{ANNOTATION, InjectRecord};
use super::tree::{self, YamlContent, YamlDocument, YamlEntry, YamlNode};

/// A manifest without what was injected.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) text: String,
    /// The objects that were changed, as kind and name.
    pub(super) changed: Vec<String>,
    /// One line for each edit that was found in what was injected.
    pub(super) notes: Vec<String>,
}

/// Returns `text` as it was before the injection, which is `text` itself if there was none.
///
/// # Errors
///
/// The text is no YAML, a record is not as it was written, or what was injected shares a line with something else.
pub(super) fn uninject(text: &str) -> Result<Restored, InjectError> {
    let documents = tree::parse(text)?;
    let mut edits = TextEdits::default();
    let (mut changed, mut notes) = (Vec::new(), Vec::new());
    let mut is_open = false;
    for object in objects(&documents) {
        let Some(record) = InjectRecord::of(object.root)? else { continue };
        changed.push(object.title());
        let title = object.title();
        let mut removal = Removal {
            text,
            title: &title,
            root: object.root,
            record: &record,
            removed: HashSet::new(),
            edits: &mut edits,
            notes: &mut notes,
        };
        if record.document && removal.is_edited("data", object.root.get("data")) {
            removal.note("data was edited since it was injected, and the edit is lost; save it in a file, and inject with --config FILE");
        }
        if record.document && !std::ptr::eq(object.root, &raw const *object.document.root) {
            // The item of a List alone, as its neighbours are not of this record.
            removal.remove(Found::Item(object.root))?;
        } else if record.document {
            let range = document_range(text, &documents, object);
            is_open |= record.newline && range.end == text.len();
            edits.replace(range, String::new());
        } else {
            removal.run()?;
        }
    }
    let mut restored = edits.apply(text);
    if is_open && restored.ends_with('\n') {
        restored.pop();
        restored.truncate(restored.strip_suffix('\r').map_or(restored.len(), str::len));
    }
    Ok(Restored { text: restored, changed, notes })
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
    title: &'a str,
    root: &'a YamlNode,
    record: &'a InjectRecord,
    /// The starts of the entries and items that are removed.
    removed: HashSet<usize>,
    edits: &'a mut TextEdits,
    notes: &'a mut Vec<String>,
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
        let record = self.record;
        let mut paths: Vec<(String, &String)> = record.added.iter().map(|path| (record.absolute(path), path)).collect();
        // What is below comes first, so that it is known which parents are left empty.
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.matches('/').count()));
        for (path, recorded) in &paths {
            let below = format!("{path}/");
            let is_parent = paths.iter().any(|(other, _)| other.starts_with(&below)) || path == "metadata/annotations";
            let Some(found) = self.find(path).or_else(|| self.find_renamed(path, recorded)) else {
                if !is_parent {
                    self.note_missing(recorded);
                }
                continue;
            };
            if is_parent {
                if self.is_left_empty(found.value()) {
                    self.remove(found)?;
                }
                continue;
            }
            match found {
                Found::Entry(entry) if self.is_edited(recorded, Some(&entry.value)) => {
                    self.note_kept(recorded, &entry.value);
                    continue;
                }
                Found::Item(item) if self.is_edited(recorded, Some(item)) => {
                    self.note(&format!("{recorded} was edited since it was injected, and the edit is lost"));
                }
                _ => {}
            }
            self.remove(found)?;
        }
        for (path, former) in &record.was {
            let absolute = record.absolute(path);
            match self.find(&absolute).or_else(|| self.find_renamed(&absolute, path)) {
                Some(Found::Entry(entry)) if self.is_edited(path, Some(&entry.value)) => {
                    self.note_kept(path, &entry.value);
                }
                Some(Found::Entry(entry)) => self.restore(entry, former),
                _ => self.note_missing(path),
            }
        }
        Ok(())
    }

    /// Returns whether a value is not the one that was written; false where the record does not say.
    fn is_edited(&self, path: &str, value: Option<&YamlNode>) -> bool {
        self.record.now.get(path).is_some_and(|written| value.map(fingerprint).as_ref() != Some(written))
    }

    fn note(&mut self, what: &str) {
        self.notes.push(format!("{}: {what}", self.title));
    }

    fn note_kept(&mut self, path: &str, value: &YamlNode) {
        let injected = self.record.now.get(path).filter(|written| !written.starts_with('#'));
        let what = match (value.text(), injected) {
            (Some(value), Some(injected)) => format!("{path} was edited from {injected} to {value}"),
            _ => format!("{path} was edited"),
        };
        self.note(&format!("{what} since it was injected, and stays as your own value"));
    }

    fn note_missing(&mut self, path: &str) {
        self.note(&format!(
            "{path} was injected, and was removed or renamed since; look whether something of it is left"
        ));
    }

    /// Returns the place of a path; `None` if it is gone.
    fn find(&self, path: &str) -> Option<Found<'a>> {
        self.find_by(path, |_| false)
    }

    /// Returns the place of a path inside of an item that has another name now: the only one, and only if what was
    /// written is still there.
    fn find_renamed(&self, path: &str, recorded: &str) -> Option<Found<'a>> {
        let last = path.rfind('/')?;
        let found = self.find_by(path, |step_end| step_end <= last)?;
        let is_same = self.record.now.contains_key(recorded) && !self.is_edited(recorded, Some(found.value()));
        is_same.then_some(found)
    }

    /// Returns the place of a path; where a step of it names no item, the only item is taken if `is_lax` says so of the
    /// end of the step.
    fn find_by(&self, path: &str, is_lax: impl Fn(usize) -> bool) -> Option<Found<'a>> {
        let mut found = Found::Item(self.root);
        let mut step_end = 0;
        for step in path.split('/') {
            step_end += step.len() + usize::from(step_end > 0);
            let node = found.value();
            found = match &node.content {
                YamlContent::Mapping { .. } => Found::Entry(node.entry(step)?),
                YamlContent::Sequence { items, .. } => {
                    let (key, value) = step.split_once('=').unwrap_or(("name", step));
                    let mut same = items.iter().filter(|item| item.text_at(&[key]) == Some(value));
                    let sole = || items.first().filter(|_| items.len() == 1 && is_lax(step_end));
                    // Two of one name cannot be told apart.
                    Found::Item(same.next().filter(|_| same.next().is_none()).or_else(sole)?)
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
