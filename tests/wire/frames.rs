//! WebSocket frames as bytes (RFC 6455 §5.2): an encoder that can write what no library writes, and a parser.

/// The opcode of a continuation frame.
pub(crate) const CONTINUATION: u8 = 0;
/// The opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// The opcode of a binary frame.
pub(crate) const BINARY: u8 = 2;
/// The opcode of a Close.
pub(crate) const CLOSE: u8 = 8;
/// The opcode of a Ping.
pub(crate) const PING: u8 = 9;
/// The opcode of a Pong.
pub(crate) const PONG: u8 = 10;

/// The bit that ends a message.
const FIN: u8 = 0x80;
/// The bit that says that a payload is masked.
const MASKED: u8 = 0x80;
/// The key of every masked frame of the tests.
const KEY: [u8; 4] = [0x5a, 0x01, 0xfe, 0x37];

/// The role of an endpoint, which decides whether its frames are masked (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    App,
}

/// The form in which a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// The shortest possible form.
    Minimal,
    /// 126 and 16 bits.
    Extended16,
    /// 127 and 64 bits.
    Extended64,
}

impl Role {
    /// A frame whose first byte (FIN, RSV and opcode) is `first`.
    pub(crate) fn raw(self, first: u8, length: Length, payload: &[u8]) -> Vec<u8> {
        let mask_bit = if self == Self::Client { MASKED } else { 0 };
        let size = payload.len();
        let mut frame = vec![first];
        let length = match (length, size) {
            (Length::Minimal, 126..=0xffff) => Length::Extended16,
            (Length::Minimal, 0x1_0000..) => Length::Extended64,
            (length, _) => length,
        };
        match length {
            Length::Minimal => frame.push(mask_bit | u8::try_from(size).expect("at most 125")),
            Length::Extended16 => {
                frame.push(mask_bit | 0x7e);
                frame.extend(u16::try_from(size).expect("16 bits suffice").to_be_bytes());
            }
            Length::Extended64 => {
                frame.push(mask_bit | 0x7f);
                frame.extend((size as u64).to_be_bytes());
            }
        }
        if self == Self::Client {
            frame.extend(KEY);
            frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            frame.extend(payload);
        }
        frame
    }

    /// A whole, unfragmented frame.
    pub(crate) fn frame(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        self.raw(FIN | opcode, Length::Minimal, payload)
    }

    /// A frame that is followed by continuations.
    pub(crate) fn fragment(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        self.raw(opcode, Length::Minimal, payload)
    }

    /// A text message.
    pub(crate) fn text(self, text: &str) -> Vec<u8> {
        self.frame(TEXT, text.as_bytes())
    }

    /// A binary message of `size` bytes.
    pub(crate) fn binary(self, size: usize) -> Vec<u8> {
        self.frame(BINARY, &vec![b'b'; size])
    }

    /// A Close with a code and a reason.
    pub(crate) fn close(self, code: u16, reason: &str) -> Vec<u8> {
        self.frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }
}

/// A frame as it was received, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Parses the frame at the start of `bytes`, and returns it with its size on the wire; `None` if it is incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let masked = second & MASKED != 0;
        let (size, start) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let (key, start) = if masked { (bytes.get(start..start + 4)?, start + 4) } else { (&[0; 4][..], start) };
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        let payload = bytes.get(start..end)?.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        Some((Self { fin: first & FIN != 0, rsv: first >> 4 & 7, opcode: first & 15, masked, payload }, end))
    }

    /// The code and the reason of a Close; 1005 stands for an empty one.
    pub(crate) fn close(&self) -> Option<(u16, String)> {
        if self.opcode != CLOSE {
            return None;
        }
        let Some((code, reason)) = self.payload.split_first_chunk::<2>() else { return Some((1005, String::new())) };
        Some((u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
    }
}
