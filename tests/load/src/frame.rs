//! WebSocket frames (RFC 6455 §5.2), without I/O: an encoder and a resumable decoder that never buffers a payload.
//!
//! Client and upstream share it. It accepts a payload in pieces of any size, so that a 64 KiB echo needs no buffer of
//! 64 KiB.

use thiserror::Error;

/// Bytes of the longest frame header: 2, 8 of extended length, 4 of masking key.
const HEADER_MAX: usize = 14;

/// The 7-bit length that announces a 16-bit length.
const MEDIUM: u8 = 0x7E;
/// The 7-bit length that announces a 64-bit length.
const LONG: u8 = 0x7F;

/// The opcode of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation,
    /// Text, or its first fragment.
    Text,
    /// Binary data, or its first fragment.
    Binary,
    /// The closing handshake.
    Close,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, FrameError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return Err(FrameError::Opcode(bits)),
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Returns true for Close, Ping and Pong: at most 125 bytes and never fragmented.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// True if the message ends with this frame.
    pub fin: bool,
    /// The opcode.
    pub opcode: Opcode,
    /// The masking key; present on frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

impl Header {
    /// Appends the header in its shortest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | self.opcode.bits());
        let masked = u8::from(self.mask.is_some()) << 7;
        if let Ok(short @ 0..126) = u8::try_from(self.length) {
            out.push(masked | short);
        } else if let Ok(medium) = u16::try_from(self.length) {
            out.push(masked | MEDIUM);
            out.extend_from_slice(&medium.to_be_bytes());
        } else {
            out.push(masked | LONG);
            out.extend_from_slice(&self.length.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }

    /// Returns the header at the front of `bytes` and its size; [`None`] while bytes are missing.
    fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let opcode = Opcode::from_bits(first & 0x0F)?;
        let fin = first & 0x80 != 0;
        let (length, rest) = match second & 0x7F {
            MEDIUM => match rest.split_first_chunk::<2>() {
                Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest),
                None => return Ok(None),
            },
            LONG => match rest.split_first_chunk::<8>() {
                Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if opcode.is_control() && (!fin || length > 125) {
            return Err(FrameError::Control(opcode));
        }
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            match rest.split_first_chunk::<4>() {
                Some((key, rest)) => (Some(*key), rest),
                None => return Ok(None),
            }
        };
        Ok(Some((Self { fin, opcode, mask, length }, bytes.len() - rest.len())))
    }
}

/// Appends one whole masked frame, as a client sends it.
pub fn encode_masked(opcode: Opcode, key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    encode_masked_fragment(true, opcode, key, payload, out);
}

/// Appends one masked frame, which may be a fragment of a message.
pub fn encode_masked_fragment(fin: bool, opcode: Opcode, key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    Header { fin, opcode, mask: Some(key), length: payload.len() as u64 }.encode(out);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], key);
}

/// Masks or unmasks `bytes`; the first one is combined with the first byte of `key` (RFC 6455 §5.3).
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// A part of the stream, as the decoder returns it.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The header of a frame.
    Header(Header),
    /// A piece of the frame's payload, unmasked in place. A frame without payload has one empty piece.
    Payload {
        /// The frame it belongs to.
        header: Header,
        /// The unmasked bytes.
        bytes: &'a mut [u8],
        /// True if the frame ends here.
        last: bool,
    },
}

/// A decoder that splits a byte stream into [`Part`]s, whatever its chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Inside a header, with `held` bytes of it so far.
    Head { bytes: [u8; HEADER_MAX], held: usize },
    /// Inside a payload.
    Payload { header: Header, remaining: u64 },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { bytes: [0; HEADER_MAX], held: 0 }
    }
}

impl Decoder {
    /// Returns true if the bytes so far end with a frame, or if there are none.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head { held: 0, .. })
    }

    /// Removes the next part from the front of `input`; [`None`] when more bytes are needed.
    #[expect(clippy::mut_mut, reason = "a cursor over a buffer that is unmasked in place")]
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Part<'a>>, FrameError> {
        match &mut self.state {
            State::Head { bytes, held } => {
                let before = *held;
                let fresh = input.len().min(HEADER_MAX - before);
                bytes[before..before + fresh].copy_from_slice(&input[..fresh]);
                if let Some((header, size)) = Header::decode(&bytes[..before + fresh])? {
                    take(input, size - before);
                    self.state = State::Payload { header, remaining: header.length };
                    Ok(Some(Part::Header(header)))
                } else {
                    take(input, fresh);
                    *held += fresh;
                    Ok(None)
                }
            }
            State::Payload { header, remaining } => {
                if input.is_empty() && *remaining > 0 {
                    return Ok(None);
                }
                let header = *header;
                let size = usize::try_from(*remaining).map_or(input.len(), |left| left.min(input.len()));
                let bytes = take(input, size);
                if let Some(mut key) = header.mask {
                    // The offset in the key at which the last piece ended: only the two lowest bits of the position
                    // count.
                    key.rotate_left(((header.length - *remaining) % 4) as usize);
                    apply_mask(bytes, key);
                }
                *remaining -= size as u64;
                let last = *remaining == 0;
                if last {
                    self.state = State::default();
                }
                Ok(Some(Part::Payload { header, bytes, last }))
            }
        }
    }
}

