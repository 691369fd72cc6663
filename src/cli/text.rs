//! Text for terminals and pipes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use rustix::io::Errno;

use crate::telemetry::is_control;

/// Prints `text` and flushes it. A reader that has closed the pipe, as `head` does, is no failure.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Returns the columns of the terminal on standard output; `None` if it is not a terminal.
pub(super) fn width() -> Option<usize> {
    let out = io::stdout();
    let columns = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?.ws_col;
    // A terminal of unknown size reports 0.
    (columns > 0).then_some(usize::from(columns))
}

/// Replaces all characters that could manipulate a terminal: much of the text printed was chosen by clients.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Escapes the same characters in `json`, which keeps its value. `serde_json` itself escapes those below U+0020 inside
/// strings; outside strings they are white space.
pub(super) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c > '~' && is_control(c) {
            write!(escaped, "\\u{:04x}", u32::from(c)).expect("writing to a string");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Shortens `text` to at most `width` characters; an ellipsis marks the cut.
pub(super) fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// Shortens `text` to at most `width` characters, with an ellipsis in its middle: the end is kept whole as long as half
/// of `width` holds it.
pub(super) fn truncate_middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (front, back) = (kept - kept / 2, kept / 2);
    let ellipsis = (width > 0).then_some('…');
    text.chars().take(front).chain(ellipsis).chain(text.chars().skip(length - back)).collect()
}

/// Formats a number of sessions: `1 session`, `2 sessions`.
pub(super) fn sessions(count: u64) -> String {
    format!("{count} session{}", if count == 1 { "" } else { "s" })
}

/// Writes a line with the name of this program to standard error, in one piece: the log and an app write there, too.
pub(super) fn complain(text: &str) {
    // Nothing is left to which a failure could be reported.
    let _ = io::stderr().write_all(format!("pulsegate: {text}\n").as_bytes());
}

/// Returns an error and its causes in one line, with the remedy for a lack of descriptors, which may occur anywhere.
pub(super) fn fault(error: &anyhow::Error) -> String {
    let text = in_full(error.chain());
    let lacks_files = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        let errno = cause.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE))
    });
    if lacks_files && !text.contains("ulimit") {
        return format!("{text}; raise the limit of open files, as with `ulimit -n 1024`");
    }
    text
}

/// Returns an error and its causes in one line; a cause whose text is already contained is left out.
pub(super) fn in_full<'e>(chain: impl Iterator<Item = &'e (dyn std::error::Error + 'static)>) -> String {
    let mut line = String::new();
    for cause in chain.map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
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
    fn json_keeps_its_value_and_nothing_in_it_reaches_the_terminal_as_a_command() {
        let disturbing: String = ('\0'..='\u{2100}').filter(|c| is_control(*c)).collect();
        for text in
            ["\u{9b}2J\u{7f}", "a\u{2028}b\u{2029}c", "\u{85}\u{202e}\u{61c}", "größe ✓ \u{1f600}", disturbing.as_str()]
        {
            let value = serde_json::json!({ text: [text] });
            let json = escaped(&format!("{value:#}"));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON"), value, "{json}");
            assert!(!json.chars().any(|c| c != '\n' && is_control(c)), "{}", json.escape_unicode());
        }
        assert_eq!(escaped("\"\u{9b}ö\u{2028}\"\n"), "\"\\u009bö\\u2028\"\n");
        assert_eq!(printable("a\u{2028}b\u{2029}"), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn a_cut_says_that_it_is_one() {
        assert_eq!(truncate("größe", 5), "größe");
        assert_eq!(truncate("größer", 5), "größ…");
        assert_eq!((truncate("ab", 1), truncate("ab", 0)), ("…".to_owned(), String::new()));
        assert_eq!(truncate_middle("größer", 6), "größer");
        assert_eq!(truncate_middle("[2001:db8::1234:5678]:65535", 21), "[2001:db8:…678]:65535");
        assert_eq!([0, 1, 2].map(|width| truncate_middle("abc", width)), ["", "…", "a…"]);
    }

    #[test]
    fn a_lack_of_descriptors_has_its_remedy() {
        let error = |errno: Errno| fault(&anyhow::Error::from(io::Error::from(errno)).context("cannot start"));
        assert_eq!(
            error(Errno::MFILE),
            "cannot start: Too many open files (os error 24); raise the limit of open files, as with `ulimit -n 1024`"
        );
        assert_eq!(error(Errno::ACCESS), "cannot start: Permission denied (os error 13)");
    }

    #[test]
    fn a_cause_is_named_once() {
        let inner = || anyhow::anyhow!("in use");
        assert_eq!(
            in_full(inner().context("cannot listen on [::1]:1: in use").chain()),
            "cannot listen on [::1]:1: in use"
        );
        assert_eq!(in_full(inner().context("cannot listen").chain()), "cannot listen: in use");
    }
}
