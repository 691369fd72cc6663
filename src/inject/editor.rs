//! Insertions into one object, and the record of them.

use super::edits::{TextEdits, behind, next_line};
use super::error::InjectError;
use super::fingerprint;
use super::layout::{Insertion, Layout};
use super::objects::ManifestObject;
use super::record::{ANNOTATION, InjectRecord};
use super::removal::behind_colon;
use super::tree::{YamlContent, YamlEntry, YamlNode};

/// The text, its changes, and the object that is being changed.
#[derive(Debug)]
pub(super) struct ObjectEditor<'a> {
    pub(super) text: &'a str,
    pub(super) object: ManifestObject<'a>,
    pub(super) layout: Layout,
    pub(super) edits: &'a mut TextEdits,
    pub(super) record: InjectRecord,
}

/// The place of an item among those of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemPosition {
    First,
    /// Behind the item of this index.
    Behind(usize),
}

impl ObjectEditor<'_> {
    /// Returns the mapping `node` if entries can be added to it, `what` being its name in an error.
    ///
    /// # Errors
    ///
    /// It is in flow style, an alias, repeated by an alias, merged with another mapping, or no mapping.
    pub(super) fn block_mapping<'n>(&self, node: &'n YamlNode, what: &str) -> Result<&'n YamlNode, InjectError> {
        self.in_block_style(node, what)?;
        let YamlContent::Mapping { entries, .. } = &node.content else {
            return Err(InjectError::at(
                node.line,
                format!("{what} is no mapping; write its keys below it, one a line"),
            ));
        };
        for (at, entry) in entries.iter().enumerate() {
            let key = entry.key.text().unwrap_or_default();
            if key == "<<" {
                return Err(InjectError::at(
                    entry.key.line,
                    format!(
                        "{what} is merged with another mapping (`<<`), in which keys may stand that cannot be seen here; write the keys of that mapping out"
                    ),
                ));
            }
            if entries[..at].iter().any(|other| other.key.text() == Some(key)) {
                let remedy = match key {
                    "apiVersion" | "kind" => "separate documents by a line with --- alone",
                    _ => "remove one of the two",
                };
                return Err(InjectError::at(entry.key.line, format!("{what} has the key {key} twice; {remedy}")));
            }
        }
        Ok(node)
    }

    /// As [`Self::block_mapping`], for a sequence.
    pub(super) fn block_sequence<'n>(&self, node: &'n YamlNode, what: &str) -> Result<&'n YamlNode, InjectError> {
        self.in_block_style(node, what)?;
        match node.content {
            YamlContent::Sequence { .. } => Ok(node),
            _ => Err(InjectError::at(node.line, format!("{what} is no list; write `- ` before each item, one a line"))),
        }
    }

    fn in_block_style(&self, node: &YamlNode, what: &str) -> Result<(), InjectError> {
        let refused = |why: String| Err(InjectError::at(node.line, why));
        if self.object.document.is_repeated(node) {
            return refused(format!(
                "{what} has an anchor, and an alias repeats it elsewhere, where the same would be injected; write its text instead of the alias"
            ));
        }
        match &node.content {
            YamlContent::Alias(_) => refused(format!(
                "{what} is an alias (`*`), and what is injected would have no place of its own; write its text out"
            )),
            YamlContent::Mapping { is_flow: true, .. } | YamlContent::Sequence { is_flow: true, .. } => {
                let convert = if self.text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
                    "; this is JSON: print it as YAML, as in kubectl get -o yaml or yq -P FILE"
                } else {
                    ""
                };
                refused(format!(
                    "{what} is in flow style ({{}} or []), in which no line can be inserted; write it in block style, one key or `- ` item a line{convert}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Adds the entry `key` at the end of a block mapping whose path is `path`.
    pub(super) fn add_entry(&mut self, mapping: &YamlNode, path: &str, key: &str, value: &Insertion) {
        let at = behind(self.text, mapping.end, mapping.column);
        let depth = depth(path) + 1;
        self.edits.insert(at, depth, self.layout.entry(mapping.column, key, value));
        self.record_added(join(path, key), value);
    }

    /// Records an entry or item that is inserted, and its fingerprint.
    fn record_added(&mut self, path: String, value: &Insertion) {
        if let Ok(fingerprint) = fingerprint::of_insertion(&self.layout, value) {
            self.record.now.insert(path.clone(), fingerprint);
        }
        self.record.added.push(path);
    }

    /// Adds `child: value` below the key `key` of a block mapping; the key is added where it is missing, and filled where
    /// it is empty.
    ///
    /// # Errors
    ///
    /// The value of `key` cannot be extended.
    pub(super) fn add_below(
        &mut self,
        mapping: &YamlNode,
        path: &str,
        key: &str,
        child: &str,
        value: &Insertion,
    ) -> Result<(), InjectError> {
        let below = join(path, key);
        let Some(entry) = mapping.entry(key) else {
            self.add_entry(mapping, path, key, &Insertion::Mapping(vec![(child.to_owned(), value.clone())]));
            // The key goes when it is left empty, whatever else it holds.
            self.record.now.remove(&below);
            self.record_added(join(&below, child), value);
            return Ok(());
        };
        if entry.value.is_empty() {
            let at = self.empty(entry, &below)?;
            let text = self.layout.entry(mapping.column + self.layout.step, child, value);
            self.edits.insert(at, depth(&below) + 1, text);
            self.record_added(join(&below, child), value);
            return Ok(());
        }
        let existing = self.block_mapping(&entry.value, key)?;
        self.add_entry(existing, &below, child, value);
        Ok(())
    }

    /// Adds items to the sequence below the key `key` of a block mapping; each has the name by which it is found again.
    ///
    /// # Errors
    ///
    /// The value of `key` cannot be extended.
    pub(super) fn add_items(
        &mut self,
        mapping: &YamlNode,
        key: &str,
        items: Vec<(&str, Insertion)>,
        position: Option<ItemPosition>,
    ) -> Result<(), InjectError> {
        let (names, values): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        match mapping.entry(key) {
            None => {
                self.add_entry(mapping, "", key, &Insertion::Sequence(values.clone()));
                self.record.now.remove(key);
            }
            Some(entry) if entry.value.is_empty() => {
                let at = self.empty(entry, key)?;
                self.insert_items(at, mapping.column + self.layout.dash, &values);
            }
            Some(entry) => {
                let sequence = self.block_sequence(&entry.value, key)?;
                let (column, at) = self.item_place(entry, sequence, position)?;
                self.insert_items(at, column, &values);
            }
        }
        for (name, value) in names.into_iter().zip(&values) {
            self.record_added(join(key, name), value);
        }
        Ok(())
    }

    /// Replaces the value of an entry by a scalar.
    ///
    /// # Errors
    ///
    /// The value is no scalar, or it cannot be replaced.
    pub(super) fn replace_scalar(&mut self, entry: &YamlEntry, path: &str, value: &str) -> Result<(), InjectError> {
        let key = entry.key.text().unwrap_or_default();
        let colon = self.replaceable(entry, key)?;
        let end = entry.value.end.max(colon);
        self.record.was.insert(path.to_owned(), self.text[colon..end].to_owned());
        self.record.now.insert(path.to_owned(), value.to_owned());
        self.edits.replace(colon..end, format!(" {value}"));
        Ok(())
    }

    /// Adds the record of all changes to the object's annotations, as the last of them.
    ///
    /// # Errors
    ///
    /// The metadata cannot be extended.
    pub(super) fn add_record(mut self) -> Result<(), InjectError> {
        let root = self.block_mapping(self.object.root, &self.object.title())?;
        let metadata = root
            .get("metadata")
            .ok_or_else(|| InjectError::at(root.line, "no metadata; write metadata with a name"))?;
        let metadata = self.block_mapping(metadata, "metadata")?;
        let path = "/metadata";
        // The record lists what the step itself adds, and its own entry is known without it.
        let mut trial = TextEdits::default();
        let mut probe = ObjectEditor {
            text: self.text,
            object: self.object,
            layout: self.layout,
            edits: &mut trial,
            record: InjectRecord::default(),
        };
        probe.add_below(metadata, path, "annotations", ANNOTATION, &Insertion::inline(""))?;
        self.record.added.extend(probe.record.added.into_iter().filter(|path| !path.ends_with(ANNOTATION)));
        self.record.was.extend(probe.record.was);
        let scalar = self.record.scalar();
        self.add_below(metadata, path, "annotations", ANNOTATION, &Insertion::Inline(scalar))
    }

    /// Removes the text of an empty value, and returns the place of the lines below its key.
    fn empty(&mut self, entry: &YamlEntry, path: &str) -> Result<usize, InjectError> {
        let colon = self.replaceable(entry, entry.key.text().unwrap_or_default())?;
        let end = entry.value.end.max(colon);
        if end > colon {
            self.record.was.insert(path.to_owned(), self.text[colon..end].to_owned());
            self.edits.replace(colon..end, String::new());
        }
        Ok(next_line(self.text, end))
    }

    /// Returns the byte behind the colon of an entry whose value can be replaced.
    fn replaceable(&self, entry: &YamlEntry, key: &str) -> Result<usize, InjectError> {
        let refused = |why: &str| InjectError::at(entry.key.line, format!("{key} {why}"));
        if self.object.document.is_repeated(&entry.value) {
            return Err(refused("has an anchor, and an alias repeats it; write its value instead of the alias"));
        }
        let colon = behind_colon(self.text, entry).ok_or_else(|| refused("is written with `?`; write `key: value`"))?;
        if self.text[colon..entry.value.end.max(colon)].contains('#') {
            return Err(refused("has a comment between key and value; move it above the key"));
        }
        Ok(colon)
    }

    fn insert_items(&mut self, at: usize, column: usize, values: &[Insertion]) {
        let text = values.iter().map(|value| self.layout.item(column, value)).collect();
        // Deeper than every entry of the mapping above, and less deep than what is inside of an item.
        self.edits.insert(at, 2, text);
    }

    /// Returns the column of the dashes of a sequence, and the place of a new item.
    fn item_place(
        &self,
        entry: &YamlEntry,
        sequence: &YamlNode,
        position: Option<ItemPosition>,
    ) -> Result<(usize, usize), InjectError> {
        let items = sequence.items();
        let Some(first) = items.first() else { return Err(InjectError::at(sequence.line, "an empty list")) };
        let column = dash_column(self.text, first)?;
        let at = match position.unwrap_or(ItemPosition::Behind(items.len() - 1)) {
            ItemPosition::First => next_line(self.text, entry.key.end),
            ItemPosition::Behind(index) => behind(self.text, items[index].end, column),
        };
        Ok((column, at))
    }
}

/// Returns the column of the dash of a block sequence's item.
///
/// # Errors
///
/// The dash stands on another line than the item.
pub(super) fn dash_column(text: &str, item: &YamlNode) -> Result<usize, InjectError> {
    let start = super::edits::line_start(text, item.start);
    let before = &text[start..item.start];
    let column = before.len() - before.trim_start_matches(' ').len();
    if before.trim_start_matches(' ').starts_with('-') {
        return Ok(column);
    }
    Err(InjectError::at(
        item.line,
        "the dash of this item stands on a line of its own; write `- ` before its first key",
    ))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") }
}

fn depth(path: &str) -> usize {
    if path.is_empty() { 0 } else { path.matches('/').count() + 1 }
}
