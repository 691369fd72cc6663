//! Changes of a text by position, and the lines of a text.

use std::cmp::Reverse;
use std::ops::Range;

/// Changes of one text, which are made together.
#[derive(Debug, Default)]
pub(super) struct TextEdits(Vec<TextEdit>);

#[derive(Debug)]
struct TextEdit {
    range: Range<usize>,
    text: String,
    /// The nesting depth of what is inserted: at one position, the deeper lines belong to what is above them.
    depth: usize,
}

impl TextEdits {
    pub(super) fn insert(&mut self, at: usize, depth: usize, text: String) {
        self.0.push(TextEdit { range: at..at, text, depth });
    }

    pub(super) fn replace(&mut self, range: Range<usize>, text: String) {
        self.0.push(TextEdit { range, text, depth: 0 });
    }

    /// Returns `text` with all changes. A change inside of a range that another one removes has no effect.
    pub(super) fn apply(mut self, text: &str) -> String {
        self.0.sort_by_key(|edit| (edit.range.start, Reverse(edit.depth), Reverse(edit.range.end)));
        let mut changed = String::with_capacity(text.len() + self.0.iter().map(|edit| edit.text.len()).sum::<usize>());
        let mut done = 0;
        for TextEdit { range, text: new, .. } in self.0 {
            if range.start < done {
                continue;
            }
            changed.push_str(&text[done..range.start]);
            changed.push_str(&new);
            done = range.end;
        }
        changed.push_str(&text[done..]);
        changed
    }
}

/// Returns the line ending of a text: that of its first line.
pub(super) fn line_ending(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Returns the start of the line that contains the byte `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Returns the start of the line behind the one that ends a node at `end`; `end` itself at the start of a line.
pub(super) fn next_line(text: &str, end: usize) -> usize {
    if text[..end].ends_with('\n') {
        return end;
    }
    text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1)
}

/// Returns the start of the line behind a node that ends at `end`, and behind the comments that follow it at once and are
/// indented by more than `column`: they are about its content.
pub(super) fn behind(text: &str, end: usize, column: usize) -> usize {
    let mut at = next_line(text, end);
    loop {
        let rest = &text[at..];
        let content = rest.trim_start_matches(' ');
        if rest.len() - content.len() <= column || !content.starts_with('#') {
            return at;
        }
        at = next_line(text, at + rest.find('\n').unwrap_or(rest.len()));
    }
}
