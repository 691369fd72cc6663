//! The rules of the code base that a compiler does not check: the imports that a module may have, the place of each
//! file, and the licences of the dependencies.

mod circles;
mod imports;
mod licences;
mod spdx;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::Import;

/// A rule of dependency: the imports that a source file may not have.
struct Rule {
    /// Its number in ARCHITECTURE.md, and its text.
    says: &'static str,
    /// Returns whether this import, in the file with this module path, breaks it.
    breaks: fn(module: &str, import: &str) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        says: "1: ws and heartbeat import std, bytes and tungstenite's frame types at most; heartbeat also memchr and serde_json",
        breaks: |module, import| {
            let pure = ["std", "core", "alloc", "bytes", FRAME_TYPES, "crate::ws", "crate::heartbeat"];
            // Heartbeats may be JSON; a search and a parser are functions of bytes like the rest.
            let json = within_any(module, &["crate::heartbeat"]) && within_any(import, &["memchr", "serde_json"]);
            within_any(module, &["crate::ws", "crate::heartbeat"]) && !within_any(import, &pure) && !json
        },
    },
    Rule {
        says: "1: in ws and heartbeat, time and nonces are arguments",
        breaks: |module, import| {
            let world = [
                "std::time::Instant::now",
                "std::time::SystemTime",
                "std::thread",
                "std::net",
                "std::fs",
                "std::io::stdout",
                "std::io::stderr",
            ];
            within_any(module, &["crate::ws", "crate::heartbeat"]) && within_any(import, &world)
        },
    },
    Rule {
        says: "2: config names heartbeat's and ws' types, platform's facilities and nothing else of this crate",
        breaks: |module, import| {
            let allowed = ["crate::config", "crate::heartbeat", "crate::ws", "crate::platform"];
            within(module, "crate::config") && within(import, "crate") && !within_any(import, &allowed)
        },
    },
    Rule {
        says: "2: figment and the raw types stay inside config",
        breaks: |module, import| {
            !within(module, "crate::config") && within_any(import, &["figment", "crate::config::raw"])
        },
    },
    Rule {
        says: "3: a stage never imports an earlier stage; it is handed the next one",
        breaks: |module, import| {
            let stage = |path| STAGES.iter().position(|stage| within(path, stage));
            matches!((stage(module), stage(import)), (Some(own), Some(other)) if other < own)
        },
    },
    Rule {
        says: "4: relay is generic over its byte streams: no hyper, no rustls, no tokio::net",
        breaks: |module, import| {
            let streams = ["hyper", "hyper_util", "http_body_util", "rustls", "tokio_rustls", "tokio::net", "std::net"];
            within(module, "crate::relay") && within_any(import, &streams)
        },
    },
    Rule {
        says: "5: rustls only in tls and upstream",
        breaks: |module, import| {
            !within_any(module, &["crate::tls", "crate::upstream"])
                && within_any(import, &["rustls", "tokio_rustls", "rustls_native_certs", "rustls_pki_types"])
        },
    },
    Rule {
        says: "5: hyper only in http, redirect, upgrade, upstream, admin, cli/remote, acme/http_client and telemetry/otel",
        breaks: |module, import| {
            let speaks = [
                "crate::http",
                "crate::redirect",
                "crate::upgrade",
                "crate::upstream",
                "crate::admin",
                "crate::cli::remote",
                // The client of an authority: one request for a connection, under its own bounds.
                "crate::acme::http_client",
                "crate::telemetry::otel",
            ];
            !within_any(module, &speaks) && within_any(import, &["hyper", "hyper_util"])
        },
    },
    Rule {
        says: "5: h2 only in http and upgrade",
        breaks: |module, import| !within_any(module, &["crate::http", "crate::upgrade"]) && within(import, "h2"),
    },
    Rule {
        says: "5: opentelemetry only in telemetry/otel",
        breaks: |module, import| {
            let crates = ["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp", "opentelemetry_http"];
            !within(module, "crate::telemetry::otel") && within_any(import, &crates)
        },
    },
    Rule {
        says: "6: tasks are spawned through the task tracker",
        breaks: |_, import| {
            within_any(
                import,
                &["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local", "tokio::task::JoinSet"],
            )
        },
    },
    Rule {
        says: "6: signals only in drain",
        breaks: |module, import| !within(module, "crate::drain") && within(import, "tokio::signal"),
    },
    Rule {
        // `dev` may run tools of the system to their end.
        says: "6: programs are started only in child, which leaves none behind",
        breaks: |module, import| {
            !within_any(module, &["crate::child", "crate::cli::dev"])
                && within_any(import, &["std::process::Command", "tokio::process"])
        },
    },
    Rule {
        says: "6: the environment only in config",
        breaks: |module, import| {
            let reads = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"];
            let named = import.strip_prefix("std::env::").is_some_and(|name| reads.contains(&name));
            !within(module, "crate::config") && (named || within(import, "figment::providers::Env"))
        },
    },
    Rule {
        says: "6: exit only in main",
        breaks: |module, import| module != MAIN && within_any(import, &["std::process::exit", "std::process::abort"]),
    },
    Rule {
        says: "6: a wait for a peer is bounded through suspension, which allows for pauses of the process",
        breaks: |module, import| {
            let stages =
                ["crate::accept", "crate::tls", "crate::http", "crate::upstream", "crate::redirect", "crate::admin"];
            let timers = ["tokio::time::timeout", "tokio::time::timeout_at", "hyper_util::rt::TokioTimer"];
            within_any(module, &stages) && within_any(import, &timers)
        },
    },
    Rule {
        says: "7: nothing but server imports admin",
        breaks: |module, import| {
            !within_any(module, &["crate::server", "crate::admin"]) && within(import, "crate::admin")
        },
    },
    Rule {
        says: "9: session imports ws, heartbeat, config's route and std only",
        breaks: |module, import| {
            let below = ["std", "crate::session", "crate::ws", "crate::heartbeat", "crate::config::Route"];
            within(module, "crate::session") && !within_any(import, &below)
        },
    },
    Rule {
        says: "10: platform imports no other room",
        breaks: |module, import| {
            within(module, "crate::platform") && within(import, "crate") && !within(import, "crate::platform")
        },
    },
    Rule {
        says: "10: libc, procfs, and what rustix has for Linux alone, only in platform",
        breaks: |module, import| {
            let linux = ["libc", "procfs", "rustix::fs::inotify", "rustix::thread", "rustix::io::ioctl_fionread"];
            !within(module, "crate::platform") && within_any(import, &linux)
        },
    },
    Rule {
        says: "11: inject reads and writes nothing: text in, text out",
        breaks: |module, import| {
            let world =
                ["std::fs", "std::io", "std::env", "std::net", "std::process", "std::time::SystemTime", "tokio"];
            within(module, "crate::inject") && within_any(import, &world)
        },
    },
];

