//! The descriptions of the keys, which stand in the documented configuration file alone.

use std::collections::BTreeMap;

/// The documented file.
const DOCUMENTED: &str = include_str!("../../config/proxy.toml");

/// The text above each key and section of the documented file, by its dotted path.
#[derive(Debug)]
pub(super) struct Descriptions(BTreeMap<String, String>);

impl Descriptions {
    /// Takes the descriptions from the documented file.
    pub(super) fn read() -> Self {
        Self::of_text(DOCUMENTED)
    }

    /// Returns the description of the key or section at `path`; what a route overrides has the section's.
    pub(super) fn of(&self, path: &str) -> Option<&str> {
        let section = path.strip_prefix("route.");
        self.0.get(path).or_else(|| self.0.get(section?)).map(String::as_str)
    }

    fn of_text(text: &str) -> Self {
        let mut found = BTreeMap::new();
        let mut section = String::new();
        for block in text.split("\n\n") {
            // A header in a comment counts until the block ends.
            let mut section_here = section.clone();
            let mut prose = Vec::new();
            let mut is_prose = true;
            for line in block.lines().filter(|line| !line.is_empty()) {
                let comment = line.strip_prefix('#');
                let rest = comment.unwrap_or(line).trim();
                let path = if let Some(header) = header(rest) {
                    header.clone_into(&mut section_here);
                    if comment.is_none() {
                        header.clone_into(&mut section);
                    }
                    header.to_owned()
                } else if let Some(key) = key(rest) {
                    format!("{section_here}.{key}")
                } else {
                    is_prose &= !rest.is_empty();
                    prose.extend(comment.filter(|_| is_prose));
                    continue;
                };
                is_prose = false;
                let text = paragraph(&prose);
                if !text.is_empty() {
                    found.entry(path).or_insert(text);
                }
                if header(rest).is_some() {
                    // What describes a table does not describe its keys.
                    prose.clear();
                }
            }
        }
        Self(found)
    }
}

/// The path in the header of a table, `[tls]` or `[[tls.sni]]`.
fn header(line: &str) -> Option<&str> {
    let path = line.strip_prefix('[')?.strip_suffix(']')?;
    Some(path.strip_prefix('[').and_then(|path| path.strip_suffix(']')).unwrap_or(path))
}

/// The key of a line that sets one.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
    (!key.is_empty() && key.bytes().all(is_letter)).then_some(key)
}

/// The lines of a comment as one text; a line that is indented begins a new line, unless it continues an indented one.
fn paragraph(lines: &[&str]) -> String {
    const CONTINUED: usize = 8;
    let mut text = String::new();
    let mut before = 0;
    for line in lines {
        let line = line.strip_prefix(' ').unwrap_or(line);
        let indented = line.len() - line.trim_start().len();
        let begins =
            indented != before && indented < CONTINUED || (indented == before && (1..CONTINUED).contains(&indented));
        if !text.is_empty() {
            text.push(if begins { '\n' } else { ' ' });
        }
        text.push_str(line.trim());
        before = if indented < CONTINUED { indented } else { before };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_above_a_key_describes_it() {
        let text = "# About the file.\n\n\n# The section,\n# in words.\n[a]\n\n# First.\n# Second.\n# one = 1\n#\n#   two = 2\n\n\
                    # List:\n#   \"x\"  ex,\n#          and more\n#   \"y\"  why\n# End.\n# three = 3\n\n\
                    # Tables.\n#\n#   [[a.b]]\n#   four = 4\n\n# Five.\nfive.six = 5\n";
        let texts = Descriptions::of_text(text);
        assert_eq!(texts.of("a"), Some("The section, in words."));
        assert_eq!(texts.of("a.one"), Some("First. Second."));
        assert_eq!(texts.of("a.two"), Some("First. Second."));
        assert_eq!(texts.of("route.a.three"), Some("List:\n\"x\"  ex, and more\n\"y\"  why\nEnd."));
        assert_eq!((texts.of("a.b"), texts.of("a.b.four")), (Some("Tables."), None));
        assert_eq!(texts.of("a.five.six"), Some("Five."));
    }
}
