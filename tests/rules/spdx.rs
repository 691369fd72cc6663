//! SPDX licence expressions, as far as packages use them: names, AND, OR, WITH, parentheses, and the old slash for OR.

use std::iter::Peekable;
use std::vec::IntoIter;

type Tokens = Peekable<IntoIter<String>>;

/// Returns whether licences that `allowed` accepts suffice to satisfy `expression`. A malformed one is never satisfied.
pub(crate) fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<String> = spaced.split_whitespace().map(String::from).collect();
    let mut tokens = words.into_iter().peekable();
    any_of(&mut tokens, &allowed).is_some_and(|satisfied| satisfied && tokens.next().is_none())
}

/// Parses OR, which binds weaker than AND (SPDX specification, annex D.4).
fn any_of(tokens: &mut Tokens, allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    let mut satisfied = all_of(tokens, allowed)?;
    while tokens.next_if(|token| token == "OR").is_some() {
        satisfied |= all_of(tokens, allowed)?;
    }
    Some(satisfied)
}

fn all_of(tokens: &mut Tokens, allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    let mut satisfied = one(tokens, allowed)?;
    while tokens.next_if(|token| token == "AND").is_some() {
        satisfied &= one(tokens, allowed)?;
    }
    Some(satisfied)
}

fn one(tokens: &mut Tokens, allowed: &impl Fn(&str) -> bool) -> Option<bool> {
    let token = tokens.next()?;
    if token == "(" {
        let satisfied = any_of(tokens, allowed)?;
        return (tokens.next()? == ")").then_some(satisfied);
    }
    if matches!(&*token, ")" | "AND" | "OR" | "WITH") {
        return None;
    }
    if tokens.next_if(|token| token == "WITH").is_some() {
        return Some(allowed(&format!("{token} WITH {}", tokens.next()?)));
    }
    Some(allowed(&token))
}

#[test]
fn expressions_mean_what_they_say() {
    let allowed = |licence: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&licence);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(satisfied(good, allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR OpenSSL)",
        "Apache-2.0",
        "MIT OR",
        "(MIT",
        "MIT ISC",
        "AND MIT",
    ] {
        assert!(!satisfied(bad, allowed), "{bad}");
    }
    assert!(satisfied("GPL-3.0 AND ISC OR MIT", allowed), "AND binds stronger");
}
