//! Unknown keys: misspelt ones, and keys in the wrong table.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::document::EntryPart;
use super::layers::Layers;
use super::path::{KeyPath, NodeKind};
use super::report::Finding;
use super::suggestion::nearest;

/// The search for unknown keys in `layers`.
#[derive(Debug)]
pub(super) struct UnknownKeys<'a> {
    pub(super) layers: &'a Layers,
    pub(super) known: &'a BTreeMap<KeyPath, NodeKind>,
}

/// Names that other programs have for what is set by another key here: section, name, remedy.
const MEANT: [(&str, &[&str], &str); 8] = [
    ("listen", &["tls", "ssl"], "set mode = \"off\" in [tls] to speak plain HTTP behind a proxy that terminates TLS"),
    ("listen", &["port", "host", "bind", "ip", "addr"], "set `address`, with the port: address = \"0.0.0.0:8443\""),
    ("tls", &["enabled", "enable", "off"], "set mode = \"off\" to speak plain HTTP behind a proxy that terminates TLS"),
    ("tls", &["key", "key_file", "keyfile", "private_key_file"], "did you mean `private_key`?"),
    ("tls", &["cert", "cert_file", "chain", "crt", "certificate_file"], "did you mean `certificate`?"),
    (
        "upstream",
        &["port", "host", "address", "to", "target", "server", "socket"],
        "set `url`: url = \"http://127.0.0.1:3000\", or \"unix:/run/app.sock\"",
    ),
    ("heartbeat", &["enabled", "enable", "off"], "set mode = \"off\" for no heartbeat"),
    ("log", &["file", "path", "output"], "log lines go to standard error: redirect it, as in 2>>pulsegate.log"),
];

/// The remedy for `key` in the table at `parent`, where it is another program's name for something.
fn meant(parent: &KeyPath, key: &str) -> Option<&'static str> {
    let section = parent.keys().last()?;
    let found = MEANT.iter().find(|(known, names, _)| *known == section && names.contains(&key));
    found.map(|(.., help)| *help)
}

impl UnknownKeys<'_> {
    /// Returns the places where `key` is known: as a section, or in one or more tables.
    fn elsewhere(&self, key: &str) -> Option<String> {
        let known = self.known.iter().filter(|(known, _)| known.name() == Some(key));
        let mut homes: Vec<String> = Vec::new();
        for (path, kind) in known {
            let header = match path.parent().filter(|parent| *parent != KeyPath::default()) {
                None if *kind == NodeKind::List => return Some(format!("`{key}` is a list of its own: [[{key}]]")),
                None => return Some(format!("`{key}` is a section of its own: [{key}]")),
                Some(parent) => parent.header(),
            };
            if !homes.contains(&header) {
                homes.push(header);
            }
        }
        let last = homes.pop()?;
        let homes = if homes.is_empty() { last } else { format!("{} or {last}", homes.join(", ")) };
        Some(format!("`{key}` belongs in {homes}"))
    }

    /// Adds a finding for each key in `values`, the table at `path`, or below it.
    pub(super) fn find(&self, path: &KeyPath, values: &Dict, findings: &mut Vec<Finding>) {
        for (key, value) in values {
            let path = path.key(key);
            match (self.known.get(&path), value) {
                (None, _) => findings.push(self.unknown(&path, key, value)),
                (Some(NodeKind::Table), Value::Dict(_, values)) => self.find(&path, values, findings),
                (Some(NodeKind::List), Value::Array(_, elements)) => {
                    for (index, element) in elements.iter().enumerate() {
                        if let Value::Dict(_, values) = element {
                            self.find(&path.index(index), values, findings);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn unknown(&self, path: &KeyPath, key: &str, value: &Value) -> Finding {
        let parent = path.parent().unwrap_or_default();
        let siblings = self.known.keys().filter(|known| known.parent().as_ref() == Some(&parent));
        let siblings: Vec<&str> = siblings.filter_map(KeyPath::name).collect();
        let help = if let Some(help) = meant(&parent, key) {
            help.to_owned()
        } else if let Some(near) = nearest(key, siblings.iter().copied()) {
            format!("did you mean `{near}`?")
        } else if let Some(home) = self.elsewhere(key) {
            home
        } else {
            format!("known here: {}", siblings.join(", "))
        };
        let message = match path.parent().filter(|parent| *parent != KeyPath::default()) {
            Some(parent) => format!("unknown key `{key}` in {}", parent.header()),
            None => format!("unknown key `{key}`"),
        };
        Finding::new(self.layers.spot(path, value, EntryPart::Key), message, Some(help)).about(path)
    }
}
