//! The report on a faulty configuration: every finding at once, with its place, the offending text and the remedy.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// Every finding on a configuration, in the order file, environment, flags.
///
/// `Display` draws each finding with its line, as a compiler would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

/// One fault. Serialised, it is an object with `file`, `line` and `column` (or `variable`, or `flag`),
/// `key`, `message`, `text` and `help`; what does not apply is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its place.
    #[serde(flatten)]
    pub place: Location,
    /// The dotted path of the key that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The fault of the file.
    pub message: String,
    /// The offending text as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The remedy, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line round the offending text.
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The place at which a value is set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Location {
    /// The file as a whole.
    File {
        /// Its path as it was given.
        file: String,
    },
    /// A place in the file.
    Line {
        /// Its path as it was given.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Character in the line, counted from 1.
        column: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name, spelt as it was found.
        variable: String,
    },
    /// A command line flag.
    Flag {
        /// Its name with the dashes.
        flag: &'static str,
    },
}

/// A place together with the text that stands there.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    place: Location,
    text: Option<String>,
    excerpt: Option<Excerpt>,
}

/// One line of text and the characters of it that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    marked: Range<usize>,
}

impl Report {
    /// The exit code of a program whose configuration is refused: `EX_CONFIG` of sysexits.h.
    pub const EXIT_CODE: u8 = 78;

    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        Self { findings }
    }

    pub(super) fn of(finding: Finding) -> Self {
        Self { findings: vec![finding] }
    }

    /// Returns the findings on the table `section` or a key below it.
    pub(super) fn within(mut self, section: &str) -> Option<Self> {
        let concerns =
            |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.findings.retain(|finding| finding.key.as_deref().is_some_and(concerns));
        (!self.findings.is_empty()).then_some(self)
    }

    /// Everything in one line, for a log: where and what, without the excerpts.
    pub fn one_line(&self) -> String {
        let findings = self.findings.iter().map(|finding| {
            let message = printable(&finding.message);
            let key = finding.key.as_deref().map(|key| format!(" {key}:")).unwrap_or_default();
            let help = finding.help.as_deref().map(|help| format!(" ({})", printable(help))).unwrap_or_default();
            format!("{}:{key} {message}{help}", finding.place)
        });
        findings.collect::<Vec<_>>().join("; ")
    }

    /// The findings, never none.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.findings.len() {
            1 => f.write_str("1 error in the configuration"),
            n => write!(f, "{n} errors in the configuration"),
        }
    }
}

impl Finding {
    pub(super) fn new(spot: Spot, message: String, help: Option<String>) -> Self {
        Self { place: spot.place, key: None, message, text: spot.text, help, excerpt: spot.excerpt }
    }

    pub(super) fn about(mut self, key: &impl fmt::Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", printable(&self.message))?;
        let number = match self.place {
            Location::Line { line, .. } => line.to_string(),
            _ => String::new(),
        };
        let margin = " ".repeat(number.len());
        writeln!(f, "{margin}--> {}", self.place)?;
        let help = self.help.as_deref().map(printable);
        match (&self.excerpt, help) {
            (Some(excerpt), help) => {
                let (line, before, width) = excerpt.window();
                let label = help.map(|text| format!(" {text}")).unwrap_or_default();
                writeln!(f, "{margin} |\n{number} | {line}")?;
                writeln!(f, "{margin} | {}{}{label}", " ".repeat(before), "^".repeat(width))
            }
            (None, Some(help)) => writeln!(f, "{margin} = help: {help}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable { variable } => write!(f, "environment variable {}", printable(variable)),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

impl Spot {
    /// The place without its text.
    pub(super) fn into_place(self) -> Location {
        self.place
    }

    /// The file as a whole.
    pub(super) fn file(file: &str) -> Self {
        Self::nowhere(Location::File { file: file.to_owned() })
    }

    /// A place of which no text is worth showing.
    pub(super) fn nowhere(place: Location) -> Self {
        Self { place, text: None, excerpt: None }
    }

    /// The bytes `span` of the file's `text`.
    pub(super) fn span(file: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let to = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let chars = |range: Range<usize>| text[range].chars().count();
        let (before, width) = (chars(from..start), chars(start..end.min(to)));
        let place =
            Location::Line { file: file.to_owned(), line: text[..from].matches('\n').count() + 1, column: before + 1 };
        let line = text[from..to].trim_end_matches('\r').to_owned();
        let marked = Some(text[start..end].to_owned()).filter(|text| !text.is_empty());
        Self { place, text: marked, excerpt: Some(Excerpt { line, marked: before..before + width }) }
    }

    /// The whole `text` of something that is not a file.
    pub(super) fn whole(place: Location, text: &str) -> Self {
        let excerpt = Excerpt { line: text.to_owned(), marked: 0..text.chars().count() };
        Self { place, text: Some(text.to_owned()), excerpt: Some(excerpt) }
    }
}

impl Excerpt {
    /// At most this many characters of a line are drawn.
    const WIDTH: usize = 100;
    /// The number of them before the mark where the line is longer.
    const LEAD: usize = 20;

    /// Returns the part of the line that is drawn, the number of characters before the mark, and that of the marked
    /// ones.
    fn window(&self) -> (String, usize, usize) {
        let lead = if self.marked.end > Self::WIDTH { self.marked.start.saturating_sub(Self::LEAD) } else { 0 };
        let drawn: String = self.line.chars().skip(lead).take(Self::WIDTH).collect();
        let before = self.marked.start - lead;
        let room = drawn.chars().count().saturating_sub(before);
        (printable(&drawn), before, self.marked.len().min(room).max(1))
    }
}

/// `text` with everything that could play tricks on a terminal replaced, character by character.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
