//! Control frames (RFC 6455 §5.5) that pulsegate writes itself.

use super::Opcode;

/// The maximum payload of a control frame in bytes (§5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;
const MAX_FRAME: usize = 2 + 4 + MAX_CONTROL_PAYLOAD;

/// A complete control frame, encoded without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct ControlFrame {
    bytes: [u8; MAX_FRAME],
    len: u8,
}

impl ControlFrame {
    /// Encodes a control frame with at most 125 bytes of `payload`; the excess is cut off. With a `mask` the frame is a
    /// client frame, as written to the app; without one it is a server frame, as written to the client.
    pub fn new(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        let payload = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
        let mut frame = Self { bytes: [0; MAX_FRAME], len: 0 };
        let masked = if mask.is_some() { 0x80 } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "at most 125")]
        frame.put(&[0x80 | opcode.byte(), masked | payload.len() as u8]);
        if let Some(key) = mask {
            frame.put(&key);
        }
        let from = usize::from(frame.len);
        frame.put(payload);
        if let Some(key) = mask {
            unmask(&mut frame.bytes[from..from + payload.len()], key);
        }
        frame
    }

    /// Encodes a Close with `code` and as much of `reason` as fits, cut at a character boundary.
    pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Self {
        let mut payload = [0; MAX_CONTROL_PAYLOAD];
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - 2)];
        payload[..2].copy_from_slice(&code.to_be_bytes());
        payload[2..2 + reason.len()].copy_from_slice(reason);
        Self::new(Opcode::CLOSE, &payload[..2 + reason.len()], mask)
    }

    /// Returns the encoded frame.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn put(&mut self, part: &[u8]) {
        let from = usize::from(self.len);
        self.bytes[from..from + part.len()].copy_from_slice(part);
        #[expect(clippy::cast_possible_truncation, reason = "the frame is at most 131 bytes long")]
        let len = part.len() as u8;
        self.len += len;
    }
}

/// Applies a masking key (§5.3), which both masks and unmasks. `payload` must start at the first byte of the frame's
/// payload.
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;

    use super::*;

    fn theirs(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.clone().format(&mut out).unwrap();
        out
    }

    #[test]
    fn frames_are_the_bytes_that_tungstenite_writes() {
        let payload = [7; MAX_CONTROL_PAYLOAD];
        assert_eq!(ControlFrame::new(Opcode::PING, &payload, None).as_bytes(), theirs(&Frame::ping(payload.to_vec())));
        assert_eq!(ControlFrame::new(Opcode::PONG, b"", None).as_bytes(), theirs(&Frame::pong(b"".to_vec())));
        let close = CloseFrame { code: 4408.into(), reason: "heartbeat timeout".into() };
        let ours = ControlFrame::close(4408, "heartbeat timeout", None);
        assert_eq!(ours.as_bytes(), theirs(&Frame::close(Some(close))));
    }

    #[test]
    fn a_masked_frame_unmasks_to_its_payload() {
        let key = [1, 2, 3, 4];
        let frame = ControlFrame::new(Opcode::PING, b"hello", Some(key));
        let mut bytes = frame.as_bytes().to_vec();
        assert_eq!(bytes[..6], [0x89, 0x85, 1, 2, 3, 4]);
        assert_ne!(&bytes[6..], b"hello");
        unmask(&mut bytes[6..], key);
        assert_eq!(&bytes[6..], b"hello");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = ControlFrame::close(1001, &"é".repeat(100), None);
        let reason = std::str::from_utf8(&frame.as_bytes()[4..]).unwrap();
        assert_eq!(reason.len(), 122);
    }
}
