//! Escaping of control characters in log lines, because many logged values are chosen by clients.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Returns whether a terminal or a line reader interprets `c`: controls (C0, DEL and C1), line and paragraph
/// separators, and marks of writing direction.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The escape syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `\u0085`. Characters below DEL are already escaped within strings; outside of strings only the newline occurs.
    Json,
    /// `\u{85}`, except for the characters of the format itself: newlines, tabs, and colour sequences if there are any.
    Text { has_colour: bool },
}

impl Escape {
    fn applies_to(self, c: char) -> bool {
        let is_of_the_format = match self {
            Self::Json => c < '\u{7f}',
            Self::Text { has_colour } => matches!(c, '\n' | '\t') || has_colour && c == '\u{1b}',
        };
        is_control(c) && !is_of_the_format
    }

    /// Returns `line` with control characters escaped; `None` if there are none.
    fn escaped(self, line: &[u8]) -> Option<String> {
        // Fast path: most lines are printable ASCII.
        if line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
            return None;
        }
        let line = String::from_utf8_lossy(line);
        if !line.chars().any(|c| self.applies_to(c)) {
            return None;
        }
        let mut escaped = String::with_capacity(line.len() + 16);
        for c in line.chars() {
            let _ = match self {
                _ if !self.applies_to(c) => escaped.write_char(c),
                Self::Json => write!(escaped, "\\u{:04x}", u32::from(c)),
                Self::Text { .. } => write!(escaped, "{}", c.escape_unicode()),
            };
        }
        Some(escaped)
    }
}

/// A writer that escapes lines before it passes them to `log`.
#[derive(Clone, Debug)]
pub(super) struct Escaping<W> {
    log: W,
    escape: Escape,
}

impl<W> Escaping<W> {
    pub(super) fn new(log: W, escape: Escape) -> Self {
        Self { log, escape }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping::new(self.log.make_writer(), self.escape)
    }
}

impl<W: Write> Write for Escaping<W> {
    /// Writes `line`, one whole event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.escape.escaped(line) {
            Some(escaped) => self.log.write_all(escaped.as_bytes())?,
            None => self.log.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(escape: Escape, line: &str) -> String {
        let mut log = Vec::new();
        Escaping::new(&mut log, escape).write_all(line.as_bytes()).expect("memory takes all");
        String::from_utf8(log).expect("text")
    }

    #[test]
    fn json_keeps_its_value() {
        let all: String = ('\0'..='\u{2100}').filter(|c| is_control(*c)).collect();
        for text in [&*all, "größe ✓ \u{1f600}", "\u{85}a\u{2028}\"\\\u{9b}2J\u{202e}", ""] {
            let line = format!("{}\n", serde_json::json!({ text: text }));
            let written = escaped(Escape::Json, &line);
            assert_eq!(
                written.trim_end().parse::<serde_json::Value>().expect("JSON"),
                serde_json::json!({ text: text })
            );
            assert!(!written.trim_end().chars().any(is_control), "{}", written.escape_unicode());
        }
        assert_eq!(escaped(Escape::Json, "\"ö\u{85}\"\n"), "\"ö\\u0085\"\n");
    }

    #[test]
    fn text_keeps_what_its_format_has() {
        let line = "\u{1b}[2mtime\u{1b}[0m ö\tx=\u{9b}2J\u{2028}\u{7f}\u{8}\n    at\n";
        let rest = "\\u{9b}2J\\u{2028}\\u{7f}\\u{8}\n    at\n";
        let coloured = format!("\u{1b}[2mtime\u{1b}[0m ö\tx={rest}");
        assert_eq!(escaped(Escape::Text { has_colour: true }, line), coloured);
        let plain = coloured.replace('\u{1b}', "\\u{1b}");
        assert_eq!(escaped(Escape::Text { has_colour: false }, line), plain);
    }
}
