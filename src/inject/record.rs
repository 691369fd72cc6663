//! The record of what was injected, as an annotation of the object that was changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::InjectError;
use super::tree::YamlNode;

/// The annotation that holds a record, as JSON.
pub(super) const ANNOTATION: &str = "pulsegate/injected";

/// What was changed in one object. Paths have a step for each key, and for each item its `name`, or `port=443` without one
/// (never its index, which moves); they begin at `under`, or with a slash at the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InjectRecord {
    /// The version that made it.
    pub(super) version: String,
    /// The path of the pod's specification in the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) under: String,
    /// The paths of entries and items that were inserted. One above others is removed only if it is left empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) added: Vec<String>,
    /// The text that followed the colon before it was replaced, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) was: BTreeMap<String, String>,
    /// The fingerprints of what was written, by path: what differs from them was edited since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) now: BTreeMap<String, String>,
    /// Set if the whole document was appended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) document: bool,
    /// Set if the last line ended without a newline.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) newline: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl InjectRecord {
    pub(super) fn new() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() }
    }

    /// Returns the record of an object; `None` if nothing was injected.
    ///
    /// # Errors
    ///
    /// The annotation is not as it was written.
    pub(super) fn of(object: &YamlNode) -> Result<Option<Self>, InjectError> {
        let annotation = object.get("metadata").and_then(|metadata| metadata.get("annotations")?.entry(ANNOTATION));
        let Some(annotation) = annotation else { return Ok(None) };
        let record = serde_json::from_str(annotation.value.text().unwrap_or_default()).map_err(|error| {
            InjectError::at(
                annotation.key.line,
                format!("annotation {ANNOTATION} is not as it was written ({error}); restore it, or remove by hand what was injected"),
            )
        })?;
        Ok(Some(record))
    }

    /// Returns the annotation's value as it is written: JSON between single quotes.
    pub(super) fn scalar(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("'{}'", json.replace('\'', "''"))
    }

    /// Returns a path of this record from the object itself.
    pub(super) fn absolute(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None if self.under.is_empty() => path.to_owned(),
            None => format!("{}/{path}", self.under),
        }
    }
}
