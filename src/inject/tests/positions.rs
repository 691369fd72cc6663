//! Compiled under `#[cfg(test)]` only.
//!
//! The places of nodes: what an insertion relies on.

use proptest::prelude::*;

use super::super::edits::{behind, next_line};
use super::super::layout::{Insertion, Layout, string};
use super::super::tree::{YamlContent, YamlNode, parse};

/// Returns the source text of each leaf.
fn leaves(text: &str) -> Vec<&str> {
    fn walk<'t>(text: &'t str, node: &YamlNode, found: &mut Vec<&'t str>) {
        match &node.content {
            YamlContent::Mapping { entries, is_flow: false } => entries.iter().for_each(|entry| {
                walk(text, &entry.key, found);
                walk(text, &entry.value, found);
            }),
            YamlContent::Sequence { items, is_flow: false } => items.iter().for_each(|item| walk(text, item, found)),
            _ => found.push(&text[node.start..node.end]),
        }
    }
    let mut found = Vec::new();
    parse(text).expect("YAML").iter().for_each(|document| walk(text, &document.root, &mut found));
    found
}

#[test]
fn leaves_end_where_their_text_ends() {
    let text = "ä: \"ü\\\n  ö\" # c\nplain: one\n  two\nnone:\nflow: {a: [1,\n  2]}\nalias: &x 'q''q'\nagain: *x # d\n";
    assert_eq!(
        leaves(text),
        [
            "ä",
            "\"ü\\\n  ö\"",
            "plain",
            "one\n  two",
            "none",
            "",
            "flow",
            "{a: [1,\n  2]}",
            "alias",
            "'q''q'",
            "again",
            "*x"
        ]
    );
    let windows = leaves("\u{feff}a: |\r\n  x\r\nb: 'y'\r\n");
    assert_eq!(windows, ["a", "x", "b", "'y'"]);
}

#[test]
fn a_block_scalar_ends_with_its_content() {
    // The empty lines at the end belong to the value only where it keeps them.
    assert_eq!(
        leaves("a: |\n  x\n\n\nb: >-\n  y\n   z\n  # no comment\n# comment\nc: 1\n"),
        ["a", "x", "b", "y\n   z\n  # no comment", "c", "1"]
    );
    assert_eq!(leaves("a: |+\n  x\n\n\nb: 1\n"), ["a", "x\n\n\n", "b", "1"]);
    assert_eq!(leaves("- a: |+\n\n  b: |\n   x\n    \n  c: 1\n"), ["a", "", "b", "x\n    \n", "c", "1"]);
    assert_eq!(leaves("a: |\nb: 1\n"), ["a", "", "b", "1"]);
}

#[test]
fn the_place_behind_a_node_is_a_start_of_a_line() {
    let text = "a:\n  b: 1 # c\n    # deeper\n  # as deep\nd: 2";
    let end = text.find('1').expect("there") + 1;
    assert_eq!(&text[next_line(text, end)..], "    # deeper\n  # as deep\nd: 2");
    assert_eq!(&text[behind(text, end, 2)..], "  # as deep\nd: 2");
    assert_eq!(&text[behind(text, end, 0)..], "d: 2");
    assert_eq!(behind(text, text.len(), 0), text.len());
    assert_eq!(behind("a: 1\n  # x", 4, 0), "a: 1\n  # x".len());
}

#[test]
fn what_is_no_yaml_is_named_with_its_place() {
    let fault = |text| parse(text).map(|_| ()).expect_err("no YAML").to_string();
    assert_eq!(fault("a: 1\nb: [\n"), "2: column 4: not YAML: unclosed bracket '['");
    assert!(fault("a: *b\n").starts_with("1: column 4: not YAML: "), "{}", fault("a: *b\n"));
    assert!(fault("a: {{ x }}\nb: }\n").contains("this looks like a template"), "{}", fault("a: {{ x }}\nb: }\n"));
}

/// Returns the text that YAML reads behind `a: `.
fn read_back(document: &str) -> String {
    let documents = parse(document).unwrap_or_else(|error| panic!("{error}\n{document}"));
    match &documents[0].root.get("a").unwrap_or_else(|| panic!("no a in {document:?}")).content {
        YamlContent::Scalar { value, .. } => value.clone(),
        other => panic!("{other:?} in {document:?}"),
    }
}

proptest! {
    #[test]
    fn any_text_is_written_so_that_it_is_read_again(
        text in "([ \t\n#a:\"'|>{}%@-]|---\n|\r\n|ä|🎲|\u{85}|\u{2028}|\u{feff}|\u{7}){0,20}",
        column in 0usize..5,
        step in 1usize..5,
    ) {
        let layout = Layout { step, dash: 0, item: 2, ending: "\n" };
        let below = |key: &str, value: Insertion| {
            let inner = layout.entry(column, key, &value);
            if column == 0 { inner } else { inner.lines().map(|line| line.get(column..).unwrap_or_default().to_owned() + "\n").collect() }
        };
        let literal = below("a", Insertion::Literal(text.clone())) + "b: 1\n";
        prop_assert_eq!(read_back(&literal), text.replace("\r\n", "\n"), "{}", literal);
        let line = below("a", Insertion::Inline(string(&text)));
        prop_assert_eq!(read_back(&line), text);
    }
}
