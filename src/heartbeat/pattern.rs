//! Patterns that recognise heartbeat messages.

mod json;
mod records;

use self::json::Json;
pub use self::records::RecordFormat;
pub(super) use self::records::{MQTT_LENGTH, variable_length};
use crate::ws::Opcode;

/// The pattern of one heartbeat message.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    opcode: Opcode,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Json(Json),
    Record(RecordFormat),
}

/// The comparison of a configured text with messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// The whole message, byte for byte.
    #[default]
    Exact,
    /// The beginning of the message.
    Prefix,
    /// As JSON: the named members of an object must be present, others may be; arrays must have the same number of
    /// elements; `null` stands for any value.
    Json,
}

/// An invalid pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text to be compared as JSON is not JSON.
    #[error("must be JSON: {0}")]
    NotJson(String),
    /// The JSON would match any message, or is not an object or array.
    #[error("must be a JSON object or array with at least one text in it")]
    NoText,
}

impl Pattern {
    /// Creates a pattern of messages with `opcode` (text or binary) that match `text`.
    ///
    /// # Errors
    ///
    /// [`PatternError`] for an empty text, or with [`Matching::Json`] one that is not a usable JSON pattern.
    pub fn new(opcode: Opcode, text: &[u8], matching: Matching) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let content = match matching {
            Matching::Exact => Content::Exact(text.into()),
            Matching::Prefix => Content::Prefix(text.into()),
            Matching::Json => {
                let value = serde_json::from_slice(text).map_err(|error| PatternError::NotJson(error.to_string()))?;
                Content::Json(Json::new(value).ok_or(PatternError::NoText)?)
            }
        };
        Ok(Self { opcode, content })
    }

    /// Creates a pattern of messages of `format` with a heartbeat among their records.
    pub fn record(format: RecordFormat) -> Self {
        Self { opcode: format.opcode(), content: Content::Record(format) }
    }

    /// Returns whether a message of at least `at_least` bytes that begins with `start` can still match.
    pub fn may_match(&self, opcode: Opcode, start: &[u8], at_least: usize) -> bool {
        let agree = |text: &[u8]| start.iter().zip(text).all(|(a, b)| a == b);
        self.opcode == opcode
            && match &self.content {
                Content::Exact(text) => at_least <= text.len() && agree(text),
                Content::Prefix(text) => agree(text),
                Content::Json(_) => Json::may_begin(start),
                Content::Record(format) => format.may_begin(start),
            }
    }

    /// Returns whether the message `payload` is such a heartbeat and nothing else, so that it can be removed from the
    /// stream.
    pub fn matches(&self, opcode: Opcode, payload: &[u8]) -> bool {
        self.opcode == opcode
            && match &self.content {
                Content::Exact(text) => payload == &**text,
                Content::Prefix(text) => payload.starts_with(text),
                Content::Json(pattern) => pattern.matches(payload),
                Content::Record(format) => format.is_only_beats(payload),
            }
    }

    /// Returns whether the message `payload` is such a heartbeat, or contains one among its records.
    pub fn is_in(&self, opcode: Opcode, payload: &[u8]) -> bool {
        match &self.content {
            Content::Record(format) => self.opcode == opcode && format.has_beat(payload),
            Content::Exact(_) | Content::Prefix(_) | Content::Json(_) => self.matches(opcode, payload),
        }
    }

    /// Returns the length in bytes of the longest message that matches.
    pub(super) fn longest(&self) -> usize {
        match &self.content {
            Content::Exact(text) => text.len(),
            Content::Prefix(_) | Content::Json(_) | Content::Record(_) => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, matching: Matching) -> Pattern {
        Pattern::new(Opcode::TEXT, text.as_bytes(), matching).unwrap()
    }

    #[test]
    fn an_exact_pattern_is_the_whole_message() {
        let pong = text("pong", Matching::Exact);
        assert!(pong.matches(Opcode::TEXT, b"pong"));
        for other in ["", "pon", "pongs", "Pong", " pong"] {
            assert!(!pong.matches(Opcode::TEXT, other.as_bytes()), "{other}");
        }
        assert!(pong.may_match(Opcode::TEXT, b"", 0));
        assert!(pong.may_match(Opcode::TEXT, b"po", 4));
        assert!(!pong.may_match(Opcode::TEXT, b"pi", 2));
        assert!(!pong.may_match(Opcode::TEXT, b"po", 5), "it is too long already");
    }

    #[test]
    fn s48_a_binary_message_does_not_match_a_text_pattern() {
        let pong = text("pong", Matching::Exact);
        assert!(!pong.matches(Opcode::BINARY, b"pong"));
        assert!(!pong.may_match(Opcode::BINARY, b"po", 4));
    }

    #[test]
    fn a_prefix_is_the_beginning_of_the_message() {
        let pong = text("pong:", Matching::Prefix);
        assert!(pong.matches(Opcode::TEXT, b"pong:17"));
        assert!(!pong.matches(Opcode::TEXT, b"pong"));
        assert!(pong.may_match(Opcode::TEXT, b"pong:1", 200));
        assert!(!pong.may_match(Opcode::TEXT, b"pang", 200));
    }

    #[test]
    fn json_matches_what_it_names_and_leaves_the_rest_free() {
        let pong = text(r#"{"type":"pong"}"#, Matching::Json);
        for fits in [
            r#"{"type":"pong"}"#,
            r#" { "payload": {"a": 1}, "type" : "pong" } "#,
            r#"{"type":"\u0070ong"}"#,
            r#"{"t\u0079pe":"p\u006fng"}"#,
        ] {
            assert!(pong.matches(Opcode::TEXT, fits.as_bytes()), "{fits}");
        }
        for other in [r#"{"type":"ping"}"#, r#"{"kind":"pong"}"#, r#"["pong"]"#, r#"{"type":"pong""#, "pong", ""] {
            assert!(!pong.matches(Opcode::TEXT, other.as_bytes()), "{other}");
        }
        assert!(pong.may_match(Opcode::TEXT, b" {", 100));
        assert!(!pong.may_match(Opcode::TEXT, b"4", 100));
    }

    #[test]
    fn null_in_json_stands_for_any_value() {
        let beat = text(r#"[null,null,"phoenix","heartbeat",null]"#, Matching::Json);
        assert!(beat.matches(Opcode::TEXT, br#"[null,"17","phoenix","heartbeat",{}]"#));
        assert!(!beat.matches(Opcode::TEXT, br#"[null,"17","phoenix","heartbeat"]"#));
        assert!(!beat.matches(Opcode::TEXT, br#"["1","2","room","heartbeat",{}]"#));
    }

    #[test]
    fn what_can_be_no_pattern_says_why() {
        let refused = |text: &[u8], matching| Pattern::new(Opcode::TEXT, text, matching).unwrap_err();
        assert_eq!(refused(b"", Matching::Exact), PatternError::Empty);
        assert!(matches!(refused(b"{\"type\":", Matching::Json), PatternError::NotJson(_)));
        for nothing in ["{}", "[]", "17", "\"pong\"", "[1,2]", "null"] {
            assert_eq!(refused(nothing.as_bytes(), Matching::Json), PatternError::NoText, "{nothing}");
        }
    }

    #[test]
    fn deep_json_is_no_match_and_no_overflow() {
        let pong = text(r#"{"type":"pong"}"#, Matching::Json);
        let deep = format!("{{\"type\":\"pong\",\"a\":{}", "[".repeat(100_000));
        assert!(!pong.matches(Opcode::TEXT, deep.as_bytes()));
    }
}
