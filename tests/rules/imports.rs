//! The paths that a source file names: in `use` items, in types and expressions, and inside macro calls.
//!
//! Paths are absolute: `crate::…` for the own crate, the crate's name for all others. Names that a `use` brings into
//! the file are followed; a name that is neither imported nor a crate is the module's own. Code for tests does not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, ItemUse, Lit, Macro, Meta, MetaNameValue, UseTree, Visibility};

/// One path that a file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The absolute path.
    pub(crate) path: String,
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// Set for a `pub use`, which re-exports a name.
    pub(crate) is_reexport: bool,
}

/// The paths that one file names, and the meaning of its own names.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// All paths that it names outside of tests.
    pub(crate) imports: BTreeSet<Import>,
    /// The absolute paths behind the names that `use` items bring in.
    pub(crate) names: BTreeMap<String, String>,
    /// The modules all of whose names `use` items bring in.
    pub(crate) globs: Vec<String>,
}

/// Returns the module of a file below `src`, as a path; that of `main.rs`, which is a crate of its own, is
/// `crate::main`.
pub(crate) fn module_path(file: &Path) -> String {
    let mut parts: Vec<_> = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts.insert(0, "crate".into());
    parts.join("::")
}

/// Returns the paths in `source`, the text of the module `module`. `crates` are the names of the other crates.
pub(crate) fn of(source: &str, module: &str, crates: &BTreeSet<String>) -> syn::Result<Scope> {
    let file = syn::parse_file(source)?;
    let mut uses =
        Uses { module, crates, found: Vec::new(), names: BTreeMap::new(), globs: Vec::new(), is_reexport: false };
    uses.visit_file(&file);
    let mut names = Names { uses: &uses, found: BTreeSet::new() };
    for Import { path, line, is_reexport } in &uses.found {
        names.found.insert(Import { path: uses.absolute(path), line: *line, is_reexport: *is_reexport });
    }
    names.visit_file(&file);
    Ok(Scope {
        imports: names.found,
        names: uses.names.iter().map(|(name, path)| (name.clone(), uses.absolute(path))).collect(),
        globs: uses.globs.iter().map(|path| uses.absolute(path)).collect(),
    })
}

/// Returns the Rust files below `dir` that are not for tests alone, relative to it, in order.
pub(crate) fn sources(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    walk(dir, &mut files);
    let test_only: Vec<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.retain(|file| !test_only.iter().any(|module| file.starts_with(module) || file.with_extension("") == *module));
    let relative = |file: PathBuf| file.strip_prefix(dir).expect("found below it").to_string_lossy().into_owned();
    let mut sources: Vec<String> = files.into_iter().map(relative).collect();
    sources.sort();
    sources
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the source is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
}

/// Returns the paths, without an extension, of the modules that `file` declares for tests alone.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let source = fs::read_to_string(file).expect("the source is readable");
    let parsed = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let beside = file.parent().expect("a file is in a directory");
    let is_root = file.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs" || name == "main.rs");
    let below = if is_root { beside.into() } else { file.with_extension("") };
    let modules = parsed.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && for_tests(&module.attrs) => Some(module),
        _ => None,
    });
    let place = |module: &ItemMod| match path_attribute(&module.attrs) {
        // Relative to the file, not to the module (Rust reference, "The path attribute").
        // Modules declared in `mod.rs` are in its own folder.
        Some(path) => beside.join(path.strip_suffix("/mod.rs").unwrap_or(&path)).with_extension(""),
        None => below.join(module.ident.to_string()),
    };
    modules.map(place).collect()
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("path")).find_map(|attribute| {
        let Meta::NameValue(MetaNameValue { value: Expr::Lit(ExprLit { lit: Lit::Str(path), .. }), .. }) =
            &attribute.meta
        else {
            return None;
        };
        Some(path.value())
    })
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg_test = || {
            let condition = attribute.parse_args::<TokenStream>().map(|tokens| tokens.to_string());
            condition.is_ok_and(|condition| condition == "test")
        };
        attribute.path().is_ident("test") || (attribute.path().is_ident("cfg") && is_cfg_test())
    })
}

