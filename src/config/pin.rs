//! Pins of public keys (RFC 7469).

use std::fmt;

use data_encoding::BASE64;

/// The prefix of a pin: the only hash that RFC 7469 §2.1.1 defines.
const SCHEME: &str = "sha256/";

/// The SHA-256 of the `SubjectPublicKeyInfo` of a certificate (RFC 7469 §2.4).
///
/// `Display` gives the form that the configuration has: `sha256/` and Base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin with this hash.
    pub fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Reads a pin as `Display` writes it; `None` for everything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hash = BASE64.decode(text.strip_prefix(SCHEME)?.as_bytes()).ok()?;
        hash.try_into().ok().map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", BASE64.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        let pin = Pin::new(std::array::from_fn(|at| u8::try_from(at * 7).expect("below 256")));
        assert_eq!(Pin::parse(&pin.to_string()), Some(pin));
        // The example of RFC 7469 §2.1.5.
        let example = "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=";
        assert_eq!(Pin::parse(example).map(|pin| pin.to_string()).as_deref(), Some(example));
        for wrong in [
            "",
            "sha256/",
            "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=",
            "sha1/2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
            "sha256//d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=",
            "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM",
        ] {
            assert_eq!(Pin::parse(wrong), None, "{wrong:?}");
        }
    }
}
