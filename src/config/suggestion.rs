//! "Did you mean": the word that was probably meant.

/// The candidate nearest to `word`, if one is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let slips = |candidate: &str| strsim::damerau_levenshtein(&word, &plain(candidate));
    let near = candidates.into_iter().map(|candidate| (slips(candidate), candidate));
    // A third of the letters may be wrong: fewer would miss "certs", more would find a friend for every word.
    let near = near.filter(|(slips, candidate)| *slips <= (candidate.len() / 3).max(1));
    near.min_by_key(|(slips, _)| *slips).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_none() {
        let words = ["interval", "timeout", "any_bytes", "off"];
        assert_eq!(nearest("intervall", words), Some("interval"));
        assert_eq!(nearest("Timeuot", words), Some("timeout"));
        assert_eq!(nearest("any-bytes", words), Some("any_bytes"));
        assert_eq!(nearest("of", words), Some("off"));
        assert_eq!(nearest("drain", words), None);
        assert_eq!(nearest("graphql_ws", ["pusher", "graphql-ws"]), Some("graphql-ws"));
    }

    #[test]
    fn a_huge_word_is_no_burden() {
        assert_eq!(nearest(&"x".repeat(1 << 16), ["interval"]), None);
    }
}