/// The path of a connection, first stage first.
const STAGES: &[&str] = &["crate::accept", "crate::tls", "crate::http", "crate::upgrade", "crate::relay"];
/// The module in which tungstenite keeps them.
const FRAME_TYPES: &str = "tokio_tungstenite::tungstenite::protocol::frame";
/// The module path of `src/main.rs`.
const MAIN: &str = "crate::main";

fn within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn within_any(path: &str, modules: &[&str]) -> bool {
    modules.iter().any(|module| within(path, module))
}

/// Returns `file:line: import: rule` for every break in one file.
fn breaks(file: &str, source: &str) -> Vec<String> {
    let module = imports::module_path(Path::new(file));
    let imports = imports::of(source, &module, &crates()).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut found = Vec::new();
    for Import { path, line, .. } in imports.imports {
        let broken = RULES.iter().filter(|rule| (rule.breaks)(&module, &path));
        found.extend(broken.map(|rule| format!("src/{file}:{line}: {path}: rule {}", rule.says)));
    }
    found
}

/// Returns the names by which the source may refer to other crates.
fn crates() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is readable");
    let manifest: toml_edit::DocumentMut = manifest.parse().expect("the manifest is TOML");
    let sections = ["dependencies", "dev-dependencies"].map(|section| manifest[section].as_table().expect("a table"));
    let linux = manifest["target"]["cfg(target_os = \"linux\")"]["dependencies"].as_table().expect("a table");
    let sections = sections.into_iter().chain([linux]);
    let names = sections.flat_map(|section| section.iter()).map(|(name, _)| name.replace('-', "_"));
    names.chain(["std", "core", "alloc"].map(String::from)).collect()
}

