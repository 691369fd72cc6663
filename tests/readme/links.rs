//! Every link of every markdown file leads to a file of the repository, and to a heading of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::root;

/// Returns the markdown files that git tracks or would track.
fn papers() -> Vec<String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]).current_dir(root());
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).expect("file names are UTF-8");
    listed.lines().filter(|path| root().join(path).exists()).map(str::to_owned).collect()
}

/// Returns the lines outside of fenced blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    outside.collect()
}

/// Returns the names by which links lead to the headings of a text, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for heading in prose(text).into_iter().filter(|line| line.starts_with('#')) {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(again).find(|name| !names.contains(name));
        names.extend(free);
    }
    names
}

/// Returns the targets of all links and pictures.
fn targets(text: &str) -> Vec<&str> {
    let lines = prose(text);
    let behind = lines.into_iter().flat_map(|line| line.split("](").skip(1));
    behind.filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

/// Returns the fault of a link of the file `from`.
fn fault(from: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let file = if path.is_empty() { root().join(from) } else { root().join(folder).join(path) };
    if !file.exists() {
        return Some(format!("{from}: {target}: no such file"));
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&file).expect("a file with headings is text");
    (!anchors(&text).contains(anchor)).then(|| format!("{from}: {target}: no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    let mut faults = Vec::new();
    for paper in papers() {
        let text = fs::read_to_string(root().join(&paper)).expect("markdown is readable");
        for target in targets(&text).into_iter().filter(|target| !target.contains("://")) {
            faults.extend(fault(&paper, target));
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} links");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let found = |target| fault("deploy/API.md", target).unwrap_or_default();
    assert!(found("NOTHING.md").contains("no such file"), "{}", found("NOTHING.md"));
    assert!(found("../README.md#nothing").contains("no such heading"), "{}", found("../README.md#nothing"));
    assert_eq!(found("../README.md#install"), "");
    assert_eq!(found("#errors"), "");
    let text = "# A `b_c`, d's\n```sh\n# no heading [x](y)\n```\n## A\n## A\n[x](a.md) ![y](b.png)\n";
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a", "a-1", "a-b_c-ds"]);
    assert_eq!(targets(text), ["a.md", "b.png"]);
}
