//! The objects of the JSON Schema (draft 2020-12) that `pulsegate config schema` prints.

use serde_json::{Value as Json, json};
use toml_edit::Value;

use super::codec::to_json;
use super::descriptions::Descriptions;

/// The dialect of the schema.
pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A table while its keys are described.
pub(super) struct SchemaTable<'a> {
    object: &'a mut Json,
    texts: &'a Descriptions,
    /// The path of the table in the documented file, with a dot at its end.
    prefix: String,
    /// True if the table stands in a list: its keys have no defaults of their own, and no other layer can set them.
    in_list: bool,
}

impl<'a> SchemaTable<'a> {
    /// Starts the description of a table in `object`, which becomes an object schema; `path` is that of the table in the
    /// documented file, empty for the whole.
    pub(super) fn new(object: &'a mut Json, texts: &'a Descriptions, path: &str, in_list: bool) -> Self {
        *object = json!({ "type": "object", "properties": {}, "additionalProperties": false });
        if let Some(text) = texts.of(path) {
            object["description"] = text.into();
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        Self { object, texts, prefix, in_list }
    }

    /// Describes `key`, in the words of the documented file.
    pub(super) fn key(&mut self, key: &str, mut schema: Json, default: Option<&Value>) {
        if let Some(text) = self.texts.of(&format!("{}{key}", self.prefix)) {
            schema["description"] = text.into();
        }
        if let Some(default) = default.filter(|_| !self.in_list) {
            schema["default"] = to_json(default);
        }
        self.object["properties"][key] = schema;
    }

    /// Sets the description of `key` to `text` as a sentence.
    pub(super) fn describe(&mut self, key: &str, text: &str) {
        self.object["properties"][key]["description"] = sentence(text).into();
    }

    /// Describes `key`, which `what` says in short. In a list of tables it must be set; elsewhere another layer may
    /// set it.
    pub(super) fn required(&mut self, key: &str, schema: Json, what: &str) {
        self.key(key, schema, None);
        let described = &mut self.object["properties"][key];
        if described.get("description").is_none() {
            described["description"] = sentence(what).into();
        }
        if self.in_list {
            let mut required = self.object["required"].as_array().cloned().unwrap_or_default();
            required.push(key.into());
            self.object["required"] = required.into();
        }
    }

    /// Adds a sentence to the description of `key`.
    pub(super) fn remark(&mut self, key: &str, remark: &str) {
        let described = &mut self.object["properties"][key];
        let text = described.get("description").and_then(Json::as_str).unwrap_or_default();
        described["description"] = format!("{text} {remark}").trim_start().into();
    }

    /// Describes the table at `key`, whose keys follow.
    pub(super) fn table(&mut self, key: &str) -> SchemaTable<'_> {
        let path = format!("{}{key}", self.prefix);
        SchemaTable::new(&mut self.object["properties"][key], self.texts, &path, self.in_list)
    }

    /// Describes `key` as a table, whose keys `describe` adds, or as one of `others`.
    pub(super) fn table_or(
        &mut self,
        key: &str,
        others: &Json,
        default: Option<&Value>,
        describe: impl FnOnce(SchemaTable<'_>),
    ) {
        let mut table = Json::Null;
        let path = format!("{}{key}", self.prefix);
        describe(SchemaTable::new(&mut table, self.texts, &path, self.in_list));
        if let Some(table) = table.as_object_mut() {
            table.remove("description");
        }
        self.key(key, json!({ "anyOf": [others, table] }), default);
    }

    /// Describes the list of tables at `key`, whose keys `describe` adds to those of each table.
    pub(super) fn tables(&mut self, key: &str, describe: impl FnOnce(SchemaTable<'_>)) {
        let mut table = Json::Null;
        let path = format!("{}{key}", self.prefix);
        describe(SchemaTable::new(&mut table, self.texts, &path, true));
        let description = table.as_object_mut().and_then(|table| table.remove("description"));
        let mut list = json!({ "type": "array", "items": table });
        if let Some(description) = description {
            list["description"] = description;
        }
        self.object["properties"][key] = list;
    }

    /// Returns the same table unchanged.
    pub(super) fn reborrow(&mut self) -> SchemaTable<'_> {
        SchemaTable { object: self.object, texts: self.texts, prefix: self.prefix.clone(), in_list: self.in_list }
    }
}

/// `text` as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
