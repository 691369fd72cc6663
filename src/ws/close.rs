//! The payload of a Close frame (RFC 6455 §5.5.1, §7.4).

use super::Violation;

/// The parsed payload of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// The close code; `None` for an empty Close. Code 1005 (no status received) is never sent (§7.4.1).
    pub code: Option<u16>,
    /// The close reason; empty if absent.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// Parses an unmasked Close payload.
    ///
    /// # Errors
    ///
    /// [`Violation::BadClose`] for a payload of one byte or a code that must not be sent, [`Violation::BadCloseReason`]
    /// for a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Violation> {
        if payload.is_empty() {
            return Ok(Self { code: None, reason: "" });
        }
        let (code, reason) = payload.split_first_chunk::<2>().ok_or(Violation::BadClose)?;
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(Violation::BadClose);
        }
        let reason = str::from_utf8(reason).map_err(|_| Violation::BadCloseReason)?;
        Ok(Self { code: Some(code), reason })
    }
}

/// Returns whether a code may appear in a Close frame: 1000–1014 except 1004 (reserved), 1005 and 1006 (only ever
/// reported locally), and 3000–4999. 1015 and all others must not (§7.4.1, §7.4.2, IANA registry).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_empty_or_has_a_code() {
        assert_eq!(Close::parse(b""), Ok(Close { code: None, reason: "" }));
        assert_eq!(Close::parse(b"\x0f\xa1x"), Ok(Close { code: Some(4001), reason: "x" }));
        assert_eq!(Close::parse(b"\x03"), Err(Violation::BadClose));
        assert_eq!(Close::parse(b"\x03\xe8\xff"), Err(Violation::BadCloseReason));
    }

    #[test]
    fn codes_that_are_only_reported_locally_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(Close::parse(&code.to_be_bytes()), Err(Violation::BadClose), "{code}");
        }
    }
}
