//! The content of messages and bodies: reproducible noise in which every message differs from its predecessors, so that
//! an echo that is stale, shifted or from another session is detected.

use std::ops::Range;

use crate::frame::Opcode;

/// Distinct start positions of messages. A prime, so that sessions and sequence numbers spread over all of them.
const PLACES: usize = 1_048_573;

/// The JSON around the noise of an application's message.
const JSON: (&[u8], &[u8]) = (br#"{"type":"next","data":""#, br#""}"#);

/// A table of noise from which all messages are cut, so that none is generated during a measurement.
#[derive(Debug)]
pub struct Pattern {
    noise: Vec<u8>,
    /// The alignment of messages: 1 for any byte.
    grain: usize,
    opcode: Opcode,
}

impl Pattern {
    /// Returns a table for messages of up to `largest` bytes.
    pub fn new(largest: usize) -> Self {
        let mut noise = vec![0; PLACES + largest];
        fastrand::Rng::with_seed(0x9E37_79B9_7F4A_7C15).fill(&mut noise);
        Self { noise, grain: 1, opcode: Opcode::Binary }
    }

    /// Returns a table of text messages of `length` bytes each. Every one is a JSON object.
    ///
    /// # Panics
    ///
    /// Panics if `length` is too short for an object.
    pub fn json(length: usize) -> Self {
        let (head, tail) = JSON;
        assert!(length > head.len() + tail.len(), "a JSON message has at least {} bytes", head.len() + tail.len() + 1);
        let mut random = fastrand::Rng::with_seed(0x9E37_79B9_7F4A_7C15);
        let mut noise = Vec::with_capacity(PLACES + length);
        while noise.len() < PLACES {
            noise.extend_from_slice(head);
            noise.extend((head.len() + tail.len()..length).map(|_| random.alphanumeric() as u8));
            noise.extend_from_slice(tail);
        }
        Self { noise, grain: length, opcode: Opcode::Text }
    }

    /// Returns the opcode of the messages.
    pub fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// Returns the place of the message number `sequence` of a session.
    ///
    /// # Panics
    ///
    /// Panics if `length` is more than the table was created for.
    pub fn place(&self, session: usize, sequence: u64, length: usize) -> Range<usize> {
        let turn = usize::try_from(sequence).unwrap_or(usize::MAX);
        let start = session.wrapping_mul(7919).wrapping_add(turn.wrapping_mul(104_729)) % PLACES;
        let start = start - start % self.grain;
        assert!(start + length <= self.noise.len(), "a message of {length} bytes is longer than the pattern allows");
        start..start + length
    }

    /// Returns the place of `length` bytes from `start`; [`None`] beyond the table.
    pub fn at(&self, start: usize, length: usize) -> Option<Range<usize>> {
        let end = start.checked_add(length)?;
        (end <= self.noise.len()).then_some(start..end)
    }

    /// Returns the bytes at a place.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.noise[place]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn successive_messages_differ() {
        let pattern = Pattern::new(64);
        let mut seen = HashSet::new();
        for session in 0..10 {
            for sequence in 0..1000 {
                assert!(
                    seen.insert(pattern.bytes(pattern.place(session, sequence, 64)).to_vec()),
                    "{session} {sequence}"
                );
            }
        }
    }

    #[test]
    fn every_message_of_json_is_an_object() {
        let pattern = Pattern::json(64);
        for sequence in 0..PLACES as u64 {
            let message = pattern.bytes(pattern.place(3, sequence, 64));
            assert!(message.starts_with(JSON.0) && message.ends_with(JSON.1), "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn a_place_beyond_the_table_is_none() {
        let pattern = Pattern::new(100);
        assert_eq!(pattern.at(PLACES, 100), Some(PLACES..PLACES + 100));
        assert_eq!(pattern.at(PLACES, 101), None);
        assert_eq!(pattern.at(usize::MAX, 1), None);
    }

    #[test]
    fn every_place_is_within_the_table() {
        let pattern = Pattern::new(100);
        for sequence in 0..PLACES as u64 {
            assert_eq!(pattern.bytes(pattern.place(3, sequence, 100)).len(), 100);
        }
    }
}
