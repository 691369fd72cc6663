//! The schema of the configuration: each key is declared once, in the function that visits its section.
//!
//! A declaration is a call on a [`Visitor`], such as `v.key("delay", &DURATION_OR_ZERO, &mut drain.delay)`. It reads the
//! key, makes it known (any other key is unknown), lists it for `pulsegate config show` and describes it for `pulsegate
//! config schema`. A key whose form no other key has (a table in the place of `"off"`) matches on the visitor instead.
//!
//! To add a key:
//!
//! 1. Add a field to the section's type in `settings` (or `heartbeat::Policy`), and its default beside it.
//! 2. Declare the key in the `visit_` function of its section: `listener` has the client's side, `upstream` the app's, `sections`
//!    the heartbeat, `operations` the process. Use `at_start` for `key` if a reload cannot change it.
//! 3. Choose its type in `codec`, `value_types` or `parse_names`. A new type is a `Scalar` of `decode`, `encode` and `schema`.
//! 4. Refuse what does not fit other keys where the section is read, below the call of its `visit_` function.
//! 5. Document it in config/proxy.toml with its default; the text above it becomes its description in the JSON Schema.
//!
//! Tests compare the documented file, the listing and the JSON Schema with the declarations.

use std::any::Any;

use super::codec::Codec;
use super::json_schema::SchemaTable;
use super::listing::ListedTable;
use super::parse::{Given, Problem};
use super::reader::{KeyValue, Table};

