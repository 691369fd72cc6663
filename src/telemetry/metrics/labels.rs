//! The values of labels: closed sets, and the word for a value that is in none.

/// Stands for every value that a set does not have.
pub(super) const OTHER: &str = "other";

/// Numbers that are told apart, and the words for them.
macro_rules! numbers {
    ($(#[$doc:meta])* $numbers:ident, $words:ident: $($number:literal)* | $($group:literal)*) => {
        $(#[$doc])*
        const $numbers: &[u16] = &[$($number),*];
        $(#[$doc])*
        pub(super) const $words: &[&str] = &[$(stringify!($number),)* $($group),*];
    };
}

numbers! {
    /// Final status codes of the IANA registry, and 499 for a client that left before there was an answer; an app may
    /// make up others.
    STATUS_NUMBERS, STATUSES:
    200 201 202 203 204 205 206 207 208 226
    300 301 302 303 304 305 307 308
    400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417 418 421 422 423 424 425 426 428 429 431 451
    499
    500 501 502 503 504 505 506 507 508 510 511
    | "2xx" "3xx" "4xx" "5xx" "other"
}

numbers! {
    /// Close codes of RFC 6455 §7.4.1 and the IANA registry. Both peers may make up those from 3000 on.
    CLOSE_NUMBERS, CLOSE_CODES:
    1000 1001 1002 1003 1005 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015
    | "3xxx" "4xxx" "other"
}

/// Methods of RFC 9110 §9 and RFC 5789, and one for all others.
pub(super) const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", OTHER];

/// Returns the index of `code` in [`STATUSES`].
pub(super) fn status(code: u16) -> usize {
    let class = match code {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => OTHER,
    };
    STATUS_NUMBERS.binary_search(&code).unwrap_or_else(|_| position(STATUSES, class))
}

/// Returns the index of `method` in [`METHODS`].
pub(super) fn method(method: &str) -> usize {
    position(METHODS, method)
}

/// The word for a close code.
pub(super) fn close_code(code: u16) -> &'static str {
    match (CLOSE_NUMBERS.binary_search(&code), code) {
        (Ok(at), _) => CLOSE_CODES[at],
        (Err(_), 3000..=3999) => "3xxx",
        (Err(_), 4000..=4999) => "4xxx",
        _ => OTHER,
    }
}

/// `word` as `set` has it. What the program says of itself must be in it.
pub(super) fn known(set: &'static [&'static str], word: &str) -> &'static str {
    let found = set.iter().find(|known| **known == word);
    debug_assert!(found.is_some(), "the catalogue of metrics does not know {word:?}, only {set:?}");
    found.copied().unwrap_or(OTHER)
}

/// As [`known`], of a word that a library or a peer has chosen.
pub(super) fn known_or_other(set: &'static [&'static str], word: &str) -> &'static str {
    set.iter().find(|known| **known == word).copied().unwrap_or(OTHER)
}

/// Returns the index of `word` in `set`, which ends with the word for all others.
fn position(set: &[&str], word: &str) -> usize {
    set.iter().position(|known| *known == word).unwrap_or(set.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_peer_makes_up_is_a_word_of_the_set() {
        for (code, word) in
            [(200, "200"), (299, "2xx"), (418, "418"), (499, "499"), (499, "499"), (430, "4xx"), (599, "5xx")]
        {
            assert_eq!(STATUSES[status(code)], word);
        }
        for code in [0, 99, 100, 199, 600, 999, u16::MAX] {
            assert_eq!(STATUSES[status(code)], OTHER, "{code}");
        }
        for (code, word) in [(1000, "1000"), (1006, "1006"), (3000, "3xxx"), (3999, "3xxx"), (4000, "4xxx")] {
            assert_eq!(close_code(code), word);
        }
        for code in [0, 999, 1004, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(close_code(code), OTHER, "{code}");
        }
        for (sent, word) in [("GET", "GET"), ("PATCH", "PATCH"), ("get", OTHER), ("BREW", OTHER), ("", OTHER)] {
            assert_eq!(METHODS[method(sent)], word);
        }
    }

    #[test]
    fn numbers_are_sorted_for_the_search() {
        assert!(STATUS_NUMBERS.is_sorted() && CLOSE_NUMBERS.is_sorted());
    }
}
