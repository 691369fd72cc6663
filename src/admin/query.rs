//! The query parameters of a request.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use super::response::{RequestRefusal, short};
use crate::config::nearest;

/// Parameters by name; names are known and unique.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses `text` (WHATWG URL, `application/x-www-form-urlencoded`). Fails with 400 when a parameter is not among
    /// `known`, or is repeated.
    pub(super) fn of(text: Option<&'a str>, known: &[&str]) -> Result<Self, RequestRefusal> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(RequestRefusal::bad("parameter", unknown("parameter", &name, known)));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(RequestRefusal::bad(
                    "parameter",
                    format!("parameter {:?} occurs twice; give it once", short(&name)),
                ));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// Returns the value of `name`; an empty value counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
        found.filter(|value| !value.is_empty())
    }

    /// Parses the value of `name` as a `T`; `must_be` describes the form, for the error message.
    pub(super) fn parse<T: FromStr>(
        &self,
        name: &'static str,
        must_be: impl Display,
    ) -> Result<Option<T>, RequestRefusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, text, must_be))
    }
}

/// Returns the error for a parameter `name` with the invalid value `text`.
pub(super) fn wrong(name: &'static str, text: &str, must_be: impl Display) -> RequestRefusal {
    RequestRefusal::bad(name, format!("{name} is {:?}; it must be {must_be}", short(text)))
}

/// Returns the message for an unknown `name` of a `kind` (parameter or field), with the nearest known name.
pub(super) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let name = &*short(name);
    let hint = nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near:?}?"));
    match known {
        [] => format!("unknown {kind} {name:?}; there is none here"),
        known => format!("unknown {kind} {name:?}{} (known: {})", hint.unwrap_or_default(), known.join(", ")),
    }
}