#[test]
fn the_source_keeps_the_rules_of_dependency() {
    let mut found = Vec::new();
    let mut seen = 0;
    for file in imports::sources(&root().join("src")) {
        let source = fs::read_to_string(root().join("src").join(&file)).expect("the source is readable");
        found.extend(breaks(&file, &source));
        seen += 1;
    }
    assert!(seen > 5, "the source was not found");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn each_rule_is_broken_by_its_own_sample() {
    let samples: &[(&str, &str, &str)] = &[
        ("ws/scanner.rs", "use tokio::io::AsyncRead;", "1"),
        ("ws/mod.rs", "fn f() { tracing::info!(\"x\"); }", "1"),
        ("heartbeat/engine.rs", "use std::time::Instant;\nfn f() -> Instant { Instant::now() }", "1"),
        ("heartbeat/engine.rs", "use crate::config::Settings;", "1"),
        ("heartbeat/engine.rs", "use super::super::config;", "1"),
        ("config/load.rs", "use crate::server;", "2"),
        ("server.rs", "use figment::Figment;", "2"),
        ("server.rs", "use crate::config::{Settings, raw::Raw};", "2"),
        ("relay/pump.rs", "fn f(_: crate::upgrade::Session) {}", "3"),
        ("http/serve.rs", "use super::super::accept::Accept;", "3"),
        ("upgrade.rs", "use crate as us;\nuse us::http::route;", "3"),
        ("relay/mod.rs", "use tokio::{io, net::TcpStream};", "4"),
        ("relay/mod.rs", "use tokio as t;\nfn f(_: t::net::TcpStream) {}", "4"),
        ("server.rs", "use rustls::ServerConfig;", "5"),
        ("relay/mod.rs", "use hyper::upgrade::Upgraded;", "5"),
        ("cli/top.rs", "use hyper::body::Incoming;", "5"),
        ("relay/mod.rs", "fn f(_: h2::Reason) {}", "5"),
        ("http/switch.rs", "use opentelemetry::trace::Tracer;", "5"),
        ("accept.rs", "fn f() { tokio::spawn(async {}); }", "6"),
        ("accept.rs", "use tokio::spawn;", "6"),
        ("accept.rs", "async fn f() { tokio::select! { _ = tokio::task::spawn(g()) => {} } }", "6"),
        ("server.rs", "use tokio::signal::unix::signal;", "6"),
        ("server.rs", "use std::process::{self, Command};", "6"),
        ("cli/dev.rs", "use std::env;\nfn f() { env::var(\"X\"); }", "6"),
        ("cli/dev.rs", "use std::process;\nfn f() { process::exit(1) }", "6"),
        ("upstream/dial.rs", "use tokio::time::{Instant, timeout_at};", "6"),
        ("http/linger.rs", "async fn f() { tokio::time::timeout(D, g()).await; }", "6"),
        ("admin/serve.rs", "use hyper_util::rt::{TokioIo, TokioTimer};", "6"),
        ("http/mod.rs", "use crate::admin::Api;", "7"),
        ("session/facts.rs", "use crate::config::Settings;", "9"),
        ("session.rs", "use crate::relay::Order;", "9"),
        ("platform/listeners.rs", "use crate::config::Settings;", "10"),
        ("tls/stream.rs", "fn f() -> i32 { libc::EAGAIN }", "10"),
        ("child/readiness.rs", "use procfs::net::tcp;", "10"),
        ("inject/pod.rs", "use std::fs;", "11"),
    ];
    for (file, source, number) in samples {
        let found = breaks(file, source);
        let expected = format!("rule {number}:");
        assert!(found.iter().any(|found| found.contains(&expected)), "{file} {source:?}: {found:?}");
    }
    let line = breaks("ws/mod.rs", "//! x\n\nuse std::fmt;\nuse hyper::Uri;\n");
    assert!(line[0].starts_with("src/ws/mod.rs:4: hyper::Uri: rule 1:"), "{line:?}");
}

#[test]
fn what_the_rules_allow_is_not_reported() {
    let samples: &[(&str, &str)] = &[
        (
            "ws/scanner.rs",
            "use std::fmt;\nuse bytes::Bytes;\nuse super::Header;\nfn f() -> Kind { Kind::Text }\nenum Kind { Text }",
        ),
        ("ws/close.rs", "use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;"),
        ("ws/mod.rs", "mod bytes_seen {}\nuse bytes_seen as b;"),
        ("heartbeat/engine.rs", "use std::time::Instant;\nfn f(now: Instant) -> Instant { now }"),
        (
            "heartbeat/engine.rs",
            "#[cfg(test)]\nmod tests { use proptest::prelude::*; fn f() { std::time::Instant::now(); } }",
        ),
        ("config/load.rs", "use figment::providers::Env;\nuse crate::heartbeat::Policy;\nuse super::raw::Raw;"),
        ("http/mod.rs", "use crate::upgrade;\nuse hyper::body::Incoming;"),
        ("platform/listeners/linux.rs", "use super::socket;\nuse crate::platform::linux_calls;\nuse libc::c_int;"),
        ("cli/remote/wire.rs", "use hyper::client::conn::http1;"),
        ("upstream/mod.rs", "use rustls::ClientConfig;\nuse tokio::net::TcpStream;"),
        ("drain.rs", "use tokio::signal::unix::signal;"),
        ("http/mod.rs", "use crate::suspension::timeout;\nuse tokio::time::{Instant, sleep};"),
        ("main.rs", "fn main() { std::process::exit(0) }"),
        ("cli/mod.rs", "use std::env;\nfn f() { env::args(); }"),
        (
            "server.rs",
            "use crate::admin;\nuse tokio_util::task::TaskTracker;\nfn f(t: TaskTracker) { t.spawn(async {}); }",
        ),
    ];
    for (file, source) in samples {
        assert_eq!(breaks(file, source), Vec::<String>::new(), "{file} {source:?}");
    }
}

/// Returns `line: text` for every place in `source` where a log line has an error without its causes.
fn errors_without_causes(source: &str) -> Vec<String> {
    let without = |line: &str| {
        let field = line.split_once("error = ").map(|(_, value)| value);
        let is_bare = line.contains("%error") || line.contains("?error");
        is_bare
            || field.is_some_and(|value| value.starts_with('%') && !value.starts_with("%Chain("))
            || field.is_some_and(|value| value.contains("dyn Error") || value.contains("dyn std::error::Error"))
    };
    let lines = source.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.starts_with("//") && without(line));
    lines.map(|(line, number)| format!("{number}: {line}")).collect()
}

