//! The id of a session, as the log, the API and the app see it.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The id of one session: unique in this process, and unlikely to repeat in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The id with this number; ids of later sessions have larger ones.
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not the id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAConnId;

impl fmt::Display for NotAConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session's name is 16 hexadecimal digits, as ws.open and ws.close write it")
    }
}

impl Error for NotAConnId {}

impl FromStr for ConnId {
    type Err = NotAConnId;

    /// Reads what [`Display`](fmt::Display) writes, in digits of either case.
    fn from_str(text: &str) -> Result<Self, NotAConnId> {
        // The parser accepts a sign.
        if text.len() != 16 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAConnId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAConnId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for id in [ConnId::new(0), ConnId::new(1), ConnId::new(0x0123_4567_89ab_cdef), ConnId::new(u64::MAX)] {
            let written = id.to_string();
            assert_eq!(written.parse(), Ok(id));
            assert_eq!(written.to_uppercase().parse(), Ok(id));
        }
        for wrong in [
            "",
            "0",
            "123456789abcdef",
            "00123456789abcdef",
            "0x23456789abcdef",
            "+123456789abcdef",
            "g123456789abcdef",
            "é23456789abcdef",
        ] {
            assert_eq!(wrong.parse::<ConnId>(), Err(NotAConnId), "{wrong:?}");
        }
    }
}
