//! Data messages written by pulsegate itself.

use super::Opcode;

/// Encodes a whole message with `opcode` as one server frame (RFC 6455 §5.2): unmasked, final, RSV bits clear.
pub fn message_frame(opcode: Opcode, payload: &[u8]) -> Box<[u8]> {
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(0x80 | opcode.byte());
    #[expect(clippy::cast_possible_truncation, reason = "each arm has checked the range")]
    match payload.len() {
        len @ 0..=125 => frame.push(len as u8),
        len @ 126..=0xFFFF => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    #[test]
    fn messages_are_the_bytes_that_tungstenite_writes() {
        for len in [0, 1, 125, 126, 0xFFFF, 0x1_0000] {
            let payload = vec![b'x'; len];
            for (ours, theirs) in [(Opcode::TEXT, Data::Text), (Opcode::BINARY, Data::Binary)] {
                let mut expected = Vec::new();
                Frame::message(payload.clone(), OpCode::Data(theirs), true).format(&mut expected).unwrap();
                assert_eq!(*message_frame(ours, &payload), *expected, "{len} bytes");
            }
        }
    }
}
