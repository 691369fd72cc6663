//! The types of values: how each is read from TOML, written back, and described in JSON Schema.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toml_edit::Value;

use super::parse::{self, Given, Read, Words};

/// The type of a key's value, as it stands in a configuration.
pub(super) trait Codec {
    /// The value in the settings.
    type Value: Clone + PartialEq + 'static;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// What a value of this type must be, and the remedy.
    fn decode(&self, given: &Given<'_>) -> Read<Self::Value>;

    /// Writes `value` so that it is read as the same again.
    fn encode(&self, value: &Self::Value) -> Value;

    /// Writes a default; other than [`Codec::encode`] where the default depends on the machine.
    fn encode_default(&self, value: &Self::Value) -> Value {
        self.encode(value)
    }

    /// Describes the type as JSON Schema. Every value that is read is valid by it; the reverse holds as far as a
    /// schema can say it.
    fn schema(&self) -> Json;
}

/// A type without parameters.
pub(super) struct Scalar<T> {
    pub(super) decode: fn(&Given<'_>) -> Read<T>,
    pub(super) encode: fn(&T) -> Value,
    pub(super) schema: fn() -> Json,
}

/// `"off"`, or a value of another type.
pub(super) struct OffOr<C>(pub(super) C);

/// `"auto"`, or a value of another type.
pub(super) struct AutoOr<C>(pub(super) C);

/// A whole number in a range.
pub(super) struct Whole<T>(pub(super) RangeInclusive<T>);

/// `"off"`, or a whole number from 1 to this one.
pub(super) struct Bounded<T>(pub(super) T);

/// One of these words.
pub(super) struct OneOf<T: 'static>(pub(super) Words<T>);

/// A duration that is not shorter than this one.
pub(super) struct AtLeast(pub(super) Duration);

/// A duration above zero.
pub(super) const DURATION: Scalar<Duration> =
    Scalar { decode: parse::duration, encode: |duration| span(*duration).into(), schema: duration_schema };

/// A duration, or `"0s"`.
pub(super) const DURATION_OR_ZERO: Scalar<Duration> = Scalar {
    decode: parse::duration_or_zero,
    encode: |duration| span(*duration).into(),
    schema: || pattern(&duration_pattern()),
};

/// A number of bytes above zero.
pub(super) const SIZE: Scalar<u64> =
    Scalar { decode: parse::size, encode: |bytes| size(*bytes), schema: || size_schema(1, None) };

/// A share of one.
pub(super) const SHARE: Scalar<f64> = Scalar {
    decode: parse::share,
    encode: |share| (*share).into(),
    schema: || json!({ "type": "number", "minimum": 0, "maximum": 1 }),
};

/// `true` or `false`.
pub(super) const BOOLEAN: Scalar<bool> =
    Scalar { decode: parse::boolean, encode: |flag| (*flag).into(), schema: || json!({ "type": "boolean" }) };

impl<T: Clone + PartialEq + 'static> Codec for Scalar<T> {
    type Value = T;

    fn decode(&self, given: &Given<'_>) -> Read<T> {
        (self.decode)(given)
    }

    fn encode(&self, value: &T) -> Value {
        (self.encode)(value)
    }

    fn schema(&self) -> Json {
        (self.schema)()
    }
}

impl<C: Codec> Codec for OffOr<C> {
    type Value = Option<C::Value>;

    fn decode(&self, given: &Given<'_>) -> Read<Self::Value> {
        parse::off_or(|given: &Given<'_>| self.0.decode(given))(given)
    }

    fn encode(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or_else(|| "off".into(), |value| self.0.encode(value))
    }

    fn schema(&self) -> Json {
        word_or("off", self.0.schema())
    }
}

impl<C: Codec> Codec for AutoOr<C> {
    type Value = Option<C::Value>;

    fn decode(&self, given: &Given<'_>) -> Read<Self::Value> {
        parse::auto_or(|given: &Given<'_>| self.0.decode(given))(given)
    }

    fn encode(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or_else(|| "auto".into(), |value| self.0.encode(value))
    }

    fn schema(&self) -> Json {
        word_or("auto", self.0.schema())
    }
}

impl<T> Codec for Whole<T>
where
    T: TryFrom<i128> + TryInto<i64> + PartialOrd + Display + Copy + 'static,
{
    type Value = T;

    fn decode(&self, given: &Given<'_>) -> Read<T> {
        parse::whole(self.0.clone())(given)
    }

    fn encode(&self, value: &T) -> Value {
        number(*value).into()
    }

    fn schema(&self) -> Json {
        whole_schema(number(*self.0.start()), number(*self.0.end()))
    }
}

impl<T> Codec for Bounded<T>
where
    T: TryFrom<i128> + TryInto<i64> + PartialOrd + Display + From<bool> + Copy + 'static,
{
    type Value = Option<T>;

    fn decode(&self, given: &Given<'_>) -> Read<Option<T>> {
        parse::bounded(self.0)(given)
    }

    fn encode(&self, value: &Option<T>) -> Value {
        value.map_or_else(|| "off".into(), |value| number(value).into())
    }

    fn schema(&self) -> Json {
        word_or("off", whole_schema(1, number(self.0)))
    }
}

impl<T: Copy + Debug + PartialEq + 'static> Codec for OneOf<T> {
    type Value = T;

