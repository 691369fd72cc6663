//! The JSON Schema of the configuration, checked by a validator that shares no code with the program.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use pulsegate::config::{Shown, from_str_shown};
use serde_json::{Value, json};
use toml_edit::{ImDocument, Item, TableLike};

/// The keys that every configuration requires.
const REQUIRED: &str =
    "[tls]\ncertificate = \"tls.crt\"\nprivate_key = \"tls.key\"\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n";

/// A route whose app has a pinned key.
const PINNED: &str = "[[route]]\npath = \"/\"\nupstream = { url = \"https://a\", tls = { pin = \
                      \"sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\" } }\n";

/// The schema as the program prints it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO_BIN_EXE_pulsegate")).args(["config", "schema"]).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
});

/// Every configuration in the repository that the program accepts.
static ACCEPTED: LazyLock<Vec<(String, Shown)>> = LazyLock::new(|| {
    let read =
        |text: String| from_str_shown(Path::new("/tests/proxy.toml"), &text).ok().map(|(_, shown)| (text, shown));
    texts().into_iter().filter_map(read).collect()
});

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the errors of each of `instances` by the schema.
fn judge(instances: &[Value]) -> Vec<Vec<String>> {
    let python = root().join("target/libraries-venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./tests/install", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/schema/judge.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut judge = command.spawn().expect("it runs");
    let request = json!({ "schema": *SCHEMA, "instances": instances });
    judge.stdin.take().expect("piped").write_all(request.to_string().as_bytes()).expect("it reads");
    let output = judge.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn parse(text: &str) -> Value {
    table(ImDocument::parse(text).unwrap_or_else(|error| panic!("{text}\n{error}")).as_table())
}

fn table(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(key, item)| (key.to_owned(), to_json(item))).collect())
}

fn to_json(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(one) => value(one),
        Item::Table(one) => table(one),
        Item::ArrayOfTables(all) => all.iter().map(|one| table(one)).collect(),
    }
}

fn value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value::{Array, Boolean, Datetime, Float, InlineTable, Integer, String};
    match value {
        String(text) => json!(text.value()),
        Integer(number) => json!(number.value()),
        Float(number) => json!(number.value()),
        Boolean(flag) => json!(flag.value()),
        Datetime(date) => json!(date.value().to_string()),
        Array(all) => all.iter().map(self::value).collect(),
        InlineTable(one) => table(one),
    }
}

/// Returns the texts that may be configurations: the documented file as it is and with each of its comments enabled,
/// the corpus of the fuzzer, and every string in the unit tests of the configuration, alone and with the required keys.
fn texts() -> BTreeSet<String> {
    let documented = fs::read_to_string(root().join("config/proxy.toml")).expect("the documented file");
    let mut parts: BTreeSet<String> =
        documented.lines().map(|line| line.trim_start_matches(['#', ' ']).to_owned()).collect();
    let mut section = "";
    let mut texts = BTreeSet::from([documented.clone(), format!("{REQUIRED}{PINNED}")]);
    for line in documented.lines() {
        if line.starts_with('[') {
            section = line;
        }
        texts.insert(format!("{REQUIRED}{section}\n{}", line.trim_start_matches(['#', ' '])));
    }
    for file in files(&root().join("src/config/tests")) {
        let source = fs::read_to_string(&file).expect("the source is readable");
        strings(source.parse().expect("Rust"), &mut parts);
    }
    for file in files(&root().join("tests/fuzz/corpus/config")) {
        parts.extend(fs::read_to_string(file));
    }
    for part in parts {
        for section in ["listen", "upstream", "heartbeat", "limits", "origins", "forwarded", "drain", "admin", "log"] {
            texts.insert(format!("{}\n[{section}]\n{part}", REQUIRED.replace(&format!("[{section}]"), "[none]")));
        }
        texts.insert(format!("{REQUIRED}{part}"));
        texts.insert(format!("{part}\n{REQUIRED}"));
        texts.insert(part);
    }
    texts
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect()
}

/// Adds every string literal among `tokens`.
fn strings(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Literal(literal) => {
                if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                    found.insert(text.value());
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Collects the dotted paths of the leaves that `schema` describes, those in lists with `[]`.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let alternatives = schema["anyOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
    for one in alternatives {
        if let Some(keys) = one["properties"].as_object() {
            for (key, schema) in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(schema, &path, found);
            }
        } else if one["items"]["properties"].is_object() {
            leaves(&one["items"], &format!("{path}[]"), found);
        } else {
            found.insert(path.to_owned());
        }
    }
}

/// Returns the dotted paths of the keys that `config show` prints as JSON.
fn shown(object: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, entry) in object.as_object().expect("an object") {
        match entry.as_array() {
            Some(tables) => found.extend(tables.iter().flat_map(shown).map(|below| format!("{key}[].{below}"))),
            None => drop(found.insert(key.clone())),
        }
    }
    found
}

