//! The readers of values: each returns the value, or what it must be and how to write it.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use figment::value::Value;

use super::suggestion::nearest;

/// A value as it is set.
#[derive(Debug)]
pub(super) struct Given<'a> {
    /// The value as TOML reads it.
    pub(super) value: &'a Value,
    /// The text of the variable or flag that sets this one value.
    pub(super) literal: Option<&'a str>,
    /// The folder that a relative path starts from.
    pub(super) folder: &'a Path,
}

/// The reason why a value is refused.
#[derive(Debug)]
pub(super) struct Problem {
    /// Continues the name of the key: "must be …", "cannot be …".
    pub(super) what: String,
    /// The remedy, as text.
    pub(super) help: Option<String>,
}

/// The result of reading one value.
pub(super) type Read<T> = Result<T, Problem>;

impl Problem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl Given<'_> {
    /// Returns the value as text. In a variable or flag every value is text, even one that looks like a number.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_str().or(match self.value {
            Value::Dict(..) | Value::Array(..) => None,
            _ => self.literal,
        })
    }

    /// Returns the value as a whole number.
    pub(super) fn integer(&self) -> Option<i128> {
        self.value.to_i128()
    }
}

/// Reads a duration above zero, with its unit.
pub(super) fn duration(given: &Given<'_>) -> Read<Duration> {
    match duration_or_zero(given)? {
        Duration::ZERO => Err(Problem::new("must be longer than zero").with_help("the shortest is \"1ms\"")),
        duration => Ok(duration),
    }
}

/// Reads a duration with its unit, or `"0s"`.
pub(super) fn duration_or_zero(given: &Given<'_>) -> Read<Duration> {
    // Beyond a year sums of deadlines could leave the range of a clock, and below a millisecond timers only spin.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
    const SHORTEST: Duration = Duration::from_millis(1);
    let misfit = || Problem::new("must be a duration such as \"25s\"");
    let help = "write a number and its unit: ms, s, m, h or d";
    if let Some(number) = given.integer() {
        return Err(misfit().with_help(format!("write \"{}s\"", number.unsigned_abs())));
    }
    let text = given.text().ok_or_else(|| match given.value.to_f64() {
        Some(seconds) if seconds > 0.0 => misfit().with_help(format!("write \"{seconds}s\"")),
        _ => misfit().with_help(help),
    })?;
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() && duration < SHORTEST => Err(Problem::new("must be at least \"1ms\"")),
        Ok(duration) if duration > LONGEST => Err(Problem::new("must be at most a year")),
        Ok(duration) => Ok(duration),
        Err(_) if text.starts_with('-') => {
            Err(misfit().with_help(format!("a duration has no sign: write \"{}\"", text.trim_start_matches('-'))))
        }
        Err(_) if text.parse::<f64>().is_ok() => Err(misfit().with_help(format!("write \"{text}s\""))),
        Err(_) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(misfit().with_help("units are ms, s, m, h and d, in small letters"))
        }
        Err(_) => Err(misfit().with_help(help)),
    }
}

/// Reads a duration that is not shorter than `shortest`.
pub(super) fn at_least(shortest: Duration) -> impl Fn(&Given<'_>) -> Read<Duration> {
    move |given| match duration(given)? {
        short if short < shortest => {
            Err(Problem::new(format!("must be at least \"{}\"", humantime::format_duration(shortest))))
        }
        long => Ok(long),
    }
}

/// Reads a number of bytes above zero, plain or with a unit.
pub(super) fn size(given: &Given<'_>) -> Read<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("B", 1),
        ("kB", 1000),
        ("KiB", 1 << 10),
        ("MB", 1_000_000),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("GiB", 1 << 30),
    ];
    let misfit = || {
        let problem = Problem::new("must be a size such as \"64KiB\"");
        problem.with_help("write a whole number of bytes, or one with a unit: B, KiB, MiB, GiB, kB, MB or GB")
    };
    if let Some(number) = given.integer() {
        return at_least_a_byte(u64::try_from(number).map_err(|_| misfit())?);
    }
    let text = given.text().ok_or_else(misfit)?;
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| misfit())?;
    let unit = unit.trim();
    let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit) || unit.is_empty());
    let (_, factor) = factor.ok_or_else(|| misfit().with_help("units are B, KiB, MiB, GiB, kB, MB and GB"))?;
    at_least_a_byte(number.checked_mul(*factor).ok_or_else(|| Problem::new("must be a size that 64 bits can hold"))?)
}

fn at_least_a_byte(bytes: u64) -> Read<u64> {
    if bytes == 0 { Err(Problem::new("must be more than zero bytes")) } else { Ok(bytes) }
}

