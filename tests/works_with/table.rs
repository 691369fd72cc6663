//! The table of `README.md` in this folder, made of the rows that the scenario asserts.

use std::fs;
use std::path::Path;

use crate::works_with::apps::APPS;
use crate::works_with::row::{Returns, Row};

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
fn the_paper_has_this_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/works_with/README.md");
    let text = fs::read_to_string(file).expect("it is readable");
    let table = table();
    let rows = text.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n"));
    assert_eq!(
        rows.collect::<String>(),
        table,
        "the table of tests/works_with/README.md (left) is to be this one:\n\n{table}"
    );
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
