//! The tables of `README.md` in this folder, generated from the assertions of the scenarios.

use std::fs;
use std::path::Path;

use crate::libraries::library::{Auto, ComesBack, ENDS, Hung, Library};

/// All tested libraries, in the order of the table.
const LIBRARIES: &[&Library] = &[
    &crate::libraries::ws::LIBRARY,
    &crate::libraries::ws::BEATS,
    &crate::libraries::socket_io::WEBSOCKET,
    &crate::libraries::socket_io::POLLING,
    &crate::libraries::graphql_ws::LIBRARY,
    &crate::libraries::graphql_ws::BEATS,
    &crate::libraries::subscriptions_transport_ws::LIBRARY,
    &crate::libraries::signalr::LIBRARY,
    &crate::libraries::signalr::MESSAGE_PACK,
    &crate::libraries::stomp::LIBRARY,
    &crate::libraries::mqtt::LIBRARY,
    &crate::libraries::mqtt::IN_NODE,
    &crate::libraries::phoenix::LIBRARY,
    &crate::libraries::actioncable::LIBRARY,
    &crate::libraries::pusher::LIBRARY,
    &crate::libraries::pusher::IN_NODE,
    &crate::libraries::reconnecting::RECONNECTING_WEBSOCKET,
    &crate::libraries::reconnecting::PARTYSOCKET,
    &crate::libraries::reconnecting::SOCKETTE,
    &crate::libraries::jupyterlab::KERNEL,
    &crate::libraries::jupyterlab::TERMINAL,
];

const HEAD: &str = "\
| library | tried with | `profile` | mode | `auto` picks it | a hung page is gone after |
|---|---|---|---|---|---|
";

fn table() -> String {
    LIBRARIES.iter().fold(HEAD.to_owned(), |table, library| table + &row(library))
}

fn row(library: &Library) -> String {
    let auto = match library.auto {
        Auto::Picks(_) => "yes",
        Auto::CannotTell => "no",
    };
    let gone = match library.hung {
        Hung::Page { bound, .. } => bound.to_owned(),
        Hung::Process { bound, .. } => format!("its pages never answer: found when the process dies, {bound}"),
    };
    let Library { title, profile, mode, .. } = library;
    let profile = if profile.is_empty() { "none" } else { profile };
    let versions = library.versions().join(", ");
    format!("| {title} | {versions} | {profile} | {mode} | {auto} | {gone} |\n")
}

/// Returns the table of the libraries that reconnect, one column for each end.
fn returns() -> String {
    let ends: Vec<String> = ENDS.iter().map(|end| format!("after {end}")).collect();
    let head = format!("| library | {} |\n|---|{}\n", ends.join(" | "), "---|".repeat(ENDS.len()));
    LIBRARIES.iter().fold(head, |table, library| {
        let returns: Vec<&str> = library.comes_back.into_iter().map(word).collect();
        table + &format!("| {} | {} |\n", library.title, returns.join(" | "))
    })
}

fn word(comes_back: ComesBack) -> &'static str {
    match comes_back {
        ComesBack::Yes => "reconnects",
        ComesBack::UnlessRefused => "reconnects, unless refused",
        ComesBack::No => "**stays away**",
        ComesBack::NotItsJob => "leaves it to you",
    }
}

#[test]
fn the_readme_has_these_tables() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libraries/README.md");
    let text = fs::read_to_string(file).expect("it is readable");
    for table in [table(), returns()] {
        assert!(text.contains(&table), "tests/libraries/README.md is to have this table:\n\n{table}");
    }
}

#[test]
fn every_folder_with_an_app_is_tried() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libraries");
    let folders =
        fs::read_dir(here).expect("this folder").flatten().filter(|entry| entry.path().join("app.js").exists());
    for folder in folders {
        let name = folder.file_name();
        let tried = LIBRARIES.iter().any(|library| name.to_str() == Some(library.folder));
        assert!(tried, "{} is not in the table", name.display());
    }
}
