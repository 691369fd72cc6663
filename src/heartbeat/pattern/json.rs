//! Comparison of JSON messages by value: white space, member order, escapes and number notation are ignored (RFC 8259).

use memchr::memmem;
use serde_json::{Number, Value};

/// The value that a JSON message must have, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Json {
    value: Value,
    /// A text that occurs in every matching message, so that most others need not be parsed.
    token: Box<[u8]>,
}

impl Json {
    /// Returns the pattern `value`; `None` unless it is an object or array with at least one text in it.
    pub(super) fn new(value: Value) -> Option<Self> {
        let token = longest_text(&value).filter(|token| !token.is_empty())?;
        Some(Self { token: token.as_bytes().into(), value })
    }

    /// Returns whether a message that begins with `start` can be an object or array.
    pub(super) fn may_begin(start: &[u8]) -> bool {
        start.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| matches!(byte, b'{' | b'['))
    }

    /// Returns whether the JSON text `message` has everything that the pattern names.
    pub(super) fn matches(&self, message: &[u8]) -> bool {
        // Escapes may spell the token differently; then the message must be parsed.
        let may = memmem::find(message, &self.token).is_some() || message.contains(&b'\\');
        may && serde_json::from_slice(message).is_ok_and(|message| covers(&self.value, &message))
    }
}

/// Returns whether `message` has everything that `pattern` names.
pub(super) fn covers(pattern: &Value, message: &Value) -> bool {
    match (pattern, message) {
        (Value::Null, _) => true,
        (Value::Object(pattern), Value::Object(message)) => {
            pattern.iter().all(|(key, value)| message.get(key).is_some_and(|found| covers(value, found)))
        }
        (Value::Array(pattern), Value::Array(message)) => {
            pattern.len() == message.len() && pattern.iter().zip(message).all(|(value, found)| covers(value, found))
        }
        (Value::Number(pattern), Value::Number(message)) => same_number(pattern, message),
        (pattern, message) => pattern == message,
    }
}

/// Returns whether two numbers have the same value: integers exactly, others as IEEE 754 doubles (RFC 8259 §6).
fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

/// Returns the longest text in an object or array, or its longest key if it has no text.
fn longest_text(value: &Value) -> Option<&str> {
    let (mut texts, mut keys) = (Vec::new(), Vec::new());
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => texts.push(text.as_str()),
            Value::Array(elements) => open.extend(elements),
            Value::Object(members) => {
                keys.extend(members.keys().map(String::as_str));
                open.extend(members.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    if !matches!(value, Value::Object(_) | Value::Array(_)) {
        return None;
    }
    let candidates = if texts.is_empty() { keys } else { texts };
    candidates.into_iter().max_by_key(|text| text.len())
}

#[cfg(test)]
mod tests;