#[test]
fn every_accepted_configuration_is_valid_as_written_and_as_shown() {
    let mut accepted = Vec::new();
    for (text, shown) in &*ACCEPTED {
        accepted.extend([text.clone(), shown.to_string()]);
    }
    assert!(accepted.len() > 400, "only {}", accepted.len());
    let instances: Vec<Value> = accepted.iter().map(|text| parse(text)).collect();
    let refused = judge(&instances).into_iter().zip(&accepted).filter(|(errors, _)| !errors.is_empty());
    let refused: Vec<String> = refused.map(|(errors, text)| format!("{text}\n=> {}", errors.join("\n=> "))).collect();
    println!("{} configurations", accepted.len());
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused[..refused.len().min(8)].join("\n---\n"));
}

#[test]
fn what_the_program_refuses_by_key_or_type_is_invalid() {
    let wrong = [
        "colour = 1",
        "[limit]",
        "route = { path = \"/\" }",
        "drain = 5",
        "[listen]\naddress = 8443",
        "[listen]\naddress = \"localhost\"",
        "[listen]\nworkers = 0",
        "[listen]\nworkers = \"many\"",
        "[listen]\nproxy_protocol = \"on\"",
        "[listen]\nproxy_protocol = { trusted = [] }",
        "[listen]\nproxy_protocol = { trusted = [\"lan\"] }",
        "[listen]\nhttp2 = true",
        "[tls]\nmode = \"on\"",
        "[tls]\ncertificate = 1",
        "[tls]\nclient_auth = \"off\"",
        "[tls]\nclient_auth = { mode = \"yes\" }",
        "[tls]\nhsts = \"for ever\"",
        "[[tls.sni]]\nnames = [\"a.example\"]\ncertificate = \"a\"",
        "[[tls.sni]]\nnames = []\ncertificate = \"a\"\nprivate_key = \"b\"",
        "[upstream]\nurl = \"127.0.0.1:3000\"",
        "[upstream]\nurl = \"ws://127.0.0.1:3000\"",
        "[upstream]\nurl = \"http://127.0.0.1:3000/path\"",
        "[upstream]\nurl = \"https://a\"\ntls = { pin = [] }",
        "[upstream]\nproxy_protocol = \"v1\"",
        "[upstream]\nsource_addresses = \"127.0.0.1\"",
        "[upstream]\ntimeout = \"off\"",
        "[upstream]\nprobe = \"healthz\"",
        "[heartbeat]\nintervall = \"5s\"",
        "[heartbeat]\ninterval = 25",
        "[heartbeat]\ninterval = \"0s\"",
        "[heartbeat]\ninterval = \"25\"",
        "[heartbeat]\ninterval = \"5 parsecs\"",
        "[heartbeat]\nmode = \"ping\"",
        "[heartbeat]\nprofile = \"socket.io\"",
        "[heartbeat]\nprofile = { expect = \"a\", mask = true }",
        "[heartbeat]\nprofile = { expect = \"a\", max_len = 5000 }",
        "[heartbeat]\nmax_missed = 0",
        "[heartbeat]\njitter = 1.5",
        "[heartbeat]\nadaptive = \"yes\"",
        "[heartbeat]\non_miss.client.code = 1005",
        "[heartbeat]\non_miss.client.code = 2000",
        "[heartbeat]\non_miss.client = \"disconnect\"",
        "[heartbeat]\non_miss.upstream = \"close\"",
        "[limits]\nheaders = 5000",
        "[limits]\nheader_bytes = 100",
        "[limits]\nconnections = 0",
        "[limits]\nmemory = 0",
        "[limits]\nmemory = \"0 MiB\"",
        "[limits]\nmemory = \"1.5GiB\"",
        "[limits]\nframe = \"auto\"",
        "[origins]\nallow = [\"app.example\"]",
        "[origins]\nallow = \"same-host\"",
        "[forwarded]\nrfc7239 = 1",
        "[forwarded]\nstrip = [\"no header\"]",
        "[drain]\ncode = 1000",
        "[admin]\nsocket = \"run/admin.sock\"",
        "[admin]\nclosed_sessions = -1",
        "[log]\nformat = \"text\"",
        "[log]\nlevel = 3",
        "[otel]\nendpoint = \"https://collector:4318\"",
        "[[route]]\nhost = \"a.example\"",
        "[[route]]\npath = \"live\"",
        "[[route]]\npath = \"/\"\nworkers = 2",
        "[[route]]\npath = \"/\"\nlimits = { headers = 5 }",
        "[[route]]\npath = \"/\"\nupstream = 3000",
        "[[route]]\npath = \"/\"\nupstream = { response_timeout = 5 }",
        "[[route]]\npath = \"/\"\nhost = \"https://a.example\"",
        "[[route]]\npath = \"/\"\nheartbeat.timeout = true",
    ];
    for text in wrong {
        let has = |section: &str| text.starts_with(section);
        let rest = if has("[tls]") || has("[upstream]") { "" } else { REQUIRED };
        assert!(from_str_shown(Path::new("a"), &format!("{text}\n{rest}")).is_err(), "the program accepts {text}");
    }
    let instances: Vec<Value> = wrong.iter().map(|text| parse(text)).collect();
    let valid: Vec<&str> =
        judge(&instances).iter().zip(wrong).filter(|(errors, _)| errors.is_empty()).map(|(_, text)| text).collect();
    assert!(valid.is_empty(), "valid:\n{}", valid.join("\n---\n"));
}

