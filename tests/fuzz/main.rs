//! The corpora of the fuzz targets, replayed: every input that a fuzzer kept, and those written by hand.
//!
//! `tests/fuzz/run` searches for new ones.

mod targets {
    pub mod config;
    pub mod engine;
    pub mod h2_guard;
    pub mod handshakes;
    pub mod json_pattern;
    pub mod proxy_header;
    pub mod relay;
    pub mod scanner;
    pub mod upgrade;
}

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A fuzz target: a function of arbitrary bytes, which panics if a property does not hold.
type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("config", targets::config::run),
    ("engine", targets::engine::run),
    ("h2_guard", targets::h2_guard::run),
    ("handshakes", targets::handshakes::run),
    ("json_pattern", targets::json_pattern::run),
    ("proxy_header", targets::proxy_header::run),
    ("relay", targets::relay::run),
    ("scanner", targets::scanner::run),
    ("upgrade", targets::upgrade::run),
];

/// The maximum number of files of one corpus, and of their bytes in total.
const FILES_MOST: usize = 200;
const BYTES_MOST: usize = 1 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Returns the files of the corpus of `name`, in order.
fn corpus(name: &str) -> Vec<PathBuf> {
    let dir = root().join("corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}

/// Runs the target `name` on each file of its corpus, and reports those that fail.
fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of that name");
    let files = corpus(name);
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    let (mut failed, mut bytes) = (Vec::new(), 0);
    for file in &files {
        let input = fs::read(file).expect("a readable file");
        bytes += input.len();
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            failed.push(file.strip_prefix(root()).expect("below the folder").display().to_string());
        }
    }
    assert!(failed.is_empty(), "{name} fails on {failed:?}");
    assert!(
        files.len() <= FILES_MOST && bytes <= BYTES_MOST,
        "{name}: {} files, {bytes} bytes; minimise it",
        files.len()
    );
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn engine() {
    replay("engine");
}

#[test]
fn h2_guard() {
    replay("h2_guard");
}

#[test]
fn handshakes() {
    replay("handshakes");
}

#[test]
fn json_pattern() {
    replay("json_pattern");
}

#[test]
fn proxy_header() {
    replay("proxy_header");
}

#[test]
fn relay() {
    replay("relay");
}

#[test]
fn scanner() {
    replay("scanner");
}

#[test]
fn upgrade() {
    replay("upgrade");
}

#[test]
fn every_target_has_a_corpus_a_binary_and_a_test_and_no_corpus_is_without_a_target() {
    let names = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(path)).expect("the folder is there");
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("bin"), targets);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is readable");
    let manifest: toml_edit::DocumentMut = manifest.parse().expect("the manifest is TOML");
    let bins = manifest["bin"].as_array_of_tables().expect("bins").iter();
    let bins: BTreeSet<String> = bins.filter_map(|bin| Some(bin["name"].as_str()?.to_owned())).collect();
    assert_eq!(bins, targets);
    let source = fs::read_to_string(root().join("main.rs")).expect("this file is readable");
    for name in &targets {
        assert!(source.contains(&format!("fn {name}()")), "no test replays {name}");
    }
}
