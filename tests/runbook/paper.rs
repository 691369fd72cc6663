//! The runbook as a test reads it: sections, each with a command and its output.

use std::fs;
use std::path::Path;

/// A symptom.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// The first command below it, as it stands there.
    pub(crate) command: String,
    /// Its output, line by line.
    pub(crate) shown: Vec<String>,
}

/// Every symptom of the runbook.
pub(crate) fn sections() -> Vec<Section> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/OPERATIONS.md");
    let text = fs::read_to_string(file).expect("there is a runbook");
    let (_, book) = text.split_once("\n## Runbook\n").expect("a runbook");
    let book = book.split("\n## ").next().unwrap_or_default();
    book.split("\n### ").skip(1).map(Section::read).collect()
}

/// The symptom with this title.
pub(crate) fn section(title: &str) -> Section {
    let found = sections().into_iter().find(|section| section.title == title);
    found.unwrap_or_else(|| panic!("the runbook has no section {title:?}"))
}

impl Section {
    fn read(text: &str) -> Self {
        let (title, body) = text.split_once('\n').expect("a title, and more below it");
        let block = body.split_once("```console\n").and_then(|(_, rest)| rest.split_once("\n```"));
        let block = block.unwrap_or_else(|| panic!("{title}: no console block")).0;
        let mut lines = block.lines().map(str::to_owned);
        let command = lines.next().expect("a command");
        let command = command.strip_prefix("$ ").unwrap_or_else(|| panic!("{title}: no prompt before {command:?}"));
        Self { title: title.to_owned(), command: command.to_owned(), shown: lines.collect() }
    }

    /// That `output` has every line that the paper shows, in this order, apart from figures, names and times.
    #[track_caller]
    pub(crate) fn is_shown_by(&self, output: &str) {
        let mut rest = output.lines();
        for shown in &self.shown {
            let found = rest.by_ref().any(|line| shape(line) == shape(shown));
            assert!(
                found,
                "{}: `{}` printed no line like\n{shown}\n({})\nbut\n{output}\n({})",
                self.title,
                self.command,
                shape(shown),
                output.lines().map(shape).collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// `line` without what differs from run to run: each word with a figure in it, together with its unit, and each unknown one,
/// is `#`.
fn shape(line: &str) -> String {
    const UNITS: [&str; 9] = ["ms", "s", "min", "h", "B", "KiB", "MiB", "GiB", "d"];
    let mut shape = Vec::new();
    for word in line.split_whitespace() {
        let varies = word == "-" || word.contains(|c: char| c.is_ascii_digit());
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        if varies {
            shape.push("#");
        } else if shape.last() != Some(&"#") || !UNITS.contains(&bare) {
            shape.push(word);
        }
    }
    shape.join(" ")
}

#[test]
fn a_shape_keeps_words_and_drops_figures() {
    assert_eq!(shape("00a1  open  / -  41ms lived 3.5 s: gone (14 B)"), "# open / # # lived # gone #");
}

#[test]
#[should_panic(expected = "printed no line like")]
fn an_output_that_differs_is_found() {
    let section = Section { title: "t".into(), command: "c".into(), shown: vec!["not ready (503)".into()] };
    section.is_shown_by("ready (200)\n");
}
