//! Text that goes to a person's terminal, or into a pipe.

use std::io::{self, IsTerminal, Write};

/// Prints `text` at once. Whoever read it may have gone, as `head` does; that is no failure of ours.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// How many characters a line of the terminal holds that standard output is; `None` where it is none.
pub(super) fn width() -> Option<usize> {
    let out = io::stdout();
    let columns = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?.ws_col;
    // A terminal that does not know its size says 0.
    (columns > 0).then_some(usize::from(columns))
}

/// `text` with everything replaced that could play tricks on a terminal: much of what is shown was chosen by clients.
pub(super) fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `text` in at most `width` characters; what is cut shows an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// `1 session`, `2 sessions`.
pub(super) fn sessions(count: u64) -> String {
    format!("{count} session{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_chose_reaches_the_terminal_as_a_command() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}c\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d");
        assert_eq!(printable("größe ✓"), "größe ✓");
    }

    #[test]
    fn a_cut_says_that_it_is_one() {
        assert_eq!(cut("größe", 5), "größe");
        assert_eq!(cut("größer", 5), "größ…");
        assert_eq!((cut("ab", 1), cut("ab", 0)), ("…".to_owned(), String::new()));
    }
}
