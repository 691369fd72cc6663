//! Conversion of a terminal's bytes to keys (ECMA-48 control sequences, in xterm's variants).

/// A key with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A letter.
    Char(char),
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
}

/// The longest sequence of a key, in bytes; longer ones are ignored.
const LONGEST: usize = 16;

/// The position within a sequence after the last byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC [` or `ESC O`, with the parameters so far.
    Sequence(String),
}

/// A parser from bytes to keys; a sequence may be split anywhere.
#[derive(Debug, Default)]
pub(super) struct Keys(State);

impl Keys {
    /// Returns the keys completed by these bytes; keys without a function are left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    fn byte(&mut self, byte: u8) -> Option<Key> {
        const ESCAPE: u8 = 0x1b;
        let char = char::from(byte);
        match std::mem::take(&mut self.0) {
            _ if byte == ESCAPE => self.0 = State::Escape,
            State::Ground => return char.is_ascii_graphic().then_some(Key::Char(char)),
            State::Escape if matches!(char, '[' | 'O') => self.0 = State::Sequence(String::new()),
            // A letter with Alt has no function.
            State::Escape => {}
            State::Sequence(parameters) => match char {
                '0'..='?' if parameters.len() < LONGEST => self.0 = State::Sequence(parameters + &char.to_string()),
                _ => return named(&parameters, char),
            },
        }
        None
    }
}

fn named(parameters: &str, last: char) -> Option<Key> {
    match (parameters, last) {
        ("", 'A') => Some(Key::Up),
        ("", 'B') => Some(Key::Down),
        ("", 'H') | ("1" | "7", '~') => Some(Key::Home),
        ("", 'F') | ("4" | "8", '~') => Some(Key::End),
        ("5", '~') => Some(Key::PageUp),
        ("6", '~') => Some(Key::PageDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_alike_however_the_bytes_are_cut() {
        let bytes = b"r\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1~\x1b[F\x1b[1;5Aq\x1bxm\x1b\x1b[B\r\x7f";
        let expected = [
            Key::Char('r'),
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Char('q'),
            Key::Char('m'),
            Key::Down,
        ];
        for size in 1..=bytes.len() {
            let mut keys = Keys::default();
            let pressed: Vec<Key> = bytes.chunks(size).flat_map(|chunk| keys.feed(chunk)).collect();
            assert_eq!(pressed, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_sequence_without_an_end_swallows_no_more_than_it_may() {
        let mut keys = Keys::default();
        keys.feed(b"\x1b[");
        keys.feed(&[b'1'; LONGEST + 1]);
        assert_eq!(keys.feed(b"q"), [Key::Char('q')]);
    }
}
