//! The licences of the dependencies, and the banned libraries.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::{root, spdx};

/// Licences under which a dependency may come; `.deny.toml` lists the same ones.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

#[test]
fn every_dependency_comes_under_a_permissive_licence() {
    let packages = packages();
    let refused: Vec<String> = packages
        .iter()
        .filter(|(_, licence)| !spdx::satisfied(licence, |licence| LICENCES.contains(&licence)))
        .map(|(name, licence)| format!("{name}: {licence:?}"))
        .collect();
    assert!(packages.len() > 50, "the dependencies were not found: {packages:?}");
    assert!(refused.is_empty(), "\n{}", refused.join("\n"));
}

#[test]
fn openssl_is_nowhere_among_the_dependencies() {
    let packages = packages();
    let banned = packages.iter().filter(|(name, _)| {
        let name = name.split(' ').next().unwrap_or_default();
        ["openssl", "openssl-sys", "native-tls", "boring", "boring-sys"].contains(&name)
    });
    assert_eq!(banned.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

#[test]
fn cargo_deny_has_the_same_licences() {
    let text = fs::read_to_string(root().join(".deny.toml")).expect("there is a .deny.toml");
    let table: toml_edit::DocumentMut = text.parse().expect(".deny.toml is TOML");
    let allowed = table["licenses"]["allow"].as_array().expect("licenses.allow is a list");
    let allowed: BTreeSet<_> = allowed.iter().filter_map(toml_edit::Value::as_str).collect();
    assert_eq!(allowed, LICENCES.iter().copied().collect());
}

/// Returns all packages of the lock file as `name version`, each with its licence expression.
fn packages() -> Vec<(String, String)> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--all-features"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .iter()
        .map(|package| (format!("{} {}", text(&package["name"]), text(&package["version"])), text(&package["license"])))
        .collect()
}
