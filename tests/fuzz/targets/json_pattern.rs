//! Patterns of JSON against messages: matched by value (RFC 8259), whatever the spelling; and records of the hub
//! protocol of ASP.NET Core.

use pulsegate::heartbeat::{Matching, Pattern, RecordFormat};
use pulsegate::ws::Opcode;
use serde_json::Value;

/// Reads `data`: the pattern, a line end, and the message.
pub fn run(data: &[u8]) {
    let Some(cut) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (text, message) = (&data[..cut], &data[cut + 1..]);
    for matching in [Matching::Exact, Matching::Prefix] {
        if let Ok(pattern) = Pattern::new(Opcode::TEXT, text, matching) {
            let expected = if matching == Matching::Exact { text == message } else { message.starts_with(text) };
            assert_eq!(pattern.matches(Opcode::TEXT, message), expected, "{matching:?}");
            prefixes(&pattern, message);
        }
    }
    records(message);
    let parsed = serde_json::from_slice::<Value>(text);
    let Ok(pattern) = Pattern::new(Opcode::TEXT, text, Matching::Json) else { return refused(parsed.ok()) };
    let expected = parsed.expect("a pattern is JSON");
    let Ok(value) = serde_json::from_slice::<Value>(message) else {
        assert!(!pattern.matches(Opcode::TEXT, message), "what is no JSON matches");
        return;
    };
    let fits = is_part(&expected, &value);
    assert_eq!(pattern.matches(Opcode::TEXT, message), fits, "{expected} in {value}");
    assert!(!pattern.matches(Opcode::BINARY, message), "a binary message");
    prefixes(&pattern, message);
    for escaped in [false, true] {
        let mut other = String::new();
        respell(&value, escaped, &mut other);
        assert_eq!(pattern.matches(Opcode::TEXT, other.as_bytes()), fits, "{expected} in {other}");
        prefixes(&pattern, other.as_bytes());
    }
}

/// Checks that a pattern that is JSON is refused only if it contains no text.
fn refused(parsed: Option<Value>) {
    fn has_text(value: &Value) -> bool {
        match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(elements) => elements.iter().any(has_text),
            Value::Object(members) => members.iter().any(|(key, value)| !key.is_empty() || has_text(value)),
            _ => false,
        }
    }
    if let Some(value @ (Value::Array(_) | Value::Object(_))) = parsed {
        // If all texts are empty the keys do not help.
        let empty = value.to_string().contains(r#""""#);
        assert!(empty || !has_text(&value), "a pattern is refused: {value}");
    }
}

/// Checks that each prefix of a matching message may still match.
fn prefixes(pattern: &Pattern, message: &[u8]) {
    if pattern.matches(Opcode::TEXT, message) {
        for cut in 0..=message.len().min(300) {
            let cut = cut.min(message.len());
            assert!(pattern.may_match(Opcode::TEXT, &message[..cut], message.len()), "{cut} bytes");
            assert!(pattern.may_match(Opcode::TEXT, &message[..cut], cut), "{cut} bytes so far");
        }
    }
}

/// Returns true if `message` has everything that `pattern` requires; `null` stands for any value.
fn is_part(pattern: &Value, message: &Value) -> bool {
    match (pattern, message) {
        (Value::Null, _) => true,
        (Value::Array(some), Value::Array(all)) => {
            some.len() == all.len() && (0..some.len()).all(|at| is_part(&some[at], &all[at]))
        }
        (Value::Object(some), Value::Object(all)) => {
            some.keys().all(|key| all.contains_key(key) && is_part(&some[key], &all[key]))
        }
        (Value::Number(some), Value::Number(other)) => number(&some.to_string()) == number(&other.to_string()),
        (some, other) => some == other,
    }
}

/// The value of a number as `serde_json` holds it: exactly where both are integers, else as doubles.
#[derive(Debug)]
enum Number {
    Integer(i128),
    Double(f64),
}

impl PartialEq for Number {
    #[expect(clippy::cast_precision_loss, reason = "an integer and a double are compared as doubles")]
    fn eq(&self, other: &Self) -> bool {
        let double = |number: &Self| match number {
            Self::Integer(number) => *number as f64,
            Self::Double(number) => *number,
        };
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one == other,
            _ => double(self) == double(other),
        }
    }
}

fn number(text: &str) -> Number {
    text.parse().map_or_else(|_| Number::Double(text.parse().expect("a number")), Number::Integer)
}

/// Writes `value` in another spelling: members in reverse order, white space, escapes, exponents.
fn respell(value: &Value, escaped: bool, out: &mut String) {
    use std::fmt::Write as _;
    let text = |text: &str, out: &mut String| {
        if escaped {
            out.push('"');
            text.encode_utf16().for_each(|unit| write!(out, "\\u{unit:04X}").expect("a text takes all"));
            out.push('"');
        } else {
            out.push_str(&Value::from(text).to_string());
        }
    };
    match value {
        Value::String(string) => text(string, out),
        Value::Number(number) if escaped && number.is_u64() && number.as_u64() < Some(1 << 50) => {
            write!(out, "{number}.0e+0").expect("a text takes all");
        }
        Value::Array(elements) => {
            out.push_str("[ ");
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "\t,\n" } else { "" });
                respell(element, escaped, out);
            }
            out.push_str("\r]");
        }
        Value::Object(members) => {
            out.push_str(" {\n");
            let members: Vec<_> = members.iter().collect();
            for (at, (key, value)) in members.into_iter().rev().enumerate() {
                out.push_str(if at > 0 { " , " } else { "" });
                text(key, out);
                out.push_str(" : ");
                respell(value, escaped, out);
            }
            out.push_str(" } ");
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Checks that the heartbeats among JSON records, each followed by 0x1E, are those with the `type` 6.
fn records(message: &[u8]) {
    let pattern = Pattern::record(RecordFormat::SignalrJson);
    let mut records: Vec<_> = message.split(|byte| *byte == 0x1E).collect();
    let end = records.pop().unwrap_or_default();
    let beats: Vec<bool> = records
        .iter()
        .map(|record| {
            let kind = serde_json::from_slice::<Value>(record).ok().and_then(|record| record.get("type").cloned());
            kind.is_some_and(|kind| kind.as_f64() == Some(6.0))
        })
        .collect();
    let any = beats.contains(&true);
    assert_eq!(pattern.is_in(Opcode::TEXT, message), any, "a heartbeat among the records");
    let whole = end.iter().all(u8::is_ascii_whitespace);
    let alone = any && whole && beats.iter().all(|beat| *beat);
    assert_eq!(pattern.matches(Opcode::TEXT, message), alone, "heartbeats alone");
}
