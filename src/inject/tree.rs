//! A YAML stream as a tree in which every node has its place in the text.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::error::InjectError;

/// One document of a stream.
#[derive(Debug)]
pub(super) struct YamlDocument {
    /// The byte at which its `---` begins; `None` without one.
    pub(super) marker: Option<usize>,
    /// Its content; an empty document is a null.
    pub(super) root: Rc<YamlNode>,
    /// The ids of the anchors that an alias of this document refers to.
    aliased: HashSet<usize>,
}

impl YamlDocument {
    /// Returns whether an alias repeats this node.
    pub(super) fn is_repeated(&self, node: &YamlNode) -> bool {
        self.aliased.contains(&node.anchor)
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct YamlNode {
    /// The byte at which its content begins, behind its anchor and tag; for a block mapping its first key.
    pub(super) start: usize,
    /// The byte behind its content, without what follows the last one in it: spaces, comments, empty lines.
    pub(super) end: usize,
    /// Line, counted from 1.
    pub(super) line: usize,
    /// Column of `start` in characters, counted from 0.
    pub(super) column: usize,
    /// The id of its anchor; 0 without one.
    anchor: usize,
    pub(super) content: YamlContent,
}

/// The content of a node.
#[derive(Debug)]
pub(super) enum YamlContent {
    /// A scalar; `is_plain` if it is written without quotes, so that its form decides about its type.
    Scalar {
        value: String,
        is_plain: bool,
    },
    Mapping {
        entries: Vec<YamlEntry>,
        is_flow: bool,
    },
    Sequence {
        items: Vec<Rc<YamlNode>>,
        is_flow: bool,
    },
    /// An alias, with the node that it repeats.
    Alias(Rc<YamlNode>),
}

/// A key of a mapping and its value.
#[derive(Debug)]
pub(super) struct YamlEntry {
    pub(super) key: Rc<YamlNode>,
    pub(super) value: Rc<YamlNode>,
}

impl YamlNode {
    /// Returns the node that this one stands for: itself, unless it is an alias.
    pub(super) fn resolved(&self) -> &Self {
        match &self.content {
            YamlContent::Alias(target) => target.resolved(),
            _ => self,
        }
    }

    /// Returns the text of a scalar that is no null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.resolved().content {
            YamlContent::Scalar { value, .. } if !self.is_null() => Some(value),
            _ => None,
        }
    }

    /// Returns whether it is a null, in one of the forms of YAML 1.2.
    pub(super) fn is_null(&self) -> bool {
        let null = |value: &str| matches!(value, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.resolved().content, YamlContent::Scalar { value, is_plain: true } if null(value))
    }

    /// Returns whether it holds nothing: a null, `{}` or `[]`.
    pub(super) fn is_empty(&self) -> bool {
        match &self.resolved().content {
            YamlContent::Mapping { entries, .. } => entries.is_empty(),
            YamlContent::Sequence { items, .. } => items.is_empty(),
            _ => self.is_null(),
        }
    }

