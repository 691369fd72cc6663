//! WebSocket frames as bytes (RFC 6455 §5.2): an encoder that also writes frames which no library writes, and a
//! decoder.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The FIN bit of a frame's first byte.
pub const FIN: u8 = 0x80;
/// The RSV1 bit of a frame's first byte.
pub const RSV1: u8 = 0x40;
/// The opcode of a continuation frame.
pub const CONTINUATION: u8 = 0x0;
/// The opcode of a text frame.
pub const TEXT: u8 = 0x1;
/// The opcode of a binary frame.
pub const BINARY: u8 = 0x2;
/// The opcode of a Close.
pub const CLOSE: u8 = 0x8;
/// The opcode of a Ping.
pub const PING: u8 = 0x9;
/// The opcode of a Pong.
pub const PONG: u8 = 0xA;

/// The masking key of the client frames that the tests send.
pub const KEY: [u8; 4] = [0x1d, 0xa7, 0x00, 0xf3];

/// The bit of a frame's second byte that announces a masking key.
const MASKED: u8 = 0x80;

/// The form in which a payload length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthForm {
    /// The shortest form that fits.
    Minimal,
    /// 126 and 16 bits.
    Extended16,
    /// 127 and 64 bits.
    Extended64,
}

/// The role of an endpoint, which decides whether its frames are masked (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends masked frames.
    Client,
    /// Sends unmasked frames.
    App,
}

impl Role {
    /// Encodes a frame whose first byte (FIN, RSV bits and opcode) is `first`.
    pub fn raw(self, first: u8, length: LengthForm, payload: &[u8]) -> Vec<u8> {
        encode(first, (self == Self::Client).then_some(KEY), length, payload)
    }

    /// Encodes a whole, unfragmented frame.
    pub fn frame(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        self.raw(FIN | opcode, LengthForm::Minimal, payload)
    }

    /// Encodes a frame that is followed by continuations.
    pub fn fragment(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        self.raw(opcode, LengthForm::Minimal, payload)
    }

    /// Encodes a text message.
    pub fn text(self, text: &str) -> Vec<u8> {
        self.frame(TEXT, text.as_bytes())
    }

    /// Encodes a binary message of `size` bytes.
    pub fn binary(self, size: usize) -> Vec<u8> {
        self.frame(BINARY, &vec![b'b'; size])
    }

    /// Encodes a Close with a code and a reason.
    pub fn close(self, code: u16, reason: &str) -> Vec<u8> {
        self.frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }
}

/// A frame with its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, RSV bits and opcode.
    pub first: u8,
    /// The masking key; `None` for a server's frame.
    pub mask: Option<[u8; 4]>,
    /// The payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Returns a frame as a server sends it.
    pub fn server(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, mask: None, payload: payload.into() }
    }

    /// Returns a frame as a client sends it.
    pub fn client(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, mask: Some(KEY), payload: payload.into() }
    }

    /// Returns the opcode.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Returns whether the frame ends its message.
    pub fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    /// Returns the three RSV bits.
    pub fn rsv(&self) -> u8 {
        self.first >> 4 & 7
    }

    /// Returns the code and the reason of a Close; 1005 stands for an empty one (RFC 6455 §7.1.5).
    pub fn close(&self) -> Option<(u16, String)> {
        if self.opcode() != CLOSE {
            return None;
        }
        let Some((code, reason)) = self.payload.split_first_chunk() else { return Some((1005, String::new())) };
        Some((u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
    }

    /// Returns the bytes of this frame, with the shortest length that fits.
    pub fn bytes(&self) -> Vec<u8> {
        encode(self.first, self.mask, LengthForm::Minimal, &self.payload)
    }

    /// Parses the frame at the start of `bytes`, and returns it with its size on the wire; `None` if it is incomplete.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = Header::parse(bytes)?;
        let end = header.size.checked_add(header.payload)?;
        Some((header.frame(bytes.get(header.size..end)?), end))
    }

    /// Reads the next frame of `stream`; `None` at its end, orderly or not.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = vec![0; 2];
        stream.read_exact(&mut bytes).await.ok()?;
        bytes.resize(Header::size_of(bytes[1]), 0);
        stream.read_exact(&mut bytes[2..]).await.ok()?;
        let header = Header::parse(&bytes)?;
        let mut payload = vec![0; header.payload];
        stream.read_exact(&mut payload).await.ok()?;
        Some(header.frame(&payload))
    }

    /// Reads the next frame that is no Ping.
    pub async fn read_past_pings(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        loop {
            match Self::read(stream).await {
                Some(frame) if frame.opcode() == PING => {}
                other => return other,
            }
        }
    }
}

