//! The README's table, made of what the scenarios assert.

use std::fs;
use std::path::Path;

use crate::library::{After, Auto, ComesBack, Hung, Library};

/// Every library that is tried, in the order of the table.
const LIBRARIES: &[&Library] = &[
    &crate::ws::LIBRARY,
    &crate::ws::BEATS,
    &crate::socket_io::WEBSOCKET,
    &crate::socket_io::POLLING,
    &crate::graphql_ws::LIBRARY,
    &crate::graphql_ws::BEATS,
    &crate::subscriptions_transport_ws::LIBRARY,
    &crate::signalr::LIBRARY,
    &crate::stomp::LIBRARY,
    &crate::mqtt::LIBRARY,
    &crate::mqtt::IN_NODE,
    &crate::phoenix::LIBRARY,
    &crate::actioncable::LIBRARY,
    &crate::pusher::LIBRARY,
    &crate::pusher::IN_NODE,
];

/// The section of the README in which the table stands.
const SECTION: &str = "\n## Application heartbeats\n";

const HEAD: &str = "\
| library | tried with | `profile` | mode | `auto` picks it | a hung page is gone after | after 1001 | after 1012 |
|---|---|---|---|---|---|---|---|
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
    let versions = library.versions().join(", ");
    let (after_1001, after_1012) = (then(library.after_1001), then(library.after_1012));
    format!("| {title} | {versions} | {profile} | {mode} | {auto} | {gone} | {after_1001} | {after_1012} |\n")
}

fn then(after: After) -> &'static str {
    match after.comes_back {
        ComesBack::Yes => "reconnects",
        ComesBack::UnlessRefused => "reconnects, unless its first try fails",
        ComesBack::No => "stays away",
        ComesBack::NotItsJob => "does not reconnect by itself",
    }
}

#[test]
fn the_readme_has_this_table() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is one");
    let (_, section) = readme.split_once(SECTION).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let table = table();
    assert!(section.contains(&table), "the README's table is to be:\n\n{table}");
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
