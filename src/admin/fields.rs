//! The JSON body of a request, read field by field, so that every mistake is told by the name of its field.

use std::pin::pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};

use super::answer::{Refusal, short};
use super::query::unknown;
use crate::suspension::timeout;

/// Bytes of a body at most.
const BODY: usize = 64 * 1024;
/// Bytes that are read past that, so that who sends them gets to read the answer.
const SPILL: u64 = 1024 * 1024;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fields of one object, which are taken out as they are read.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the body of `request`, whose fields may be `known` ones; no body is no fields.
    pub(super) async fn read(request: Request<Incoming>, known: &[&str]) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let late = |_| {
            let message = format!("the body took longer than {PATIENCE:?}; send it at once");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "body", message)
        };
        let bytes = timeout(PATIENCE, pin!(collect(body))).await.map_err(late)??;
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        if !is_json(&head.headers) {
            let message = "send the body with \"Content-Type: application/json\"";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::bad("json", format!("the body is no JSON: {error}")))?;
        Self::of("json", value, known)
    }

    /// The fields of `value`, which must be an object; `code` names it.
    fn of(code: &'static str, value: Value, known: &[&str]) -> Result<Self, Refusal> {
        let Value::Object(fields) = value else {
            return Err(Refusal::bad(code, format!("an object is wanted here, not {}", short(&value.to_string()))));
        };
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Refusal::bad("field", unknown("field", name, known))),
            None => Ok(Self(fields)),
        }
    }

    /// The value of `name` by `read`, which must find it to be what `must_be` says; null is none.
    fn take<T>(
        &mut self,
        name: &'static str,
        must_be: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => {
                    Err(Refusal::bad(name, format!("{name} is {}; it must be {must_be}", short(&value.to_string()))))
                }
            },
        }
    }

    /// A string.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        self.take(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A whole number.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &'static str, must_be: &str) -> Result<Option<T>, Refusal> {
        self.take(name, must_be, |value| T::try_from(value.as_u64()?).ok())
    }

    /// True or false; false where it is not there.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Refusal> {
        Ok(self.take(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A list of strings that are `T`s.
    pub(super) fn list<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        must_be: &str,
    ) -> Result<Option<Vec<T>>, Refusal> {
        self.take(name, must_be, |value| value.as_array()?.iter().map(|value| value.as_str()?.parse().ok()).collect())
    }

    /// An object with `known` fields.
    pub(super) fn object(&mut self, name: &'static str, known: &[&str]) -> Result<Option<Self>, Refusal> {
        let value = self.take(name, "an object", |value| Some(value.clone()))?;
        value.map(|value| Self::of(name, value, known)).transpose()
    }
}

/// The whole of `body`, unless it is too long.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let too_long = || {
        let message = format!("the body is longer than {BODY} bytes; send less");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body", message)
    };
    if body.size_hint().lower() > SPILL {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut seen = 0_u64;
    while let Some(frame) = body.frame().await {
        let broken = |error| Refusal::bad("body", format!("the body broke off: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        seen += data.len() as u64;
        if seen > SPILL {
            break;
        }
        if seen <= BODY as u64 {
            bytes.extend_from_slice(&data);
        }
    }
    if seen > BODY as u64 { Err(too_long()) } else { Ok(bytes) }
}

/// Whether the body is said to be JSON (RFC 9110 §8.3), in whatever encoding, which can be but one.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Result<Fields, String> {
        Fields::of("json", value, &["code", "reason", "dry_run", "ids"]).map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_slip_is_told_with_the_word_that_was_meant() {
        let error = fields(json!({"raeson": "x"})).expect_err("a slip");
        assert_eq!(error, r#"unknown field "raeson"; did you mean "reason"? (known: code, reason, dry_run, ids)"#);
        assert!(fields(json!([1])).expect_err("a list").contains("an object is wanted here, not [1]"));
    }

    #[test]
    fn a_value_of_another_kind_is_told_by_its_name() {
        let mut read = fields(json!({"code": -1, "reason": 5, "dry_run": "yes", "ids": ["a", 7]})).expect("known");
        let told = |result: Result<bool, Refusal>| result.expect_err("wrong").message;
        let code: Result<Option<u16>, _> = read.number("code", "a close code");
        assert_eq!(told(code.map(|_| true)), "code is -1; it must be a close code");
        assert_eq!(told(read.text("reason").map(|_| true)), "reason is 5; it must be a string");
        assert_eq!(told(read.flag("dry_run")), "dry_run is \"yes\"; it must be true or false");
        let ids: Result<Option<Vec<String>>, _> = read.list("ids", "names");
        assert_eq!(told(ids.map(|_| true)), "ids is [\"a\",7]; it must be names");
        let mut nothing = fields(json!({"reason": null})).expect("known");
        assert_eq!(nothing.text("reason").ok().flatten(), None);
        assert_eq!(nothing.flag("dry_run").ok(), Some(false));
    }
}
