//! Text that is not TOML: the place of the fault, and its remedy.

use toml_edit::TomlError;

use super::report::{Finding, Report, Spot};

/// Finds the line of a key in a text that is TOML.
type FindLine = fn(&str, &[&str]) -> Option<usize>;

/// Returns the fault that keeps `text`, which stands in `name`, from being TOML.
pub(super) fn report(name: &str, text: &str, error: &TomlError, find_line: FindLine) -> Report {
    let spot = match error.span() {
        Some(span) => Spot::span(name, text, span),
        None => Spot::file(name),
    };
    let message = error.message().trim().replace('\n', ", ");
    let help = error.span().and_then(|span| {
        let begin = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
        let line = text[begin..].lines().next()?;
        duplicate(text.get(..begin)?, &message, find_line).or_else(|| remedy(line))
    });
    Report::of(Finding::new(spot, format!("not valid TOML: {message}"), help))
}

/// Names the line of the first of two equal keys; `before` is the text above the second.
fn duplicate(before: &str, message: &str, find_line: FindLine) -> Option<String> {
    let mut quoted = message.split_once("duplicate key ")?.1.split('`').skip(1).step_by(2);
    let key = quoted.next()?;
    let table = quoted.next().unwrap_or_default();
    let keys: Vec<&str> = table.split('.').filter(|key| !key.is_empty()).chain([key]).collect();
    let line = find_line(before, &keys)?;
    Some(format!("line {line} has it already: keep one of the two"))
}

/// The remedy for a line that is no TOML.
fn remedy(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with('[') {
        let close = if line.starts_with("[[") { "]]" } else { "]" };
        return (!line.contains(close)).then(|| format!("end the header with `{close}`"));
    }
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let Some((key, value)) =
        line.split_once('=').map(|(key, value)| (key.trim(), value)).filter(|(key, _)| is_key(key))
    else {
        let (key, value) = line.split_once([':', ' '])?;
        let value = value.trim();
        let is_pair = is_key(key) && value.parse::<toml_edit::Value>().is_ok();
        return is_pair.then(|| format!("a `=` is missing between key and value: write {key} = {value}"));
    };
    let value = value.split(" #").next().unwrap_or(value).trim();
    if value.is_empty() {
        return Some(format!("the value of `{key}` is missing"));
    }
    for (open, close) in [('[', ']'), ('{', '}')] {
        if value.starts_with(open) {
            return (!value.contains(close)).then(|| format!("the closing `{close}` is missing"));
        }
    }
    if value.parse::<toml_edit::Value>().is_ok() {
        return None;
    }
    if let "true" | "false" = value.to_lowercase().as_str() {
        return Some(format!("write {key} = {}", value.to_lowercase()));
    }
    if let quote @ ('"' | '\'') = value.chars().next()? {
        let is_open = value.len() == 1 || !value.ends_with(quote);
        return is_open.then(|| format!("the closing {quote} is missing"));
    }
    Some(format!("text stands in quotes: write {key} = {}", toml_edit::Value::from(value)))
}