    /// Returns the entries of a mapping, and none for another node.
    pub(super) fn entries(&self) -> &[YamlEntry] {
        match &self.resolved().content {
            YamlContent::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// Returns the items of a sequence, and none for another node.
    pub(super) fn items(&self) -> &[Rc<YamlNode>] {
        match &self.resolved().content {
            YamlContent::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// Returns the entry of a mapping with this key.
    pub(super) fn entry(&self, key: &str) -> Option<&YamlEntry> {
        self.entries().iter().find(|entry| entry.key.text() == Some(key))
    }

    /// Returns the value of this key.
    pub(super) fn get(&self, key: &str) -> Option<&YamlNode> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// Returns the text of the scalar below these keys.
    pub(super) fn text_at(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().try_fold(self, |node, key| node.get(key))?.text()
    }
}

/// Reads a stream.
///
/// # Errors
///
/// The first place at which it is no YAML.
pub(super) fn parse(text: &str) -> Result<Vec<YamlDocument>, InjectError> {
    let mut builder = Builder { text, documents: Vec::new(), open: Vec::new(), anchors: HashMap::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            let hint = if error.info().contains("tab") {
                "; indent with spaces"
            } else if text.contains("{{") {
                "; this looks like a template: render it first, as in helm template CHART | pulsegate inject -f -"
            } else {
                ""
            };
            InjectError::at(line, format!("column {column}: not YAML: {}{hint}", error.info()))
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// The collections that are open, and the documents so far.
struct Builder<'a> {
    text: &'a str,
    documents: Vec<YamlDocument>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<YamlNode>>,
}

/// A collection whose end is not read yet.
struct Open {
    node: YamlNode,
    /// The key that waits for its value.
    key: Option<Rc<YamlNode>>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), InjectError> {
        let (start, end) = (offset(span.start.byte_offset())?, offset(span.end.byte_offset())?);
        let (line, column) = (span.start.line(), span.start.col());
        let node = |anchor, end, content| YamlNode { start, end, line, column, anchor, content };
        match event {
            Event::DocumentStart(explicit, _) => {
                let root = Rc::new(node(0, start, YamlContent::Scalar { value: String::new(), is_plain: true }));
                self.anchors.clear();
                self.documents.push(YamlDocument { marker: explicit.then_some(start), root, aliased: HashSet::new() });
            }
            Event::Scalar(value, style, anchor, _) => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let end = if is_block { self.block_scalar_end(start, end, &value) } else { end };
                let is_plain = style == ScalarStyle::Plain;
                // The parser writes an absent value as a tilde.
                let value = if start == end && is_plain { String::new() } else { value.into_owned() };
                self.add(node(anchor, end, YamlContent::Scalar { value, is_plain }));
            }
            Event::Alias(id) => {
                let target = self.anchors.get(&id).cloned();
                let target = target.ok_or_else(|| InjectError::at(line, "an alias inside of its own anchor"))?;
                if let Some(document) = self.documents.last_mut() {
                    document.aliased.insert(id);
                }
                self.add(node(0, end, YamlContent::Alias(target)));
            }
            Event::MappingStart(style, anchor, _) => {
                let content = YamlContent::Mapping { entries: Vec::new(), is_flow: style == StructureStyle::Flow };
                self.open.push(Open { node: node(anchor, end, content), key: None });
            }
            Event::SequenceStart(style, anchor, _) => {
                let content = YamlContent::Sequence { items: Vec::new(), is_flow: style == StructureStyle::Flow };
                self.open.push(Open { node: node(anchor, end, content), key: None });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Open { mut node, .. }) = self.open.pop() {
                    node.end = match &node.content {
                        YamlContent::Mapping { entries, is_flow: false } => {
                            entries.last().map_or(node.end, |entry| entry.value.end.max(entry.key.end))
                        }
                        YamlContent::Sequence { items, is_flow: false } => {
                            items.last().map_or(node.end, |item| item.end.max(node.end))
                        }
                        _ => end,
                    };
                    self.refuse_template(&node)?;
                    self.add(node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses a mapping as a key, which is how `{{ .Values.image }}` reads in YAML.
    fn refuse_template(&self, node: &YamlNode) -> Result<(), InjectError> {
        let is_key = self.open.last().is_some_and(|parent| {
            parent.key.is_none() && matches!(parent.node.content, YamlContent::Mapping { is_flow: true, .. })
        });
        if is_key && matches!(node.content, YamlContent::Mapping { is_flow: true, .. }) {
            return Err(InjectError::at(
                node.line,
                "a variable in double braces: this looks like a template: render it first, as in helm template CHART | pulsegate inject -f -",
            ));
        }
        Ok(())
    }

    /// Puts a node that is read to its end where it belongs.
    fn add(&mut self, node: YamlNode) {
        let node = Rc::new(node);
        if node.anchor != 0 {
            self.anchors.insert(node.anchor, Rc::clone(&node));
        }
        let Some(Open { node: parent, key }) = self.open.last_mut() else {
            if let Some(document) = self.documents.last_mut() {
                document.root = node;
            }
            return;
        };
        match &mut parent.content {
            YamlContent::Sequence { items, .. } => items.push(node),
            YamlContent::Mapping { entries, .. } => match key.take() {
                Some(key) => entries.push(YamlEntry { key, value: node }),
                None => *key = Some(node),
            },
            YamlContent::Scalar { .. } | YamlContent::Alias(_) => {}
        }
    }

    /// Returns the end of a block scalar. The parser's `end` is behind the empty lines and the indentation that follow.
    fn block_scalar_end(&self, start: usize, end: usize, value: &str) -> usize {
        let content = &self.text[start..end];
        // Empty lines belong to the value if it keeps them (`|+`), and so do spaces alone.
        let keeps = value.ends_with("\n\n") || value.trim_end_matches('\n').is_empty();
        if keeps || value.trim_end_matches('\n').ends_with([' ', '\t']) {
            let indentation = content.len() - content.trim_end_matches(' ').len();
            let is_line_start = content[..content.len() - indentation].ends_with('\n');
            return if is_line_start { end - indentation } else { end };
        }
        start + content.trim_end().len()
    }
}

fn offset(bytes: Option<usize>) -> Result<usize, InjectError> {
    bytes.ok_or_else(|| InjectError::whole("the parser gave no position"))
}
