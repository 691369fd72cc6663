//! What the messages say: reproducible noise in which every message differs from its predecessors, so that an echo
//! that is stale, shifted or of another session is noticed.

use std::ops::Range;

/// Distinct places where a message may begin. A prime, so that sessions and sequences spread over all of them.
const PLACES: usize = 1_048_573;

/// A table of noise that all messages are cut from: no message is generated while the clock runs.
#[derive(Debug)]
pub struct Pattern {
    noise: Vec<u8>,
}

impl Pattern {
    /// A table for messages of up to `largest` bytes.
    pub fn new(largest: usize) -> Self {
        let mut noise = vec![0; PLACES + largest];
        fastrand::Rng::with_seed(0x9E37_79B9_7F4A_7C15).fill(&mut noise);
        Self { noise }
    }

    /// Where the message number `sequence` of a session lies.
    ///
    /// # Panics
    ///
    /// If `length` is more than the table was made for.
    pub fn place(&self, session: usize, sequence: u64, length: usize) -> Range<usize> {
        let turn = usize::try_from(sequence).unwrap_or(usize::MAX);
        let start = session.wrapping_mul(7919).wrapping_add(turn.wrapping_mul(104_729)) % PLACES;
        assert!(start + length <= self.noise.len(), "a message of {length} bytes is longer than the pattern allows");
        start..start + length
    }

    /// The bytes at a place.
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
    fn every_place_is_within_the_table() {
        let pattern = Pattern::new(100);
        for sequence in 0..PLACES as u64 {
            assert_eq!(pattern.bytes(pattern.place(3, sequence, 100)).len(), 100);
        }
    }
}
