//! The frame header (RFC 6455 §5.2): the first 2 to 14 bytes of every frame.

use super::{Limits, RSV_ALL, RSV_DEFLATE, Violation};

/// The maximum length of a header in bytes: two bytes, a 64-bit length, a masking key.
pub const MAX_HEADER: usize = 14;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7F;
const CONTROL: u8 = 0x08;

/// The peer that sent a frame. Clients mask, servers do not (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client: every frame is masked.
    Client,
    /// The app: no frame is masked.
    Server,
}

/// A frame opcode (§11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(u8);

impl Opcode {
    /// A further fragment of the open message.
    pub const CONTINUATION: Self = Self(0x0);
    /// The beginning of a text message.
    pub const TEXT: Self = Self(0x1);
    /// The beginning of a binary message.
    pub const BINARY: Self = Self(0x2);
    /// A Close.
    pub const CLOSE: Self = Self(0x8);
    /// A Ping.
    pub const PING: Self = Self(0x9);
    /// A Pong.
    pub const PONG: Self = Self(0xA);

    /// Returns whether this is a control opcode, allowed between the fragments of a message (§5.5).
    pub fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Returns whether RFC 6455 reserves this opcode for extensions (§5.2).
    pub fn is_reserved(self) -> bool {
        !matches!(self.0, 0x0..=0x2 | 0x8..=0xA)
    }

    pub(super) fn byte(self) -> u8 {
        self.0
    }
}

/// A validated frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// True on the last frame of a message.
    pub fin: bool,
    /// The opcode.
    pub opcode: Opcode,
    /// The masking key; present on client frames only.
    pub mask: Option<[u8; 4]>,
    /// The length of the header itself in bytes, 2 to [`MAX_HEADER`].
    pub len: usize,
    /// The declared length of the payload in bytes.
    pub payload: u64,
}

impl FrameHeader {
    /// Parses the header at the front of `input`; `None` if it is incomplete.
    ///
    /// # Errors
    ///
    /// A [`Violation`] that is visible in one header alone. The order of frames is checked by the scanner.
    pub fn parse(input: &[u8], from: Sender, limits: &Limits) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = input else { return Ok(None) };
        let opcode = Opcode(first & OPCODE);
        let fin = first & FIN != 0;
        check_reserved(first & RSV, opcode, limits.rsv)?;
        let masked = second & MASK != 0;
        match from {
            Sender::Client if !masked => return Err(Violation::Unmasked),
            Sender::Server if masked => return Err(Violation::Masked),
            _ => {}
        }
        let short = second & LENGTH;
        if opcode.is_control() {
            if short > 125 {
                return Err(Violation::ControlTooLong);
            }
            if !fin {
                return Err(Violation::ControlFragmented);
            }
        }
        let Some((payload, rest)) = read_length(short, rest)? else { return Ok(None) };
        let (mask, rest) = if masked {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        } else {
            (None, rest)
        };
        Ok(Some(Self { fin, opcode, mask, len: input.len() - rest.len(), payload }))
    }
}

fn check_reserved(rsv: u8, opcode: Opcode, claimed: u8) -> Result<(), Violation> {
    if rsv & !claimed != 0 {
        return Err(Violation::ReservedBit);
    }
    // permessage-deflate sets RSV1 on the first frame of a message only; an unknown extension may set any bit on any
    // frame.
    let may_be_marked = !opcode.is_control() && opcode != Opcode::CONTINUATION;
    if rsv != 0 && claimed == RSV_DEFLATE && !may_be_marked {
        return Err(Violation::ReservedBit);
    }
    if opcode.is_reserved() && claimed != RSV_ALL {
        return Err(Violation::ReservedOpcode);
    }
    Ok(())
}