    fn decode(&self, given: &Given<'_>) -> Read<T> {
        parse::one_of(self.0)(given)
    }

    fn encode(&self, value: &T) -> Value {
        parse::word(self.0, value).into()
    }

    fn schema(&self) -> Json {
        words_schema(self.0.iter().map(|(word, _)| *word))
    }
}

impl Codec for AtLeast {
    type Value = Duration;

    fn decode(&self, given: &Given<'_>) -> Read<Duration> {
        parse::at_least(self.0)(given)
    }

    fn encode(&self, value: &Duration) -> Value {
        span(*value).into()
    }

    fn schema(&self) -> Json {
        duration_schema()
    }
}

/// Text that matches `pattern`, a regular expression of ECMA-262.
pub(super) fn pattern(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

/// Text, not empty.
pub(super) fn text_schema() -> Json {
    json!({ "type": "string", "minLength": 1 })
}

/// One of `words`.
pub(super) fn words_schema<'a>(words: impl Iterator<Item = &'a str>) -> Json {
    json!({ "enum": words.collect::<Vec<_>>() })
}

/// `word`, or what `other` describes.
pub(super) fn word_or(word: &str, other: Json) -> Json {
    // The alternatives stay on one level, so that an editor names all of them at once.
    let mut alternatives = vec![json!({ "const": word })];
    match other {
        Json::Object(mut other) if other.len() == 1 && other.contains_key("anyOf") => {
            if let Some(Json::Array(others)) = other.remove("anyOf") {
                alternatives.extend(others);
            }
        }
        other => alternatives.push(other),
    }
    json!({ "anyOf": alternatives })
}

/// A whole number from `least` to `most`.
pub(super) fn whole_schema(least: i64, most: i64) -> Json {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// A size from `least` to `most` bytes; the bounds are those of plain numbers.
pub(super) fn size_schema(least: u64, most: Option<u64>) -> Json {
    let mut plain = json!({ "type": "integer", "minimum": least });
    if let Some(most) = most {
        plain["maximum"] = most.into();
    }
    json!({ "anyOf": [plain, pattern("^0*[1-9][0-9]*\\s*(?:(?:[kKmMgG][iI]?)?[bB])?\\s*$")] })
}

/// Describes a duration above zero.
pub(super) fn duration_schema() -> Json {
    // The second pattern refuses zero.
    json!({ "type": "string", "pattern": duration_pattern(), "allOf": [{ "pattern": "[1-9]" }] })
}

/// The pattern of one or more numbers, each with its unit, as `humantime` reads them.
fn duration_pattern() -> String {
    const UNITS: [&str; 10] = [
        "n(?:s|sec)|nanos",
        "u(?:s|sec)|µs",
        "m(?:s|sec|illis)",
        "s(?:ec(?:s|onds?)?)?",
        "m(?:in(?:s|utes?)?)?",
        "h(?:rs?|ours?)?",
        "d(?:ays?)?",
        "w(?:ks?|eeks?)?",
        "M|months?",
        "y(?:rs?|ears?)?",
    ];
    let units = UNITS.join("|");
    format!("^(?:0|(?:\\s*[0-9]+(?:\\.[0-9]+)?\\s*(?:{units}))+\\s*)$")
}

/// Writes `value` as it displays itself.
pub(super) fn display<T: Display>(value: &T) -> Value {
    value.to_string().into()
}

/// Writes the path from the root on, so that it means the same from every folder.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Writes a whole number; one that TOML cannot hold becomes the largest that it can.
pub(super) fn number<T: TryInto<i64>>(number: T) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Writes a duration in the largest unit of which it is a whole number.
pub(super) fn span(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let unit = UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&("ns", 1));
    format!("{}{name}", nanos / unit)
}

/// Writes a size in the largest unit of which it is a whole number; without one, as a number.
pub(super) fn size(bytes: u64) -> Value {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, bits)| bytes.trailing_zeros() >= *bits) {
        Some((name, bits)) => format!("{}{name}", bytes >> bits).into(),
        None => i64::try_from(bytes).map_or_else(|_| bytes.to_string().into(), Into::into),
    }
}

/// Converts a value of TOML to JSON.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::String(text) => json!(text.value()),
        Value::Integer(number) => json!(number.value()),
        Value::Float(number) => json!(number.value()),
        Value::Boolean(flag) => json!(flag.value()),
        Value::Array(values) => values.iter().map(to_json).collect(),
        // No codec writes one.
        Value::Datetime(_) | Value::InlineTable(_) => json!(value.to_string()),
    }
}