/// Reads `"off"`, or a value with `form`.
pub(super) fn off_or<T>(form: impl Fn(&Given<'_>) -> Read<T>) -> impl Fn(&Given<'_>) -> Read<Option<T>> {
    word_or("off", form)
}

/// Reads `"auto"`, or a value with `form`.
pub(super) fn auto_or<T>(form: impl Fn(&Given<'_>) -> Read<T>) -> impl Fn(&Given<'_>) -> Read<Option<T>> {
    word_or("auto", form)
}

fn word_or<T>(word: &'static str, form: impl Fn(&Given<'_>) -> Read<T>) -> impl Fn(&Given<'_>) -> Read<Option<T>> {
    move |given| match given.text() {
        Some(text) if text == word => Ok(None),
        _ => form(given).map(Some).map_err(|problem| {
            let what = format!("{}, or \"{word}\"", problem.what);
            match given.value.to_bool() {
                Some(false) if word == "off" => Problem { what, ..problem }.with_help("write \"off\""),
                _ => Problem { what, ..problem },
            }
        }),
    }
}

/// Reads a whole number in `range`.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Given<'_>) -> Read<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |given| {
        let number = given.integer().and_then(|number| T::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            let problem = Problem::new(format!("must be a whole number from {least} to {most}"));
            match (given.integer(), given.text().map(str::trim)) {
                (Some(number), _) if number <= 0 => problem.with_help(format!("the smallest is {least}")),
                (Some(_), _) => problem.with_help(format!("the largest is {most}")),
                (None, Some(text)) if text.parse::<u64>().is_ok() => {
                    problem.with_help(format!("write {text}, without quotes"))
                }
                _ => problem.with_help(format!("write a whole number without quotes, such as {most}")),
            }
        })
    }
}

/// Reads `"off"`, or a whole number from 1 to `most`.
pub(super) fn bounded<T>(most: T) -> impl Fn(&Given<'_>) -> Read<Option<T>>
where
    T: TryFrom<i128> + PartialOrd + Display + From<bool> + Clone,
{
    off_or(move |given| {
        whole(T::from(true)..=most.clone())(given).map_err(|problem| match given.integer() {
            Some(0) => problem.with_help("write \"off\" for no limit"),
            _ => problem,
        })
    })
}

/// Reads a share of one.
pub(super) fn share(given: &Given<'_>) -> Read<f64> {
    let number = given.value.to_f64().or(match given.integer() {
        Some(0) => Some(0.0),
        Some(1) => Some(1.0),
        _ => None,
    });
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| {
        let problem = Problem::new("must be a number from 0 to 1");
        match given.text().and_then(|text| text.parse::<f64>().ok()) {
            Some(number) => problem.with_help(format!("write {number}, without quotes")),
            None => problem.with_help("write a share: 0.2 for a fifth"),
        }
    })
}

/// Reads `true` or `false`.
pub(super) fn boolean(given: &Given<'_>) -> Read<bool> {
    given.value.to_bool().ok_or_else(|| {
        let problem = Problem::new("must be true or false");
        let word = given.text().map(str::to_lowercase);
        let meant = match (word.as_deref(), given.integer()) {
            (Some("true" | "yes" | "on"), _) | (_, Some(1)) => true,
            (Some("false" | "no" | "off"), _) | (_, Some(0)) => false,
            _ => return problem.with_help("write one of the two, without quotes"),
        };
        problem.with_help(format!("write {meant}"))
    })
}

/// Reads a value with `form`; in errors a table is allowed too, which is read elsewhere.
pub(super) fn or_table<T>(form: impl Fn(&Given<'_>) -> Read<T>) -> impl Fn(&Given<'_>) -> Read<T> {
    move |given| form(given).map_err(|problem| Problem { what: format!("{} or a table", problem.what), ..problem })
}

/// The words that a key may be set to, each with its meaning.
pub(super) type Words<T> = &'static [(&'static str, T)];

/// Reads one of `words`.
pub(super) fn one_of<T: Copy + Debug>(words: Words<T>) -> impl Fn(&Given<'_>) -> Read<T> {
    move |given| {
        let text = given.text();
        let found = words.iter().find(|(name, _)| text == Some(name)).map(|(_, meaning)| *meaning);
        let meant = given.value.to_bool().map(|on| if on { "on" } else { "off" });
        found.ok_or_else(|| match words.iter().find(|(name, _)| meant == Some(name)) {
            Some((name, _)) => {
                none_of("must be", text, words.iter().map(|(name, _)| *name)).with_help(format!("write \"{name}\""))
            }
            None => none_of("must be", text, words.iter().map(|(name, _)| *name)),
        })
    }
}

/// Returns the word of `words` for `meaning`, which has one.
pub(super) fn word<T: PartialEq>(words: Words<T>, meaning: &T) -> &'static str {
    let found = words.iter().find(|(_, known)| known == meaning);
    found.map(|(word, _)| *word).expect("whatever can be meant was read from one of the words")
}

/// Returns the problem of a value that is none of `words`, which follow `lead` in the message.
pub(super) fn none_of<'a>(lead: &str, text: Option<&str>, words: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let problem = Problem::new(format!("{lead} {}", enumerate(words.clone())));
    match text.and_then(|text| nearest(text, words)) {
        Some(near) => problem.with_help(format!("did you mean \"{near}\"?")),
        None => problem,
    }
}

/// Writes words as `"a", "b" or "c"`.
pub(super) fn enumerate<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}