/// Returns the payload length and the bytes after it; `None` if the length is incomplete.
fn read_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    match short {
        126 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(*bytes));
            Ok(Some((length, rest)))
        }
        127 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            match u64::from_be_bytes(*bytes) {
                length if length >> 63 != 0 => Err(Violation::LengthOverflow),
                length => Ok(Some((length, rest))),
            }
        }
        short => Ok(Some((u64::from(short), rest))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader as Oracle;

    use super::*;

    fn parse(bytes: &[u8], from: Sender, rsv: u8) -> Result<Option<FrameHeader>, Violation> {
        FrameHeader::parse(bytes, from, &Limits { rsv, ..Limits::default() })
    }

    #[test]
    fn every_incomplete_prefix_is_none() {
        let whole = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], Sender::Client, 0), Ok(None), "{cut} bytes");
        }
        let header = parse(&whole, Sender::Client, 0).unwrap().unwrap();
        assert_eq!((header.len, header.payload, header.mask), (14, 65_536, Some([1, 2, 3, 4])));
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        use Violation::*;
        let cases: &[(&[u8], Sender, u8, Violation)] = &[
            (&[0x83, 0x80], Sender::Client, 0, ReservedOpcode),
            (&[0x8B, 0x80], Sender::Client, RSV_DEFLATE, ReservedOpcode),
            (&[0xC1, 0x80], Sender::Client, 0, ReservedBit),
            (&[0xA1, 0x80], Sender::Client, RSV_DEFLATE, ReservedBit),
            (&[0xC0, 0x80], Sender::Client, RSV_DEFLATE, ReservedBit),
            (&[0xC9, 0x00], Sender::Server, RSV_DEFLATE, ReservedBit),
            (&[0x81, 0x00], Sender::Client, 0, Unmasked),
            (&[0x81, 0x80], Sender::Server, 0, Masked),
            (&[0x89, 0x7E], Sender::Server, 0, ControlTooLong),
            (&[0x09, 0x00], Sender::Server, 0, ControlFragmented),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Sender::Server, 0, LengthOverflow),
        ];
        for (bytes, from, rsv, expected) in cases {
            assert_eq!(parse(bytes, *from, *rsv), Err(*expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_written_longer_than_needed_is_read_as_it_is() {
        for (bytes, len, payload) in [
            (&[0x82, 126, 0, 0][..], 4, 0),
            (&[0x82, 126, 0, 125], 4, 125),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5], 10, 5),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 10, 0xFFFF),
        ] {
            let header = parse(bytes, Sender::Server, 0).expect("valid").expect("complete");
            assert_eq!((header.len, header.payload), (len, payload), "{bytes:02x?}");
        }
    }

    #[test]
    fn an_unknown_extension_may_mark_any_frame() {
        for first in [0xF1, 0xF0, 0xF9, 0x83, 0x8B] {
            assert!(parse(&[first, 0], Sender::Server, RSV_ALL).unwrap().is_some(), "{first:#x}");
        }
    }

    proptest! {
        /// Checks that tungstenite parses the same header wherever this parser accepts one; where this parser refuses, it may be
        /// laxer.
        #[test]
        fn agrees_with_tungstenite(bytes in proptest::collection::vec(any::<u8>(), 0..16), client in any::<bool>()) {
            let from = if client { Sender::Client } else { Sender::Server };
            let theirs = Oracle::parse(&mut std::io::Cursor::new(&bytes));
            match parse(&bytes, from, RSV_DEFLATE) {
                Ok(Some(ours)) => {
                    let (header, length) = theirs.unwrap().expect("tungstenite wants more bytes");
                    prop_assert_eq!(ours.payload, length);
                    prop_assert_eq!(ours.fin, header.is_final);
                    prop_assert_eq!(ours.mask, header.mask);
                    prop_assert_eq!(ours.opcode.byte(), u8::from(header.opcode));
                }
                Ok(None) => prop_assert!(matches!(theirs, Ok(None) | Err(_)), "{theirs:?}"),
                Err(_) => {}
            }
        }
    }
}
