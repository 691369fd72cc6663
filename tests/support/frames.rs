//! Frames as bytes (RFC 6455 §5.2), for tests that must say exactly what is on the wire.

use tokio::io::{AsyncRead, AsyncReadExt};

/// FIN in the first byte.
pub(crate) const FIN: u8 = 0x80;
/// RSV1 in the first byte.
pub(crate) const RSV1: u8 = 0x40;
/// Opcodes.
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// One frame, with its payload as it is after unmasking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, RSV bits and opcode.
    pub(crate) first: u8,
    /// The masking key of a client's frame.
    pub(crate) mask: Option<[u8; 4]>,
    /// Unmasked.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A frame as a server sends it.
    pub(crate) fn server(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, mask: None, payload: payload.into() }
    }

    /// A frame as a client sends it.
    pub(crate) fn client(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, mask: Some([0x1d, 0xa7, 0x00, 0xf3]), payload: payload.into() }
    }

    /// The opcode.
    pub(crate) fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Code and reason of a Close; an empty one has neither.
    pub(crate) fn close(&self) -> Option<(u16, String)> {
        let (code, reason) = self.payload.split_first_chunk()?;
        (self.opcode() == CLOSE).then(|| (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
    }

    /// The bytes of this frame, with the shortest length that fits.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let length = self.payload.len();
        let mut bytes = vec![self.first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..=125), _) => bytes.push(masked | length),
            (_, Ok(length)) => {
                bytes.push(masked | 0x7e);
                bytes.extend(length.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        bytes.extend(masked_with(self.mask, &self.payload));
        bytes
    }

    /// The next frame of `stream`, or `None` at its end; a broken connection counts as an end.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let first = stream.read_u8().await.ok()?;
        let second = stream.read_u8().await.ok()?;
        let length = match second & 0x7f {
            126 => u64::from(stream.read_u16().await.ok()?),
            127 => stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mask = if second & 0x80 == 0 { None } else { Some(stream.read_u32().await.ok()?.to_be_bytes()) };
        let mut payload = vec![0; usize::try_from(length).expect("frames of tests fit in memory")];
        stream.read_exact(&mut payload).await.ok()?;
        Some(Self { first, mask, payload: masked_with(mask, &payload) })
    }

    /// The next frame that is not a ping of the proxy's own making, whose eight bytes are no text.
    pub(crate) async fn read_past_pings(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        loop {
            match Self::read(stream).await {
                Some(frame) if frame.opcode() == PING => {}
                other => return other,
            }
        }
    }
}

fn masked_with(mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let key = mask.unwrap_or_default();
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}