#[test]
fn every_key_that_is_shown_is_described_and_no_other() {
    let mut described = BTreeSet::new();
    leaves(&SCHEMA, "", &mut described);
    let all: BTreeSet<String> = ACCEPTED.iter().flat_map(|(_, as_shown)| shown(&as_shown.json())).collect();
    let all: BTreeSet<String> = all.into_iter().filter(|key| key != "route" && key != "tls.sni").collect();
    assert_eq!(all.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new(), "not described");
    // A URL in the place of a route's table is shown as the table's key.
    let missing: Vec<&String> = described.difference(&all).filter(|key| *key != "route[].upstream").collect();
    assert_eq!(missing, Vec::<&String>::new(), "never shown");
}

#[test]
fn every_key_has_a_description_and_every_default_is_the_documented_one() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        let alternatives = schema["anyOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
        for one in alternatives.iter().flat_map(|one| [one, &one["items"]]) {
            for (key, schema) in one["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{key}");
                if !schema["properties"].is_object() && schema["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undescribed(schema, &path, found);
            }
        }
    }
    fn are_equal(one: &Value, other: &Value) -> bool {
        // "1m" equals "60s".
        let duration = |value: &Value| humantime::parse_duration(value.as_str()?).ok();
        one == other || duration(one).is_some_and(|one| duration(other) == Some(one))
    }
    fn differing(schema: &Value, defaults: &Value, path: &str, found: &mut Vec<String>) {
        for (key, value) in defaults.as_object().expect("a table") {
            let (schema, path) = (&schema["properties"][key], format!("{path}.{key}"));
            if schema["properties"].is_object() {
                differing(schema, value, &path, found);
            } else if let Some(default) = schema.get("default").filter(|default| !are_equal(default, value)) {
                found.push(format!("{path}: {default}, documented {value}"));
            }
        }
    }
    let mut missing = Vec::new();
    undescribed(&SCHEMA, "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
    for section in ["heartbeat", "origins", "drain", "log", "route"] {
        assert!(SCHEMA["properties"][section]["description"].is_string(), "{section} has none");
    }

    // The documented file with its commented defaults, but for the examples of routes.
    let documented = fs::read_to_string(root().join("config/proxy.toml")).expect("the documented file");
    let (documented, _) = documented.split_once("\n# Routes.").expect("examples of routes");
    let is_key =
        |key: &str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte));
    let mut in_list = false;
    let lines = documented.lines().map(|line| {
        let Some(rest) = line.strip_prefix("# ") else { return line };
        let is_default = in_list || rest.split_once(" = ").is_some_and(|(key, _)| is_key(key));
        in_list = is_default && (in_list || rest.ends_with(" = [")) && rest != "]";
        if is_default { rest } else { line }
    });
    let defaults = parse(&lines.collect::<Vec<_>>().join("\n"));
    let mut wrong = Vec::new();
    differing(&SCHEMA, &defaults, "", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(defaults["drain"]["delay"], "5s");
    assert_eq!(SCHEMA["properties"]["listen"]["properties"]["workers"]["default"], "auto");
}

#[test]
fn the_schema_marks_the_keys_that_need_a_restart() {
    let described = |section: &str, key: &str| {
        let text = &SCHEMA["properties"][section]["properties"][key]["description"];
        text.as_str().unwrap_or_default().ends_with("A change takes effect at the next start.")
    };
    let at_start = ["listen.address", "tls.mode", "log.format", "admin.socket", "otel.endpoint"];
    for (section, key) in at_start.iter().filter_map(|path| path.split_once('.')) {
        assert!(described(section, key), "{section}.{key}");
    }
    for (section, key) in [("log", "level"), ("drain", "delay"), ("heartbeat", "interval")] {
        assert!(!described(section, key), "{section}.{key}");
    }
}
