//! The JSON body of a request, read field by field, so that every error names its field.

use std::pin::pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};

use super::query::unknown;
use super::response::{RequestRefusal, short};
use crate::suspension::timeout;

/// The maximum size of a body in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The number of bytes read of a body that is too large, so that its sender can read the response.
const MAX_READ: u64 = 1024 * 1024;
/// The time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields of one object; reading a field removes it.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the body of `request`, whose fields must be among `known`; an empty body has no fields. Fails with 400
    /// (malformed), 408 (too slow), 413 (too large) or 415 (no JSON).
    pub(super) async fn read(request: Request<Incoming>, known: &[&str]) -> Result<Self, RequestRefusal> {
        let (head, body) = request.into_parts();
        let late = |_| {
            let message = format!("the body took longer than {BODY_TIMEOUT:?}; send it at once");
            RequestRefusal::new(StatusCode::REQUEST_TIMEOUT, "body", message)
        };
        let bytes = timeout(BODY_TIMEOUT, pin!(collect(body))).await.map_err(late)??;
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        if !is_json(&head.headers) {
            let message = "send the body with \"Content-Type: application/json\"";
            return Err(RequestRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| RequestRefusal::bad("json", format!("the body is no JSON: {error}")))?;
        Self::of("json", value, known)
    }

    /// Returns the fields of `value`, which must be an object; `code` is the error code otherwise.
    fn of(code: &'static str, value: Value, known: &[&str]) -> Result<Self, RequestRefusal> {
        let Value::Object(fields) = value else {
            return Err(RequestRefusal::bad(
                code,
                format!("an object is required here, not {}", short(&value.to_string())),
            ));
        };
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(RequestRefusal::bad("field", unknown("field", name, known))),
            None => Ok(Self(fields)),
        }
    }

    /// Takes the field `name` and converts it with `read`; null counts as absent. `must_be` describes the form, for the
    /// error message.
    fn take<T>(
        &mut self,
        name: &'static str,
        must_be: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, RequestRefusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(RequestRefusal::bad(
                    name,
                    format!("{name} is {}; it must be {must_be}", short(&value.to_string())),
                )),
            },
        }
    }

    /// Takes a string.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, RequestRefusal> {
        self.take(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a whole number.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        must_be: &str,
    ) -> Result<Option<T>, RequestRefusal> {
        self.take(name, must_be, |value| T::try_from(value.as_u64()?).ok())
    }

    /// Takes a boolean; an absent one is false.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, RequestRefusal> {
        Ok(self.take(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// Takes a list of strings, each parsed as a `T`.
    pub(super) fn list<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        must_be: &str,
    ) -> Result<Option<Vec<T>>, RequestRefusal> {
        self.take(name, must_be, |value| value.as_array()?.iter().map(|value| value.as_str()?.parse().ok()).collect())
    }

    /// Takes an object whose fields must be among `known`.
    pub(super) fn object(&mut self, name: &'static str, known: &[&str]) -> Result<Option<Self>, RequestRefusal> {
        let value = self.take(name, "an object", |value| Some(value.clone()))?;
        value.map(|value| Self::of(name, value, known)).transpose()
    }
}

/// Collects `body`. Fails when it is too long or breaks off.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, RequestRefusal> {
    let too_long = || {
        let message = format!("the body is longer than {MAX_BODY} bytes; send less");
        RequestRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body", message)
    };
    if body.size_hint().lower() > MAX_READ {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut seen = 0_u64;
    while let Some(frame) = body.frame().await {
        let broken = |error| RequestRefusal::bad("body", format!("the body broke off: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        seen += data.len() as u64;
        if seen > MAX_READ {
            break;
        }
        if seen <= MAX_BODY as u64 {
            bytes.extend_from_slice(&data);
        }
    }
    if seen > MAX_BODY as u64 { Err(too_long()) } else { Ok(bytes) }
}

/// Returns whether `Content-Type` is JSON (RFC 9110 §8.3). Parameters are ignored: JSON is UTF-8 (RFC 8259 §8.1).
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
        assert!(fields(json!([1])).expect_err("a list").contains("an object is required here, not [1]"));
    }

    #[test]
    fn a_value_of_another_kind_is_told_by_its_name() {
        let mut read = fields(json!({"code": -1, "reason": 5, "dry_run": "yes", "ids": ["a", 7]})).expect("known");
        let message = |result: Result<bool, RequestRefusal>| result.expect_err("wrong").message;
        let code: Result<Option<u16>, _> = read.number("code", "a close code");
        assert_eq!(message(code.map(|_| true)), "code is -1; it must be a close code");
        assert_eq!(message(read.text("reason").map(|_| true)), "reason is 5; it must be a string");
        assert_eq!(message(read.flag("dry_run")), "dry_run is \"yes\"; it must be true or false");
        let ids: Result<Option<Vec<String>>, _> = read.list("ids", "names");
        assert_eq!(message(ids.map(|_| true)), "ids is [\"a\",7]; it must be names");
        let mut nothing = fields(json!({"reason": null})).expect("known");
        assert_eq!(nothing.text("reason").ok().flatten(), None);
        assert_eq!(nothing.flag("dry_run").ok(), Some(false));
    }
}
