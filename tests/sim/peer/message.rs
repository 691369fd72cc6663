//! Messages whose payload shows whether they are the expected one, whole and unchanged.

/// Bytes before the filling: the sender, the number and the length.
const HEADER: usize = 9;

/// The payload of a numbered message.
pub struct Message;

impl Message {
    /// Returns the payload of the message `number` of the end `tag`; it has `len` bytes, and never fewer than its header.
    pub fn payload(tag: u8, number: u32, len: usize) -> Vec<u8> {
        let len = len.max(HEADER);
        let mut payload = Vec::with_capacity(len);
        payload.push(tag);
        payload.extend(number.to_be_bytes());
        payload.extend(u32::try_from(len).expect("messages are short").to_be_bytes());
        payload.resize_with(len, {
            let mut byte = fill(tag, number);
            move || {
                byte = byte.wrapping_add(7);
                byte
            }
        });
        payload
    }

    /// Returns the fault of `payload`, where the message `number` of the end `tag` is expected.
    pub fn check(payload: &[u8], tag: u8, number: u32) -> Option<String> {
        let head = &payload[..payload.len().min(HEADER)];
        if payload == Self::payload(tag, number, payload.len()) && payload.len() >= HEADER {
            return None;
        }
        Some(format!("message {number} expected, found {} bytes that begin with {head:?}", payload.len()))
    }
}

fn fill(tag: u8, number: u32) -> u8 {
    tag.wrapping_add(number.to_le_bytes()[0].wrapping_mul(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_the_next_one_is_found() {
        let payload = Message::payload(b'C', 7, 100);
        assert_eq!(Message::check(&payload, b'C', 7), None);
        assert!(Message::check(&payload, b'C', 8).is_some(), "another number");
        assert!(Message::check(&payload, b'A', 7).is_some(), "another sender");
        assert!(Message::check(&payload[..99], b'C', 7).is_some(), "a byte less");
        let mut changed = payload;
        changed[50] ^= 1;
        assert!(Message::check(&changed, b'C', 7).is_some(), "a changed byte");
    }
}
