//! WebSocket frames (RFC 6455 §5.2), written for the ends and the judge of the simulation alone: a judge that shares no
//! code with the other tests. The decoder keeps only the beginning of a payload, because worlds are large.

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// A whole frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub is_final: bool,
    /// The payload, or as much of its beginning as the decoder keeps.
    pub payload: Vec<u8>,
    pub len: u64,
}

impl Frame {
    /// Returns the code of a Close, 1005 where it has none.
    pub fn close_code(&self) -> u16 {
        match self.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        }
    }
}

/// Finds the frames of a byte stream.
#[derive(Debug)]
pub struct Decoder {
    /// Bytes of each payload that are kept.
    keep: usize,
    head: Vec<u8>,
    /// The frame under way, its mask, and the bytes of its payload still to come.
    current: Option<(Frame, [u8; 4], u64)>,
}

impl Decoder {
    pub fn new(keep: usize) -> Self {
        Self { keep, head: Vec::new(), current: None }
    }

    /// Returns whether a frame is under way.
    pub fn is_inside(&self) -> bool {
        self.current.is_some() || !self.head.is_empty()
    }

    /// Consumes `bytes`; calls `found` for each frame that ends in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() || self.current.as_ref().is_some_and(|(.., left)| *left == 0) {
            let Some((frame, mask, left)) = &mut self.current else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                self.begin();
                continue;
            };
            let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            let at = usize::try_from(frame.len - *left).expect("payloads fit into memory");
            let kept = self.keep.saturating_sub(at).min(part);
            frame.payload.extend(bytes[..kept].iter().enumerate().map(|(i, byte)| byte ^ mask[(at + i) % 4]));
            *left -= part as u64;
            bytes = &bytes[part..];
            if *left == 0
                && let Some((frame, ..)) = self.current.take()
            {
                found(frame);
            }
        }
    }

    fn begin(&mut self) {
        let head = &self.head;
        let [first, second, rest @ ..] = &head[..] else { return };
        let (length_bytes, mask_bytes) = (
            match second & 0x7F {
                126 => 2,
                127 => 8,
                _ => 0,
            },
            if second & 0x80 == 0 { 0 } else { 4 },
        );
        if rest.len() < length_bytes + mask_bytes {
            return;
        }
        let (length, mask) = rest.split_at(length_bytes);
        let len = if length.is_empty() {
            u64::from(second & 0x7F)
        } else {
            length.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))
        };
        let mut key = [0; 4];
        key[..mask.len()].copy_from_slice(mask);
        let frame = Frame { opcode: first & 0xF, is_final: first & 0x80 != 0, payload: Vec::new(), len };
        self.current = Some((frame, key, len));
        self.head.clear();
    }
}

/// Returns one frame, masked with `mask` where there is one.
pub fn encode(opcode: u8, is_final: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        len @ 0..126 => out.push(bit | u8::try_from(len).expect("below 126")),
        len @ 126..0x1_0000 => {
            out.push(bit + 126);
            out.extend(u16::try_from(len).expect("below 65536").to_be_bytes());
        }
        len => {
            out.push(bit + 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    match mask {
        Some(mask) => {
            out.extend(mask);
            out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
        }
        None => out.extend(payload),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_chunking() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).expect("a byte")).collect();
            for mask in [None, Some([1, 2, 3, 4])] {
                let mut bytes = encode(BINARY, true, &payload, mask);
                bytes.extend(encode(CLOSE, true, &[0x03, 0xE8], mask));
                for chunk in [1, 7, 4096, bytes.len()] {
                    let mut decoder = Decoder::new(usize::MAX);
                    let mut found = Vec::new();
                    for part in bytes.chunks(chunk) {
                        decoder.feed(part, |frame| found.push(frame));
                    }
                    assert!(!decoder.is_inside());
                    assert_eq!(found.len(), 2, "{len} bytes in chunks of {chunk}");
                    assert_eq!(found[0].payload, payload);
                    assert_eq!((found[1].opcode, found[1].close_code()), (CLOSE, 1000));
                }
            }
        }
    }
}
