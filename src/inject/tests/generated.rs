//! Compiled under `#[cfg(test)]` only.
//!
//! Generated manifests: any style, any comments, any extras.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::tree::{YamlNode, parse};
use super::{injected, options};

/// The style of a manifest.
#[derive(Clone, Debug)]
struct Style {
    step: usize,
    dash: usize,
    item: usize,
    ending: &'static str,
    /// Comments and empty lines that are sprinkled in, one of them before each line in turn.
    noise: Vec<&'static str>,
    /// The last line has no end.
    is_open: bool,
    bom: bool,
}

fn style() -> impl Strategy<Value = Style> {
    let noise = vec(select(vec!["", "", "", "\n", "# ä 🎲\n", "        # deep\n", "   # - x: y\n", "\n\n"]), 1..9);
    (
        select(vec![2, 3, 4]),
        select(vec![0, 1, 2]),
        select(vec![2, 3, 4]),
        select(vec!["\n", "\r\n"]),
        noise,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(step, dash, item, ending, noise, is_open, bom)| Style {
            step,
            dash,
            item,
            ending,
            noise,
            is_open,
            bom,
        })
}

/// Extra lines of a mapping, of which `{i}` is the indentation below it.
fn extras(keys: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(keys.to_vec(), 0..=keys.len()).prop_shuffle()
}

const ROOT: &[&str] = &[
    "x-note: 'it''s'",
    "x-text: |\n{i}a\n\n{i} b\n",
    "x-keep: |+\n{i}c\n\n",
    "x-fold: >-\n{i}d\n{i}e",
    "x-flow: {a: [b, \"c\\\n{i}d\"]}",
    "x-null:",
];
const METADATA: &[&str] =
    &["labels:\n{i}app: a", "annotations: {}", "annotations:\n{i}b: \"1\" # c", "x-plain: one\n{i}two"];
const POD: &[&str] = &[
    "securityContext: {}",
    "securityContext:\n{i}runAsUser: 1 # x",
    "terminationGracePeriodSeconds: 45 # why",
    "terminationGracePeriodSeconds: null",
    "volumes: []",
    "volumes:\n- name: v\n  emptyDir: {}",
    "initContainers:\n- name: migrate\n  command: [a]",
    "initContainers:\n- name: s\n  restartPolicy: Always\n# mid\n- name: m",
    "dnsPolicy: \"Default\"",
    "hostAliases:\n- ip: &ip 127.0.0.1\n  hostnames: [*ip]",
];
const CONTAINER: &[&str] = &[
    "lifecycle: {}",
    "lifecycle:\n{i}postStart: {exec: {command: [a]}}",
    "lifecycle:\n{i}preStop:\n{i}{i}sleep: \n{i}{i}{i}seconds: 3",
    "args:\n- |\n  x\n\n",
    "env: []",
    "image: 'x'",
];