/// One of the passes over the keys of a table. Every pass calls the same declarations.
pub(super) enum Visitor<'a> {
    /// Reads the keys that are set, in the place of the values at hand.
    Read(Table<'a>),
    /// Lists keys and values with their origins.
    List(ListedTable<'a>),
    /// Describes keys, with the values at hand as defaults.
    Describe(SchemaTable<'a>),
    /// Records the values of a running process that only the next start changes.
    Record(&'a mut StartValues),
    /// Puts recorded values in the place of new ones.
    Restore(&'a mut StartValues),
}

/// The values of one section that only the next start changes.
#[derive(Default)]
pub(super) struct StartValues {
    values: Vec<(&'static str, Box<dyn Any>)>,
    changed: Vec<&'static str>,
}

impl StartValues {
    /// Returns the keys whose new values wait for the next start.
    pub(super) fn changed(self) -> Vec<&'static str> {
        self.changed
    }

    fn restore<T: Clone + PartialEq + 'static>(&mut self, key: &'static str, value: &mut T) {
        let recorded = self.values.iter().find(|(recorded, _)| *recorded == key);
        if let Some(running) = recorded.and_then(|(_, running)| running.downcast_ref::<T>())
            && running != value
        {
            value.clone_from(running);
            self.changed.push(key);
        }
    }
}

impl Visitor<'_> {
    /// Visits `key`, whose default or inherited value is in `value`.
    pub(super) fn key<C: Codec>(&mut self, key: &'static str, codec: &C, value: &mut C::Value) {
        match self {
            Self::Read(table) => {
                if let KeyValue::Is(read) = table.entry(key, decode(codec)) {
                    *value = read;
                }
            }
            Self::List(table) => table.set(key, codec.encode(value)),
            Self::Describe(table) => table.key(key, codec.schema(), Some(&codec.encode_default(value))),
            Self::Record(_) | Self::Restore(_) => {}
        }
    }

    /// Visits `key`, a change of which takes effect at the next start.
    pub(super) fn at_start<C: Codec>(&mut self, key: &'static str, codec: &C, value: &mut C::Value) {
        match self {
            Self::Record(running) => running.values.push((key, Box::new(value.clone()))),
            Self::Restore(running) => running.restore(key, value),
            Self::Describe(table) => {
                table.key(key, codec.schema(), Some(&codec.encode_default(value)));
                table.remark(key, "A change takes effect at the next start.");
            }
            Self::Read(_) | Self::List(_) => self.key(key, codec, value),
        }
    }

    /// Visits `key`, which has no default.
    pub(super) fn optional<C: Codec>(&mut self, key: &'static str, codec: &C, value: &mut Option<C::Value>) {
        match self {
            Self::Read(table) => {
                if let KeyValue::Is(read) = table.entry(key, decode(codec)) {
                    *value = Some(read);
                }
            }
            Self::List(table) => table.maybe(key, value.as_ref().map(|value| codec.encode(value))),
            Self::Describe(table) => table.key(key, codec.schema(), None),
            Self::Record(_) | Self::Restore(_) => {}
        }
    }

    /// Visits `key`, which must be set; `what` says what is missing without it. Returns whether `value` can be used.
    pub(super) fn required<C: Codec>(
        &mut self,
        key: &'static str,
        codec: &C,
        what: &str,
        value: &mut C::Value,
    ) -> bool {
        match self {
            Self::Read(table) => match table.required(key, decode(codec), what) {
                Some(read) => *value = read,
                None => return false,
            },
            Self::List(table) => table.set(key, codec.encode(value)),
            Self::Describe(table) => table.required(key, codec.schema(), what),
            Self::Record(_) | Self::Restore(_) => {}
        }
        true
    }

    /// Visits the list at `key`, each element of which is of the type `codec`.
    pub(super) fn list<C: Codec>(&mut self, key: &'static str, codec: &C, values: &mut Vec<C::Value>) {
        match self {
            Self::Read(table) => {
                if let KeyValue::Is(read) = table.list(key, decode(codec)) {
                    *values = read;
                }
            }
            Self::List(table) => table.set(key, encode_all(codec, values)),
            Self::Describe(table) => {
                table.key(key, list_schema(codec), Some(&encode_all(codec, values)));
            }
            Self::Record(_) | Self::Restore(_) => {}
        }
    }

    /// Visits the list at `key`, which must be set and not be empty. Returns whether `values` can be used.
    pub(super) fn required_list<C: Codec>(
        &mut self,
        key: &'static str,
        codec: &C,
        what: &str,
        values: &mut Vec<C::Value>,
    ) -> bool {
        match self {
            Self::Read(table) => match table.required_list(key, decode(codec), what) {
                Some(read) => *values = read,
                None => return false,
            },
            Self::List(table) => table.set(key, encode_all(codec, values)),
            Self::Describe(table) => {
                let mut schema = list_schema(codec);
                schema["minItems"] = 1.into();
                table.required(key, schema, what);
            }
            Self::Record(_) | Self::Restore(_) => {}
        }
        true
    }

    /// Describes `key` in the words of `text`, where the documented file has none for it.
    pub(super) fn describe(&mut self, key: &str, text: &str) {
        if let Self::Describe(table) = self {
            table.describe(key, text);
        }
    }

    /// Returns a visitor of the table at `key`.
    pub(super) fn table(&mut self, key: &'static str) -> Visitor<'_> {
        match self {
            Self::Read(table) => Visitor::Read(table.table(key)),
            Self::List(table) => Visitor::List(table.under(key)),
            Self::Describe(table) => Visitor::Describe(table.table(key)),
            Self::Record(running) => Visitor::Record(running),
            Self::Restore(running) => Visitor::Restore(running),
        }
    }

    /// Returns a visitor of the same table that, if `alone`, lists no origin in a table it inherits from.
    pub(super) fn alone_if(&mut self, alone: bool) -> Visitor<'_> {
        match self {
            Self::Read(table) => Visitor::Read(table.clone()),
            Self::List(table) => Visitor::List(if alone { table.alone() } else { table.reborrow() }),
            Self::Describe(table) => Visitor::Describe(table.reborrow()),
            Self::Record(running) => Visitor::Record(running),
            Self::Restore(running) => Visitor::Restore(running),
        }
    }
}

/// Returns the decoder of `codec` as a function.
pub(super) fn decode<C: Codec>(codec: &C) -> impl Fn(&Given<'_>) -> Result<C::Value, Problem> {
    |given| codec.decode(given)
}

/// Writes a list of values of the type `codec`.
pub(super) fn encode_all<C: Codec>(codec: &C, values: &[C::Value]) -> toml_edit::Value {
    values.iter().map(|value| codec.encode(value)).collect()
}

/// Describes a list of values of the type `codec`.
pub(super) fn list_schema<C: Codec>(codec: &C) -> serde_json::Value {
    serde_json::json!({ "type": "array", "items": codec.schema() })
}
