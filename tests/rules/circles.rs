//! Rule 8: no circle of imports between the files of `src`, of any length.
//!
//! An edge leads from a file to each file that defines a name which it imports: re-exports are followed to the definition.
//! Neither `mod child;` nor `pub use child::Name` is an import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::imports::{self, Scope};
use crate::{crates, root};

/// The files of a crate.
#[derive(Default)]
struct Files {
    modules: BTreeMap<String, Module>,
}

/// One file.
struct Module {
    file: String,
    scope: Scope,
}

/// The names for which a file imports another, by both files.
type Edges = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

impl Files {
    /// Reads `(path, text)` of each file; paths are relative to the crate's root.
    fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let crates = crates();
        let modules = files.into_iter().map(|(file, text)| {
            let module = imports::module_path(Path::new(file));
            let scope = imports::of(text, &module, &crates).unwrap_or_else(|error| panic!("{file}: {error}"));
            (module, Module { file: file.to_owned(), scope })
        });
        Self { modules: modules.collect() }
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for Module { file, scope } in self.modules.values() {
            for import in scope.imports.iter().filter(|import| !import.is_reexport) {
                if let Some((target, name)) = self.definition(&import.path, 0)
                    && target != file
                {
                    let targets = edges.entry(file.clone()).or_default();
                    targets.entry(target.to_owned()).or_default().insert(name);
                }
            }
        }
        edges
    }

    /// Returns the file that defines the item at `path`, and its name there; `None` for an item of another crate, and
    /// for a module alone, whose names follow when they are used.
    fn definition(&self, path: &str, depth: usize) -> Option<(&str, String)> {
        let parts: Vec<&str> = path.split("::").collect();
        let (module, rest) = (1..=parts.len())
            .rev()
            .find_map(|len| Some((self.modules.get(&parts[..len].join("::"))?, &parts[len..])))?;
        let [name, rest @ ..] = rest else { return None };
        let behind = |path: &str| [path].iter().chain(rest).copied().collect::<Vec<_>>().join("::");
        // A chain of re-exports is short; a circle of them does not compile.
        if depth < 8 {
            if let Some(path) = module.scope.names.get(*name) {
                return self.definition(&behind(path), depth + 1);
            }
            let globs = module.scope.globs.iter().filter_map(|glob| Some((glob, self.modules.get(glob)?)));
            if let Some((glob, _)) = globs.into_iter().find(|(_, of)| of.scope.names.contains_key(*name)) {
                return self.definition(&behind(&format!("{glob}::{name}")), depth + 1);
            }
        }
        Some((&module.file, (*name).to_owned()))
    }
}

/// Returns, for each file on a circle that no other circle has shown, the shortest one through it.
fn circles(edges: &Edges) -> Vec<String> {
    let mut found = Vec::new();
    let mut shown = BTreeSet::new();
    for start in edges.keys() {
        if shown.contains(start.as_str()) {
            continue;
        }
        let Some(circle) = shortest_circle(edges, start) else { continue };
        shown.extend(circle.iter().copied());
        let steps = circle.iter().zip(circle.iter().cycle().skip(1)).map(|(from, to)| {
            let names: Vec<&str> = edges[*from][*to].iter().map(String::as_str).collect();
            format!(" → {to} ({})", names.join(", "))
        });
        found.push([start.clone()].into_iter().chain(steps).collect::<String>());
    }
    found
}

/// Returns the files of the shortest circle through `start`, beginning there.
fn shortest_circle<'a>(edges: &'a Edges, start: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from = BTreeMap::<&str, &str>::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for file in front {
            for target in edges.get(file).into_iter().flat_map(BTreeMap::keys).map(String::as_str) {
                if target == start {
                    let mut circle = vec![file];
                    while let Some(before) = circle.last().and_then(|file| came_from.get(file)) {
                        circle.push(before);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(target) {
                    came_from.insert(target, file);
                    next.push(target);
                }
            }
        }
        front = next;
    }
    None
}

#[test]
fn no_circle_of_imports_in_the_source() {
    let src = root().join("src");
    let read = |file: String| (fs::read_to_string(src.join(&file)).expect("the source is readable"), file);
    let files: Vec<(String, String)> = imports::sources(&src).into_iter().map(read).collect();
    let edges = Files::read(files.iter().map(|(text, file)| (&**file, &**text))).edges();
    assert!(edges.len() > 100, "the imports were not found: {}", edges.len());
    let found = circles(&edges);
    assert!(found.is_empty(), "rule 8: no circle of imports\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_printed_with_the_names_that_make_it() {
    let found = |files: &[(&str, &str)]| circles(&Files::read(files.iter().copied()).edges());
    let two = [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::{A, Other};")];
    assert_eq!(found(&two), ["a.rs → b.rs (B) → a.rs (A, Other)"]);
    let three =
        [("a.rs", "fn f() { crate::b::f() }"), ("b.rs", "use super::c::C;"), ("c.rs", "fn f(_: crate::a::A) {}")];
    assert_eq!(found(&three), ["a.rs → b.rs (f) → c.rs (C) → a.rs (A)"]);
    // A parent that calls its child, which takes a type from it; through a re-export, too.
    let parent = [("a.rs", "mod b;\nstruct A;\nfn f() { b::f() }"), ("a/b.rs", "use super::A;")];
    assert_eq!(found(&parent), ["a.rs → a/b.rs (f) → a.rs (A)"]);
    let passed_on = [
        ("a.rs", "mod b;\nmod c;\npub use c::C;"),
        ("a/b.rs", "use super::C;\nstruct B;"),
        ("a/c.rs", "use crate::a::b::B as It;\nstruct C;"),
    ];
    assert_eq!(found(&passed_on), ["a/b.rs → a/c.rs (C) → a/b.rs (B)"]);
}

#[test]
fn declarations_and_re_exports_make_no_circle() {
    let files = [
        ("lib.rs", "pub mod a;\npub mod d;"),
        ("a.rs", "mod b;\nmod c;\npub use b::B;\npub use c::*;"),
        ("a/b.rs", "use super::C;\nstruct B;\n#[cfg(test)]\nmod tests { use crate::d::D; }"),
        ("a/c.rs", "struct C;"),
        ("d.rs", "use crate::a::{self, B};\nfn f() { a::B::new() }\nstruct D;"),
    ];
    let edges = Files::read(files).edges();
    assert_eq!(circles(&edges), Vec::<String>::new(), "{edges:?}");
}