/// First pass: the paths in `use` items, and the names that they bring in.
struct Uses<'own> {
    module: &'own str,
    crates: &'own BTreeSet<String>,
    found: Vec<Import>,
    names: BTreeMap<String, String>,
    globs: Vec<String>,
    /// Set while the visited item is a `pub use`.
    is_reexport: bool,
}

impl Uses<'_> {
    fn tree(&mut self, prefix: &str, tree: &UseTree) {
        let join = |ident: &Ident| {
            if prefix.is_empty() { ident.to_string() } else { format!("{prefix}::{ident}") }
        };
        match tree {
            UseTree::Path(path) => self.tree(&join(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(prefix, tree)),
            UseTree::Glob(glob) => self.name(None, prefix.into(), glob.star_token.spans[0]),
            UseTree::Name(name) if name.ident == "self" => {
                let own = prefix.rsplit("::").next().map(String::from);
                self.name(own, prefix.into(), name.ident.span());
            }
            UseTree::Name(name) => self.name(Some(name.ident.to_string()), join(&name.ident), name.ident.span()),
            UseTree::Rename(name) => self.name(Some(name.rename.to_string()), join(&name.ident), name.ident.span()),
        }
    }

    fn name(&mut self, name: Option<String>, path: String, span: Span) {
        match name {
            Some(name) => drop(self.names.insert(name, path.clone())),
            None => self.globs.push(path.clone()),
        }
        self.found.push(Import { path, line: span.start().line, is_reexport: self.is_reexport });
    }

    /// Returns `path` from the root of a crate, with `self`, `super` and imported names replaced.
    fn absolute(&self, path: &str) -> String {
        let mut path = path.to_owned();
        // Each step replaces one imported name; a chain of them is short, a circle does not compile.
        for _ in 0..8 {
            let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
            let Some(target) = self.names.get(first).filter(|target| **target != first) else { break };
            // `use bytes::Bytes` in a module that also names `bytes::…` must not lead to a loop.
            if target.split("::").next() == Some(first) {
                break;
            }
            path = if rest.is_empty() { target.clone() } else { format!("{target}::{rest}") };
        }
        let first = path.split("::").next().unwrap_or_default();
        if first == "crate" || self.crates.contains(first) {
            return path;
        }
        let mut module: Vec<&str> = self.module.split("::").collect();
        let mut rest = path.as_str();
        loop {
            let (first, next) = rest.split_once("::").unwrap_or((rest, ""));
            match first {
                "self" => {}
                "super" => {
                    module.pop();
                }
                _ => break,
            }
            rest = next;
        }
        module.extend(rest.split("::").filter(|part| !part.is_empty()));
        module.join("::")
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.tree("", &item.tree);
    }
}

/// Second pass: the paths in types, expressions, attributes and macro calls.
struct Names<'own> {
    uses: &'own Uses<'own>,
    found: BTreeSet<Import>,
}

impl Names<'_> {
    fn name(&mut self, path: &str, span: Span) {
        let path = self.uses.absolute(path);
        self.found.insert(Import { path, line: span.start().line, is_reexport: false });
    }

    /// Finds paths in tokens that are no syntax tree: idents joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Option<(String, Span)> = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => match &mut path {
                    Some((path, _)) if colons == 2 => path.extend(["::".to_owned(), ident.to_string()]),
                    _ => {
                        self.end(path.take());
                        path = Some((ident.to_string(), ident.span()));
                    }
                },
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.end(path.take());
                    self.tokens(group.stream());
                }
                _ => self.end(path.take()),
            }
            colons = 0;
        }
        self.end(path);
    }

    fn end(&mut self, path: Option<(String, Span)>) {
        if let Some((path, span)) = path.filter(|(path, _)| path.contains("::")) {
            self.name(&path, span);
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, _: &'ast ItemUse) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.name(&parts.join("::"), path.segments[0].ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    /// Attributes name lints and derive macros, which are no modules.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(ItemMod { attrs, .. }) | Item::Use(ItemUse { attrs, .. }) => attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        _ => &[],
    }
}