#[test]
fn an_error_in_a_log_line_has_its_causes() {
    let root = root().join("src");
    // `config` may not import the type, and logs an error of the system alone, which has no causes.
    let files = imports::sources(&root).into_iter().filter(|file| !file.starts_with("config/"));
    let found: Vec<_> = files
        .flat_map(|file| {
            let source = fs::read_to_string(root.join(&file)).expect("the source is readable");
            errors_without_causes(&source).into_iter().map(move |found| format!("src/{file}:{found}"))
        })
        .collect();
    assert!(found.is_empty(), "write `error = %Chain(&error)`:\n{}", found.join("\n"));
    for bare in ["warn!(%error, \"x\");", "warn!(error = %error);", "debug!(error = &e as &dyn std::error::Error)"] {
        assert_eq!(errors_without_causes(bare).len(), 1, "{bare}");
    }
    assert_eq!(
        errors_without_causes("warn!(error = %Chain(&error), \"x\");\nlet error = parse();"),
        Vec::<String>::new()
    );
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_no_source() {
    let dir = tempfile::TempDir::new().expect("make a temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("in the directory")).expect("make a directory");
        fs::write(path, text).expect("write a file");
    };
    write("lib.rs", "pub mod ws;");
    write("ws/mod.rs", "mod scanner;\n#[cfg(test)]\nmod tests;");
    write("ws/tests.rs", "use proptest::prelude::*;");
    write("ws/scanner.rs", "#[cfg(test)]\nmod model;\n#[cfg(test)]\n#[path = \"scanner_tests.rs\"]\nmod tests;");
    write("ws/scanner_tests.rs", "use proptest::prelude::*;");
    write("heartbeat.rs", "#[cfg(test)]\n#[path = \"heartbeat/tests/mod.rs\"]\nmod tests;");
    write("heartbeat/tests/mod.rs", "mod model;");
    write("heartbeat/tests/model.rs", "use proptest::prelude::*;");
    write("ws/scanner/model.rs", "use rand::random;");
    assert_eq!(imports::sources(dir.path()), ["heartbeat.rs", "lib.rs", "ws/mod.rs", "ws/scanner.rs"]);
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    let names = tracked("").iter().map(|path| first_part(path)).collect::<BTreeSet<_>>();
    let known = ["Cargo.toml", "Cargo.lock", "src", "config", "tests", "deploy"];
    let papers = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let others = names.iter().filter(|name| {
        let other = name.starts_with("LICENSE") || name.starts_with('.');
        !(known.contains(&name.as_str()) || papers.contains(&name.as_str()) || other)
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(names.contains("src") && names.contains("Cargo.toml"), "{names:?}");
}

#[test]
fn the_source_tree_is_the_one_that_is_documented() {
    let room = |path: &String| first_part(&path["src/".len()..]).trim_end_matches(".rs").to_owned();
    let rooms: BTreeSet<String> = tracked("src/").iter().map(room).collect();
    let paper = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the paper is readable");
    let map = paper.split("\n## Code map\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a code map");
    let rows = map.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    // In the first column, every second part between backquotes is a name.
    let names = rows.flat_map(|cell| cell.split('`').step_by(2).map(|name| name.trim_end_matches('/').to_owned()));
    let documented: BTreeSet<String> = names.chain(["lib".to_owned()]).filter(|name| !name.is_empty()).collect();
    assert_eq!(rooms, documented, "the rooms of src (left), and those of the code map in ARCHITECTURE.md");
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    for path in tracked("src/").into_iter().filter(|path| Path::new(path).extension().is_some_and(|kind| kind == "rs"))
    {
        let source = fs::read_to_string(root().join(&path)).expect("the source is readable");
        let lines = source.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let apart = path.contains("test");
        assert!(apart || lines <= 500, "{path} has {lines} lines before its tests");
    }
}

#[test]
fn tests_share_code_through_the_kit_alone() {
    // The fuzz targets are programs of a workspace of its own.
    let is_source = |path: &String| Path::new(path).extension().is_some_and(|kind| kind == "rs");
    let files = tracked("tests/").into_iter().filter(is_source).filter(|path| !path.starts_with("tests/fuzz/bin"));
    let mut found = Vec::new();
    for file in files {
        let source = fs::read_to_string(root().join(&file)).expect("the test is readable");
        for (number, line) in source.lines().map(str::trim_start).enumerate() {
            let is_shared = line.starts_with("#[path = \"../");
            let is_dead = line.starts_with('#') && line.contains("(dead_code");
            if is_shared || is_dead {
                found.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "move what tests share to tests/kit:\n{}", found.join("\n"));
}

#[test]
fn judges_of_the_program_share_no_code_with_it() {
    for judge in ["kit", "load", "torture"] {
        let manifest = root().join(format!("tests/{judge}/Cargo.toml"));
        let manifest = fs::read_to_string(manifest).expect("the manifest is readable");
        let manifest: toml_edit::DocumentMut = manifest.parse().expect("the manifest is TOML");
        let sections =
            ["dependencies", "dev-dependencies"].into_iter().filter_map(|name| manifest.get(name)?.as_table());
        let mut names = sections.flat_map(|section| section.iter().map(|(name, _)| name));
        assert!(names.all(|name| name != "pulsegate"), "tests/{judge} depends on the program that it judges");
    }
}

/// The scenarios of the heartbeat are numbered from 1 to this.
const SCENARIOS: usize = 82;

#[test]
fn every_scenario_has_a_test_and_every_test_of_one_its_sentence() {
    let listed = fs::read_to_string(root().join("tests/scenarios.txt")).expect("the list of scenarios is readable");
    let numbers: Vec<_> = listed.lines().filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).collect();
    assert_eq!(numbers, (1..=SCENARIOS).collect::<Vec<_>>(), "tests/scenarios.txt lists each scenario once, in order");
    let output = Command::new(root().join("tests/scenarios")).output().expect("tests/scenarios runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let without_test = lines.windows(2).filter(|two| two[1].trim() == "no test").map(|two| two[0]);
    let without_sentence =
        lines.windows(2).filter(|two| two[0].ends_with("not in tests/scenarios.txt")).map(|two| two[1]);
    let wrong: Vec<&str> = without_test.chain(without_sentence).collect();
    assert!(output.status.success(), "{:?}; without a test or a sentence:\n{}", lines.last(), wrong.join("\n"));
}

#[test]
fn a_scenario_lists_its_sentence_and_its_tests() {
    let listed = |argument: &str| {
        let output = Command::new(root().join("tests/scenarios")).arg(argument).output().expect("tests/scenarios runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = listed("s40_five_thousand_sessions_are_told_1012_over_the_window");
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("40  ")), "{text}");
    let tests: Vec<&str> = lines.map(str::trim).collect();
    assert!(tests.iter().all(|test| test.contains(".rs::s40_")) && !tests.is_empty(), "{text}");
    assert_eq!(listed("40"), text);
}

/// Returns the files below `under` that git tracks or would track; in an archive without git, those that exist.
fn tracked(under: &str) -> Vec<String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "."]).current_dir(root().join(under));
    match command.output() {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8(output.stdout).expect("file names are UTF-8");
            let listed = listed.lines().map(|path| format!("{under}{path}"));
            // A file that was deleted and not yet committed is listed still.
            listed.filter(|path| root().join(path).exists()).collect()
        }
        _ => {
            let entries = fs::read_dir(root().join(under)).expect("the directory is readable").flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| name != "target").map(|name| format!("{under}{name}")).collect()
        }
    }
}

fn first_part(path: &str) -> String {
    path.split('/').next().unwrap_or_default().to_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
