//! Compiled under `#[cfg(test)]` only.
//!
//! config/proxy.toml against the code: every key stands in it, and every default it shows is the code's.

use std::collections::BTreeSet;
use std::path::Path;

use figment::value::{Dict, Value};

use super::read;
use crate::config::document::Document;
use crate::config::layers::Layers;
use crate::config::path::KeyPath;
use crate::config::reader::Reader;
use crate::config::{Environment, Overrides, Settings, sections};
use crate::heartbeat::{Builtin, Heartbeat, RECOGNISABLE};

const DOCUMENTED: &str = include_str!("../../../config/proxy.toml");

/// Keys without a default; they stand in the examples alone.
const NO_DEFAULT: [&str; 1] = ["heartbeat.profile"];

/// Whether `line` is a key or a header that is commented out, rather than prose.
fn is_commented_out(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("# ") else { return false };
    let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.')).collect();
    rest.starts_with('[') || (!name.is_empty() && rest[name.len()..].starts_with(" = "))
}

/// The file with the chosen ones of its commented lines made real.
fn uncommented(choose: impl Fn(usize) -> bool) -> String {
    let lines = DOCUMENTED.lines().enumerate().map(|(number, line)| match line.strip_prefix("# ") {
        Some(rest) if is_commented_out(line) && choose(number) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the routes that serve as examples begin.
fn example() -> usize {
    DOCUMENTED.lines().position(|line| line == "# [[route]]").expect("an example of a route")
}

fn settings(text: &str) -> Settings {
    read(text).unwrap_or_else(|report| panic!("{text}\nrefused:\n{report}"))
}

/// The keys that the code asks for while it reads `text`.
fn asked(text: &str) -> BTreeSet<KeyPath> {
    let document = Document::parse(Path::new("a"), text.to_owned()).expect("TOML");
    let (layers, findings) = Layers::new(document, &Environment::default(), &Overrides::default());
    let reader = Reader::new(&layers, findings);
    let _ = sections::settings(&reader.root(), |_| Ok(()), |_| Ok(()));
    reader.keys().into_iter().collect()
}

/// The keys that stand in `values`.
fn leaves(path: &KeyPath, values: &Dict, found: &mut BTreeSet<KeyPath>) {
    for (key, value) in values {
        let path = path.key(key);
        match value.as_dict() {
            Some(values) => leaves(&path, values, found),
            None => assert!(found.insert(path)),
        }
    }
}

#[test]
fn the_file_is_valid_as_it_stands() {
    settings(DOCUMENTED);
}

#[test]
fn every_default_in_the_file_is_the_default_in_the_code() {
    let plain = settings(DOCUMENTED);
    let example = example();
    let lines: Vec<(usize, &str)> =
        DOCUMENTED.lines().enumerate().filter(|(number, line)| is_commented_out(line) && *number < example).collect();
    assert!(lines.len() > 30, "only {} commented defaults found", lines.len());
    for (number, line) in lines {
        assert_eq!(settings(&uncommented(|chosen| chosen == number)), plain, "line {}: {line}", number + 1);
    }
    assert_eq!(settings(&uncommented(|chosen| chosen < example)), plain, "all at once");
}

#[test]
fn every_key_of_the_code_stands_in_the_file_and_no_other() {
    let example = example();
    let text = uncommented(|chosen| chosen < example);
    let document = Document::parse(Path::new("a"), text).expect("TOML");
    let mut shown = BTreeSet::new();
    leaves(&KeyPath::default(), document.values(), &mut shown);
    let mut asked = asked("");
    asked.retain(|key| !NO_DEFAULT.contains(&key.to_string().as_str()));
    assert_eq!(shown, asked);
}

/// The keys that stand in the routes that serve as examples, as a section would have them.
fn exemplified() -> BTreeSet<String> {
    let document = Document::parse(Path::new("a"), uncommented(|_| true)).expect("TOML");
    let Some(Value::Array(_, routes)) = document.values().get("route") else { panic!("examples of routes") };
    let mut shown = BTreeSet::new();
    for route in routes {
        let mut keys = BTreeSet::new();
        leaves(&KeyPath::default(), route.as_dict().expect("a table"), &mut keys);
        shown.extend(keys.iter().map(KeyPath::to_string));
    }
    shown
}

#[test]
fn what_has_no_default_stands_in_an_example() {
    let shown = exemplified();
    assert_eq!(NO_DEFAULT.iter().find(|key| !shown.contains(**key)), None);
    let profile = "heartbeat.profile.";
    let asked: Vec<String> = asked("heartbeat.profile = {}").iter().map(KeyPath::to_string).collect();
    let asked: BTreeSet<&String> = asked.iter().filter(|key| key.starts_with(profile)).collect();
    assert_eq!(asked.len(), 6);
    assert_eq!(asked, shown.iter().filter(|key| key.starts_with(profile)).collect());
}

#[test]
fn every_profile_stands_in_the_file_with_its_modes() {
    for builtin in Builtin::ALL {
        let name = format!("#   \"{}\" ", builtin.name());
        let row = DOCUMENTED.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("no row {name}"));
        let columns: Vec<&str> = row[name.len()..].split_whitespace().collect();
        let roles: Vec<&str> = builtin.roles().iter().map(|role| role.as_str()).collect();
        let documented = match roles.as_slice() {
            [one] => columns[..1] == [*one],
            [first, other] => columns[..3] == [*first, "(or", &format!("{other})")],
            _ => false,
        };
        assert!(documented, "{row}\nhas the modes {roles:?}");
        let recognised = RECOGNISABLE.iter().any(|(recognisable, _)| *recognisable == builtin);
        assert_eq!(columns.last(), Some(if recognised { &"yes" } else { &"no" }), "{row}");
    }
}

#[test]
fn a_route_knows_what_the_sections_know_and_its_examples_work() {
    let route: BTreeSet<String> = asked("[[route]]")
        .iter()
        .filter(|path| path.in_list())
        .map(|path| path.keys().skip(1).collect::<Vec<_>>().join("."))
        .collect();
    let sections: BTreeSet<String> = asked("").iter().map(KeyPath::to_string).collect();
    let own: Vec<&String> = route.difference(&sections).collect();
    assert_eq!(own, ["path"]);
    let inherited = sections.iter().filter(|key| key.starts_with("heartbeat."));
    let missing: Vec<&String> = inherited.filter(|key| !route.contains(*key)).collect();
    assert_eq!(missing, Vec::<&String>::new());

    let routes = settings(&uncommented(|_| true)).routes;
    let heartbeats: Vec<String> = routes
        .iter()
        .map(|route| match &route.heartbeat {
            Heartbeat::Auto(_) => format!("{} auto", route.path),
            Heartbeat::Fixed(policy) => {
                let profile = policy.mode.profile().map_or("", |profile| profile.name);
                format!("{} {} {profile}", route.path, policy.mode.as_str())
            }
        })
        .collect();
    let expected = [
        "/socket.io/ passive engine.io",
        "/board/ answer custom",
        "/live/ protocol ",
        "/chat/ app custom",
        "/any/ auto",
        "/ protocol ",
    ];
    assert_eq!(heartbeats, expected);
    let default = routes.last().expect("the default route");
    assert!(routes[..routes.len() - 1].iter().all(|route| route.heartbeat != default.heartbeat));
}