#[expect(clippy::mut_mut, reason = "advances the cursor that `next` was given")]
fn take<'a>(input: &mut &'a mut [u8], size: usize) -> &'a mut [u8] {
    let (front, back) = std::mem::take(input).split_at_mut(size);
    *input = back;
    front
}

/// A violation of the framing rules.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A reserved bit. No extension is ever negotiated here.
    #[error("a frame has a reserved bit set although no extension was negotiated")]
    Reserved,
    /// An undefined opcode (RFC 6455 §5.2).
    #[error("a frame has the undefined opcode {0:#x}")]
    Opcode(u8),
    /// An invalid control frame (RFC 6455 §5.5).
    #[error("a {0:?} frame is fragmented or longer than 125 bytes")]
    Control(Opcode),
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x11, 0x82, 0xF3, 0x04];

    /// Returns all parts of `wire`, decoded in chunks of `size`: headers with their whole payloads.
    fn decode(wire: &[u8], size: usize) -> Result<Vec<(Header, Vec<u8>)>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut payload = Vec::new();
        for chunk in wire.chunks(size) {
            let mut chunk = chunk.to_vec();
            let mut input = chunk.as_mut_slice();
            while let Some(part) = decoder.next(&mut input)? {
                if let Part::Payload { header, bytes, last } = part {
                    payload.extend_from_slice(bytes);
                    if last {
                        frames.push((header, std::mem::take(&mut payload)));
                    }
                }
            }
            assert!(input.is_empty(), "the decoder left {} bytes", input.len());
        }
        Ok(frames)
    }

    #[test]
    fn a_masked_text_frame_is_the_rfc_example() {
        let mut out = Vec::new();
        encode_masked(Opcode::Text, [0x37, 0xFA, 0x21, 0x3D], b"Hello", &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let header = Header { fin: true, opcode: Opcode::Binary, mask: None, length };
            let mut out = Vec::new();
            header.encode(&mut out);
            assert_eq!(out.len(), size, "header of {length} bytes");
            assert_eq!(Header::decode(&out), Ok(Some((header, size))));
        }
    }

    #[test]
    fn any_chunking_gives_the_same_frames() {
        let payloads: Vec<Vec<u8>> =
            [0, 1, 7, 125, 126, 70_000].map(|length| (0..=250).cycle().take(length).collect()).to_vec();
        let mut wire = Vec::new();
        for payload in &payloads {
            encode_masked(Opcode::Binary, KEY, payload, &mut wire);
        }
        for size in [1, 2, 3, 5, 13, 4096, wire.len()] {
            let frames = decode(&wire, size).expect("the frames are valid");
            let seen: Vec<_> = frames.into_iter().map(|(_, payload)| payload).collect();
            assert_eq!(seen, payloads, "in chunks of {size}");
        }
    }

    #[test]
    fn header_fields_survive() {
        let mut wire = Vec::new();
        Header { fin: false, opcode: Opcode::Text, mask: None, length: 1 }.encode(&mut wire);
        wire.push(b'a');
        encode_masked(Opcode::Ping, KEY, b"beat", &mut wire);
        let frames = decode(&wire, 1).expect("the frames are valid");
        assert_eq!(frames[0], (Header { fin: false, opcode: Opcode::Text, mask: None, length: 1 }, b"a".to_vec()));
        assert_eq!(
            frames[1],
            (Header { fin: true, opcode: Opcode::Ping, mask: Some(KEY), length: 4 }, b"beat".to_vec())
        );
    }

    #[test]
    fn invalid_headers_are_refused() {
        assert_eq!(decode(&[0xC2, 0x00], 2), Err(FrameError::Reserved));
        assert_eq!(decode(&[0x83, 0x00], 2), Err(FrameError::Opcode(3)));
        assert_eq!(decode(&[0x09, 0x00], 2), Err(FrameError::Control(Opcode::Ping)));
        assert_eq!(decode(&[0x89, 0x7E, 0x00, 0x7E], 4), Err(FrameError::Control(Opcode::Ping)));
    }
}