/// Encodes a frame: `first` is FIN, RSV bits and opcode, `payload` is masked where there is a `mask`.
///
/// # Panics
///
/// The payload does not fit into `length`.
pub fn encode(first: u8, mask: Option<[u8; 4]>, length: LengthForm, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { MASKED } else { 0 };
    let size = payload.len();
    let length = match (length, size) {
        (LengthForm::Minimal, 126..=0xffff) => LengthForm::Extended16,
        (LengthForm::Minimal, 0x1_0000..) => LengthForm::Extended64,
        (length, _) => length,
    };
    let mut bytes = Vec::with_capacity(size + 14);
    bytes.push(first);
    match length {
        LengthForm::Minimal => bytes.push(masked | u8::try_from(size).expect("at most 125")),
        LengthForm::Extended16 => {
            bytes.push(masked | 0x7e);
            bytes.extend(u16::try_from(size).expect("16 bits suffice").to_be_bytes());
        }
        LengthForm::Extended64 => {
            bytes.push(masked | 0x7f);
            bytes.extend((size as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    bytes.extend(masked_with(mask, payload));
    bytes
}

/// A frame header, as it was parsed.
#[derive(Clone, Copy)]
struct Header {
    first: u8,
    mask: Option<[u8; 4]>,
    /// Its own size in bytes.
    size: usize,
    /// The size of the payload in bytes.
    payload: usize,
}

impl Header {
    /// Returns the size of a header whose second byte is `second`.
    fn size_of(second: u8) -> usize {
        let length = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & MASKED == 0 { 0 } else { 4 }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let size = Self::size_of(second);
        let rest = bytes.get(2..size)?;
        let (length, key) = rest.split_at(if second & MASKED == 0 { rest.len() } else { rest.len() - 4 });
        let payload = if length.is_empty() {
            u64::from(second & !MASKED)
        } else {
            length.iter().fold(0, |payload, byte| payload << 8 | u64::from(*byte))
        };
        Some(Self { first, mask: key.try_into().ok(), size, payload: usize::try_from(payload).ok()? })
    }

    /// Returns the frame with this header and this payload, masked as it was received.
    fn frame(self, payload: &[u8]) -> Frame {
        Frame { first: self.first, mask: self.mask, payload: masked_with(self.mask, payload) }
    }
}

fn masked_with(mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let key = mask.unwrap_or_default();
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_form_is_decoded_as_it_was_encoded() {
        use LengthForm::{Extended16, Extended64, Minimal};
        for (size, length, header) in [
            (0, Minimal, 2),
            (125, Minimal, 2),
            (126, Minimal, 4),
            (65_535, Minimal, 4),
            (65_536, Minimal, 10),
            (5, Extended16, 4),
            (5, Extended64, 10),
        ] {
            let payload: Vec<u8> = (0..=250).cycle().take(size).collect();
            for role in [Role::Client, Role::App] {
                let bytes = role.raw(RSV1 | BINARY, length, &payload);
                assert_eq!(bytes.len(), header + size + if role == Role::Client { 4 } else { 0 });
                let expected = Frame {
                    first: RSV1 | BINARY,
                    mask: (role == Role::Client).then_some(KEY),
                    payload: payload.clone(),
                };
                for cut in [0, 1, header - 1, bytes.len() - 1] {
                    assert_eq!(Frame::parse(&bytes[..cut]), None, "{size} bytes, {length:?}, cut at {cut}");
                }
                assert_eq!(Frame::parse(&[&bytes[..], b"more"].concat()), Some((expected, bytes.len())));
            }
        }
    }

    #[test]
    fn a_close_has_a_code_and_a_reason() {
        let parsed = |bytes: Vec<u8>| Frame::parse(&bytes).and_then(|(frame, _)| frame.close());
        assert_eq!(parsed(Role::Client.close(4001, "enough")), Some((4001, "enough".to_owned())));
        assert_eq!(parsed(Role::App.frame(CLOSE, b"")), Some((1005, String::new())));
        assert_eq!(parsed(Role::App.text("close")), None);
    }
}
