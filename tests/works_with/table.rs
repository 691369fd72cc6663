//! README's table, made of the rows that the scenario asserts.

use std::fs;
use std::path::Path;

use crate::works_with::apps::APPS;
use crate::works_with::row::{Returns, Row};

/// The section of README with the table.
const SECTION: &str = "\n## Works with\n";

const HEAD: &str = "\
| app | tried with | transport | after the proxy's 1012 | what you set |
|---|---|---|---|---|
";

fn table() -> String {
    APPS.iter().fold(HEAD.to_owned(), |table, app| table + &row(app))
}

fn row(app: &Row) -> String {
    let returns = match app.returns {
        Returns::Reconnects => "reconnects".to_owned(),
        Returns::ByCall(call) => format!("reconnects by `{call}`"),
        Returns::Reloads => "reloads the page".to_owned(),
        Returns::LeavesItToYou => "leaves it to you".to_owned(),
        Returns::NoWebSocket => "gets none".to_owned(),
    };
    let set: Vec<&str> = app.settings.iter().map(|setting| setting.shown).collect();
    let set = if set.is_empty() { "nothing".to_owned() } else { set.join("; ") };
    let Row { title, transport, .. } = app;
    format!("| {title} | {} | {transport} | {returns} | {set} |\n", app.versions().join(", "))
}

#[test]
fn the_readme_has_this_table() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is readable");
    let (_, section) = readme.split_once(SECTION).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let table = table();
    let rows = section.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n"));
    assert_eq!(rows.collect::<String>(), table, "README's table (left) is to be this one:\n\n{table}");
}

#[test]
fn every_folder_with_an_app_is_in_the_table() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/works_with");
    let entries = fs::read_dir(here).expect("this folder is readable").flatten();
    let mut folders: Vec<String> = entries
        .filter(|entry| entry.path().join("app.js").exists())
        .map(|entry| entry.file_name().display().to_string())
        .collect();
    folders.sort();
    let mut tried: Vec<&str> = APPS.iter().map(|app| app.folder).collect();
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(folders, tried);
}
