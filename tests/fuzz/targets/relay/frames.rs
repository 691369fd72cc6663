//! Frames according to RFC 6455 §5.2, written and read without the product's scanner.

/// One frame of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// All its bytes.
    pub raw: &'a [u8],
    pub opcode: u8,
    pub fin: bool,
    pub rsv: u8,
    pub mask: Option<[u8; 4]>,
    payload: &'a [u8],
}

impl Frame<'_> {
    pub fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Returns the unmasked payload.
    pub fn payload(&self) -> Vec<u8> {
        let key = self.mask.unwrap_or_default();
        self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    /// Returns the code of a Close; 1005 if it has none.
    pub fn code(&self) -> u16 {
        self.payload().first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))
    }
}

/// Returns the frame at the front of `bytes`, if it is complete.
pub fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut at) = match second & 0x7F {
        126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
        short => (u64::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(*bytes.get(at..)?.first_chunk::<4>()?);
        at += 4;
    }
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    let payload = bytes.get(at..end)?;
    Some(Frame { raw: &bytes[..end], opcode: first & 15, fin: first & 0x80 != 0, rsv: first & 0x70, mask, payload })
}

/// Returns the whole frames of `bytes`, and the rest.
pub fn split(mut bytes: &[u8]) -> (Vec<Frame<'_>>, &[u8]) {
    let mut frames = Vec::new();
    while let Some(frame) = first(bytes) {
        bytes = &bytes[frame.raw.len()..];
        frames.push(frame);
    }
    (frames, bytes)
}

/// Returns the bytes of a frame. `longer`: its length is written in more bytes than it needs.
pub fn encode(first: u8, payload: &[u8], mask: Option<[u8; 4]>, longer: bool) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 if !longer => out.push(bit | u8::try_from(len).expect("short")),
        len @ 0..=0xFFFF => {
            out.push(bit | 0x7E);
            out.extend(u16::try_from(len).expect("16 bits").to_be_bytes());
        }
        len => {
            out.push(bit | 0x7F);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
    let key = mask.unwrap_or_default();
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}
