//! Fingerprints of what is injected, by which an edit of it is seen later.

use super::error::InjectError;
use super::layout::{Insertion, Layout};
use super::tree::{self, YamlContent, YamlNode};

/// The entries that the API server adds by itself; they are no edits.
const SERVER_DEFAULTS: [(&str, &[&str]); 7] = [
    ("defaultMode", &["420", "0644"]),
    ("imagePullPolicy", &["IfNotPresent", "Always"]),
    ("scheme", &["HTTP"]),
    ("successThreshold", &["1"]),
    ("terminationMessagePath", &["/dev/termination-log"]),
    ("terminationMessagePolicy", &["File"]),
    ("timeoutSeconds", &["1"]),
];

/// Returns the fingerprint of a value: a scalar's text, and for a collection a hash that its style does not change.
pub(super) fn fingerprint(node: &YamlNode) -> String {
    match node.text() {
        Some(text) if !text.contains('\n') => text.to_owned(),
        _ => {
            let mut text = String::new();
            write(node, &mut text);
            format!("#{:08x}", fnv(text.as_bytes()))
        }
    }
}

/// Returns the fingerprint that a value has once it is written and read.
///
/// # Errors
///
/// It is not written as YAML.
pub(super) fn of_insertion(layout: &Layout, value: &Insertion) -> Result<String, InjectError> {
    let documents = tree::parse(&layout.entry(0, "value", value))?;
    Ok(documents.first().and_then(|document| document.root.get("value")).map(fingerprint).unwrap_or_default())
}

fn write(node: &YamlNode, text: &mut String) {
    match &node.resolved().content {
        YamlContent::Mapping { entries, .. } => {
            let mut written: Vec<String> = Vec::new();
            for entry in entries {
                let (key, value) = (entry.key.text().unwrap_or_default(), entry.value.text());
                let is_default = |(name, values): &(&str, &[&str])| {
                    *name == key && value.is_some_and(|value| values.contains(&value))
                };
                if !SERVER_DEFAULTS.iter().any(is_default) {
                    let mut entry_text = format!("{key:?}:");
                    write(&entry.value, &mut entry_text);
                    written.push(entry_text);
                }
            }
            written.sort_unstable();
            text.extend(["{", &written.join(","), "}"]);
        }
        YamlContent::Sequence { items, .. } => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        YamlContent::Scalar { value, is_plain } => {
            // kubectl prints a mode such as 0440 as a decimal number.
            let mode = value.strip_prefix('0').filter(|_| *is_plain).and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let value = mode.map_or_else(|| value.clone(), |mode| mode.to_string());
            text.push('"');
            text.extend(value.escape_debug());
            text.push('"');
        }
        YamlContent::Alias(_) => {}
    }
}

/// Returns the hash FNV-1a of 32 bits, which is the same in every release.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
