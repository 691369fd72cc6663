//! Compiled under `#[cfg(test)]` only.
//!
//! config/proxy.toml against the code: every key stands in it, and every default it shows is the code's.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use figment::value::{Dict, Value};
use tempfile::NamedTempFile;

use super::{read, token_file};
use crate::config::document::Document;
use crate::config::layers::Layers;
use crate::config::path::KeyPath;
use crate::config::reader::TreeReader;
use crate::config::{AllowedOrigin, Environment, OriginPolicy, Overrides, Settings, sections};
use crate::heartbeat::{Builtin, DETECTABLE, Heartbeat};

const DOCUMENTED: &str = include_str!("../../../config/proxy.toml");

/// Keys without a default; they stand in the examples and other forms alone.
const NO_DEFAULT: [&str; 7] = [
    "admin.token_file",
    "heartbeat.profile",
    "origins.allow",
    "tls.acme.ca",
    "tls.acme.external_account.key_file",
    "tls.acme.external_account.key_id",
    "tls.client_auth.ca",
];

/// The one file that is looked into while the configuration is read, as the file names it.
const TOKEN: &str = "/etc/pulsegate/admin.token";
/// One that is there.
static TOKEN_FILE: LazyLock<NamedTempFile> = LazyLock::new(|| token_file("0123456789abcdef"));

/// Returns whether `line` is a key or a header that is commented out, rather than prose.
fn is_commented_out(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("# ") else { return false };
    let name: String =
        rest.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.')).collect();
    rest.starts_with('[') || (!name.is_empty() && rest[name.len()..].starts_with(" = "))
}

/// The file with the chosen ones of its commented lines made real.
fn uncommented(choose: impl Fn(usize) -> bool) -> String {
    // Whether the line belongs to a list that goes over several lines, and is chosen with its first.
    let mut list = None;
    let lines = DOCUMENTED.lines().enumerate().map(|(number, line)| {
        let Some(rest) = line.strip_prefix("# ") else { return line };
        let is_chosen = list.unwrap_or_else(|| is_commented_out(line) && choose(number));
        if rest.ends_with(" = [") {
            list = Some(is_chosen);
        } else if rest == "]" {
            list = None;
        }
        if is_chosen { rest } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The blocks of lines that show another form of a key (or a table) in place: indented, below a `#`.
fn other_forms() -> Vec<Range<usize>> {
    let lines: Vec<&str> = DOCUMENTED.lines().collect();
    let is_form = |line: &str| {
        let Some(rest) = line.strip_prefix("#   ") else { return false };
        let key = rest.split(' ').next().unwrap_or_default();
        let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        rest.starts_with('[') || (is_key && rest[key.len()..].starts_with(" = "))
    };
    let mut forms: Vec<Range<usize>> = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_form(line)) {
        match forms.last_mut() {
            Some(form) if form.end == at => form.end += 1,
            _ => {
                assert_eq!(lines[at - 1], "#", "line {}: {line}", at + 1);
                forms.push(at..at + 1);
            }
        }
    }
    forms
}

/// The file with one of these made real in the place of the key that it is another form of.
fn reformed(form: &Range<usize>) -> String {
    let key = |line: &str| line.split_once(" = ").map(|(key, _)| key.to_owned());
    let forms: Vec<&str> = DOCUMENTED.lines().skip(form.start).take(form.len()).map(|line| &line[4..]).collect();
    let plain: BTreeSet<String> =
        if forms[0].starts_with('[') { BTreeSet::new() } else { forms.iter().filter_map(|line| key(line)).collect() };
    let lines = DOCUMENTED.lines().enumerate().map(|(at, line)| match line {
        _ if form.contains(&at) => &line[4..],
        line if at < form.start && at + 12 > form.start && key(line).is_some_and(|key| plain.contains(&key)) => "",
        line => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The line at which the example routes begin.
fn example() -> usize {
    DOCUMENTED.lines().position(|line| line == "# [[route]]").expect("an example of a route")
}

fn settings(text: &str) -> Settings {
    read(&text.replace(TOKEN, &TOKEN_FILE.path().display().to_string()))
        .unwrap_or_else(|report| panic!("{text}\nrefused:\n{report}"))
}

/// The keys that the code asks for while it reads `text`.
fn asked(text: &str) -> BTreeSet<KeyPath> {
    let document = Document::parse(Path::new("a"), text.to_owned()).expect("TOML");
    let (layers, findings) = Layers::new(document, &Environment::default(), &Overrides::default());
    let reader = TreeReader::new(&layers, findings);
    let _ = sections::read(&reader.root(), |_| Vec::new(), |_| Vec::new());
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
fn every_other_form_in_the_file_is_accepted_and_shows_every_key_that_it_may_have() {
    let plain = settings(DOCUMENTED);
    let base = asked("");
    let forms = other_forms();
    assert!(forms.len() > 12, "only {} other forms found", forms.len());
    for form in &forms {
        let text = reformed(form);
        assert_ne!(settings(&text), plain, "line {} changes nothing", form.start + 1);
        // A profile's keys are explained in prose, and stand in an example.
        let more = asked(&text).into_iter().filter(|key| !base.contains(key) && !key.to_string().contains("profile"));
        let shown = &DOCUMENTED.lines().collect::<Vec<_>>()[form.clone()].join("\n");
        for key in more.filter_map(|key| key.name().map(str::to_owned)) {
            assert!(shown.contains(&format!("{key} = ")), "{key} does not stand in line {}:\n{shown}", form.start + 1);
        }
    }
}

#[test]
fn what_has_no_default_stands_in_an_example() {
    let mut shown = exemplified();
    for form in other_forms() {
        let document = Document::parse(Path::new("a"), reformed(&form)).expect("TOML");
        let mut keys = BTreeSet::new();
        leaves(&KeyPath::default(), document.values(), &mut keys);
        shown.extend(keys.iter().map(KeyPath::to_string));
    }
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
        let recognised = DETECTABLE.iter().any(|(recognisable, _)| *recognisable == builtin);
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
    assert_eq!(own, ["host", "path", "upstream"]);
    let inherited = sections.iter().filter(|key| key.starts_with("heartbeat."));
    let missing: Vec<&String> = inherited.filter(|key| !route.contains(*key)).collect();
    assert_eq!(missing, Vec::<&String>::new());

    let text = uncommented(|_| true);
    let missing = |path: &str| !text.contains(&format!("\n{path} = "));
    assert_eq!(own.into_iter().find(|key| missing(key)), None, "an example has each");
    let routes = settings(&text).routes;
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
        "/ protocol ",
        "/socket.io/ passive engine.io",
        "/reports/ protocol ",
        "/board/ answer custom",
        "/live/ protocol ",
        "/chat/ app custom",
        "/any/ auto",
        "/ protocol ",
    ];
    assert_eq!(heartbeats, expected);
    let default = routes.last().expect("the default route");
    let (own, heartbeats) = (&routes[0], &routes[1..routes.len() - 1]);
    assert!(heartbeats.iter().all(|route| route.heartbeat != default.heartbeat || route.upstream != default.upstream));
    assert_eq!(own.host.as_ref().map(ToString::to_string).as_deref(), Some("admin.app.example"));
    assert_eq!(own.upstream.to_string(), "unix:/run/admin.sock");
    assert_eq!(*own.origins, OriginPolicy::Only(vec![AllowedOrigin::SameHost]));
}