/// A manifest as lines of a key's level and text.
#[derive(Clone, Debug)]
struct Manifest {
    style: Style,
    kind: &'static str,
    parts: [Vec<&'static str>; 4],
    is_listed: bool,
    /// The lines of the ports of a Service in front.
    service: Option<&'static str>,
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let service = select(vec![
        None,
        Some("- port: 80\n  targetPort: 3000 # the app"),
        Some("- name: a\n  port: 3000\n\n- {name: b, port: 1}"),
    ]);
    let kind = select(vec!["Deployment", "StatefulSet", "Pod"]);
    let parts = (extras(ROOT), extras(METADATA), extras(POD), extras(CONTAINER));
    (style(), kind, parts, any::<bool>(), service).prop_map(
        |(style, kind, (root, metadata, pod, container), is_listed, service)| Manifest {
            style,
            kind,
            parts: [root, metadata, pod, container].map(unique),
            is_listed,
            service,
        },
    )
}

/// Keeps the first of the extras with the same key.
fn unique(extras: Vec<&'static str>) -> Vec<&'static str> {
    let mut kept: Vec<&'static str> = Vec::new();
    for extra in extras {
        if !kept.iter().any(|other| other.split(':').next() == extra.split(':').next()) {
            kept.push(extra);
        }
    }
    kept
}

impl Manifest {
    fn text(&self) -> String {
        let Style { step, dash, item, ending, noise, is_open, bom } = &self.style;
        let mut text = String::new();
        let mut noise = noise.iter().cycle();
        // One line of the structure, or an extra of several lines whose inner indentation is relative.
        let mut put = |column: usize, part: &str, text: &mut String| {
            if !part.contains('\n') || part.starts_with("- ") {
                text.push_str(noise.next().copied().unwrap_or_default());
            }
            let part = part.replace("{i}", &" ".repeat(*step));
            for line in part.split('\n') {
                let indent = if line.is_empty() { 0 } else { column };
                text.extend([" ".repeat(indent).as_str(), line, "\n"]);
            }
        };
        if let Some(ports) = self.service {
            put(
                0,
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec:\n  selector:\n    app: a\n  ports:",
                &mut text,
            );
            put(2, ports, &mut text);
            put(0, "---", &mut text);
        }
        let mut base = 0;
        if self.is_listed {
            put(0, "apiVersion: v1\nkind: List\nitems:", &mut text);
            put(0, &format!("-{}apiVersion: {}", " ".repeat(item - 1), self.version()), &mut text);
            base = *item;
        } else {
            put(0, &format!("apiVersion: {}", self.version()), &mut text);
        }
        let [root, metadata, pod, container] = &self.parts;
        put(base, &format!("kind: {}", self.kind), &mut text);
        put(base, "metadata:", &mut text);
        put(base + step, "name: a", &mut text);
        for part in metadata {
            put(base + step, part, &mut text);
        }
        put(base, "spec:", &mut text);
        let mut column = base + step;
        if self.kind != "Pod" {
            put(column, "template:", &mut text);
            put(column + step, "metadata: {labels: {app: a}}", &mut text);
            put(column + step, "spec:", &mut text);
            column += 2 * step;
        }
        let (first, last) = pod.split_at(pod.len() / 2);
        for part in first {
            put(column, part, &mut text);
        }
        put(column, "containers:", &mut text);
        for name in ["app", "other"] {
            put(column + dash, &format!("-{}name: {name}", " ".repeat(item - 1)), &mut text);
            for part in container {
                put(column + dash + item, part, &mut text);
            }
            let port = if name == "app" { "ports: [{containerPort: 3000}]" } else { "ports:" };
            put(column + dash + item, port, &mut text);
        }
        for part in last {
            put(column, part, &mut text);
        }
        for part in root {
            put(base, part, &mut text);
        }
        let mut text = text.replace('\n', ending);
        if *is_open {
            text.truncate(text.trim_end().len());
        }
        if *bom { format!("\u{feff}{text}") } else { text }
    }

    fn version(&self) -> &'static str {
        if self.kind == "Pod" { "v1" } else { "apps/v1" }
    }
}

/// Returns the paths and texts of all scalars of a tree.
fn scalars(path: &str, node: &YamlNode, found: &mut Vec<String>) {
    for entry in node.entries() {
        scalars(&format!("{path}/{}", entry.key.text().unwrap_or_default()), &entry.value, found);
    }
    for (at, item) in node.items().iter().enumerate() {
        let name = item.text_at(&["name"]).map_or_else(|| at.to_string(), str::to_owned);
        scalars(&format!("{path}/{name}"), item, found);
    }
    if node.entries().is_empty() && node.items().is_empty() {
        found.push(format!("{path} = {}", node.text().unwrap_or("nothing")));
    }
}

proptest! {
    #[test]
    fn any_manifest_comes_back_and_has_lost_nothing(manifest in manifest()) {
        let text = manifest.text();
        // A generated text may be one that is refused, such as one that ends in a block scalar.
        let Ok(first) = super::super::inject(&text, &options()) else {
            let error = super::super::inject(&text, &options()).expect_err("it fails again").to_string();
            let is_meant = ["block scalar without a newline", "between key and value"].iter().any(|part| error.contains(part));
            prop_assert!(is_meant, "{error}\n{text}");
            return Ok(());
        };
        let after = injected(&text);
        prop_assert_eq!(&after, &first.text);
        let [mut before, mut now] = [Vec::new(), Vec::new()];
        parse(&text).expect("YAML").iter().for_each(|document| scalars("", &document.root, &mut before));
        parse(&after).expect("YAML").iter().for_each(|document| scalars("", &document.root, &mut now));
        let gone = before.iter().filter(|scalar| !now.contains(scalar));
        let gone: Vec<_> = gone.filter(|scalar| {
            let is_replaced = scalar.contains("terminationGracePeriodSeconds = ") || scalar.ends_with("/seconds = 3")
                || scalar.starts_with("/spec/ports/");
            // An empty collection holds something now.
            !is_replaced && !scalar.ends_with(" = nothing")
        }).collect();
        prop_assert!(gone.is_empty(), "{:?}\n{}", gone, after);
        let added = now.iter().filter(|scalar| !before.contains(scalar)).count();
        prop_assert!(added >= 30, "{added} scalars were added to\n{text}");
    }

    #[test]
    fn any_text_is_refused_or_comes_back(text in "(kind: |Pod|\n| |  |- |#|spec|metadata|:|\\{|\\}|\"|'|\\||a|&|\\*|---\n|\t|\r\n){0,30}") {
        if let Ok(changed) = super::super::uninject(&text) {
            prop_assert_eq!(changed.text, text.clone());
        }
        prop_assert!(super::super::inject(&text, &options()).is_err());
    }
}
