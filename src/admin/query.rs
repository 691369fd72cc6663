//! The parameters of a request's target.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use super::answer::{Refusal, short};
use crate::config::nearest;

/// Parameters by name; no name twice, and none that nobody knows.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads `text` (WHATWG URL, `application/x-www-form-urlencoded`), which may name `known` parameters.
    pub(super) fn of(text: Option<&'a str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Refusal::bad("parameter", unknown("parameter", &name, known)));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::bad(
                    "parameter",
                    format!("parameter {:?} is there twice; say it once", short(&name)),
                ));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
        found.filter(|value| !value.is_empty())
    }

    /// The value of `name` as a `T`; the refusal says what it must be.
    pub(super) fn parse<T: FromStr>(&self, name: &'static str, must_be: impl Display) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, text, must_be))
    }
}

/// `name` has the value `text`, which it must not.
pub(super) fn wrong(name: &'static str, text: &str, must_be: impl Display) -> Refusal {
    Refusal::bad(name, format!("{name} is {:?}; it must be {must_be}", short(text)))
}

/// What is told of a `kind` of thing called `name` that nobody knows.
pub(super) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let name = &*short(name);
    let hint = nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near:?}?"));
    match known {
        [] => format!("unknown {kind} {name:?}; there is none here"),
        known => format!("unknown {kind} {name:?}{} (known: {})", hint.unwrap_or_default(), known.join(", ")),
    }
}
