//! Lines of YAML in the indentation style of the manifest around them.

/// A value to be written.
#[derive(Clone, Debug)]
pub(super) enum Insertion {
    /// A scalar or a flow collection, as it is written.
    Inline(String),
    Mapping(Vec<(String, Insertion)>),
    Sequence(Vec<Insertion>),
    /// A literal block scalar.
    Literal(String),
}

impl Insertion {
    pub(super) fn inline(text: impl Into<String>) -> Self {
        Self::Inline(text.into())
    }

    pub(super) fn mapping<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Mapping(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// The indentation style of a manifest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The spaces from a mapping to one below it.
    pub(super) step: usize,
    /// The spaces from a key to the dashes of its sequence: often none.
    pub(super) dash: usize,
    /// The characters from a dash to the content of its item.
    pub(super) item: usize,
    /// The line ending.
    pub(super) ending: &'static str,
}

impl Layout {
    /// Returns the lines of an entry whose key stands at `column`.
    pub(super) fn entry(&self, column: usize, key: &str, value: &Insertion) -> String {
        let mut text = String::new();
        self.write_entry(&mut text, column, column, key, value);
        text
    }

    /// Returns the lines of an item whose dash stands at `column`.
    pub(super) fn item(&self, column: usize, value: &Insertion) -> String {
        let mut text = String::new();
        self.write_item(&mut text, column, value);
        text
    }

    /// Writes an entry; `indent` spaces stand before its key, which is at `column`.
    fn write_entry(&self, text: &mut String, indent: usize, column: usize, key: &str, value: &Insertion) {
        let ending = self.ending;
        text.extend(std::iter::repeat_n(' ', indent));
        match value {
            Insertion::Inline(value) => text.extend([key, ": ", value, ending]),
            Insertion::Mapping(entries) => {
                text.extend([key, ":", ending]);
                let below = column + self.step;
                for (key, value) in entries {
                    self.write_entry(text, below, below, key, value);
                }
            }
            Insertion::Sequence(items) => {
                text.extend([key, ":", ending]);
                for value in items {
                    self.write_item(text, column + self.dash, value);
                }
            }
            Insertion::Literal(value) => self.write_literal(text, column, key, value),
        }
    }

    fn write_item(&self, text: &mut String, column: usize, value: &Insertion) {
        text.extend(std::iter::repeat_n(' ', column));
        text.push('-');
        let spaces = self.item - 1;
        match value {
            Insertion::Mapping(entries) => {
                let below = column + self.item;
                for (at, (key, value)) in entries.iter().enumerate() {
                    self.write_entry(text, if at == 0 { spaces } else { below }, below, key, value);
                }
            }
            Insertion::Inline(value) | Insertion::Literal(value) => text.extend([" ", value, self.ending]),
            // No manifest that is written here has a sequence in a sequence.
            Insertion::Sequence(_) => text.push_str(self.ending),
        }
    }

    fn write_literal(&self, text: &mut String, column: usize, key: &str, value: &str) {
        let value = value.replace("\r\n", "\n");
        let is_printable =
            |c: char| c == '\n' || c == '\t' || !(c.is_control() || "\u{2028}\u{2029}\u{feff}".contains(c));
        if value.trim_matches('\n').is_empty() || !value.chars().all(is_printable) {
            // In double quotes JSON's escapes mean the same.
            text.extend([key, ": ", &serde_json::Value::from(value).to_string(), self.ending]);
            return;
        }
        let chomping = match value.len() - value.trim_end_matches('\n').len() {
            0 => "-",
            1 => "",
            _ => "+",
        };
        let indicator = if value.starts_with([' ', '\n', '\t']) { self.step.to_string() } else { String::new() };
        text.extend([key, ": |", &indicator, chomping, self.ending]);
        for line in value.strip_suffix('\n').unwrap_or(&value).split('\n') {
            if !line.is_empty() {
                text.extend(std::iter::repeat_n(' ', column + self.step));
            }
            text.push_str(line);
            text.push_str(self.ending);
        }
    }
}

/// Returns `text` as a scalar that YAML reads as this string.
pub(super) fn string(text: &str) -> String {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/@".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    // A tag follows the image's name without a space.
    let is_image = || {
        let (name, tag) = text.split_once(':').unwrap_or((text, ""));
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.contains(['/', '.'])
            && !tag.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/@:".contains(c))
    };
    if is_word || is_image() { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
