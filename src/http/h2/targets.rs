//! Targets of streams that the library has not handed out, as they were sent.

use std::collections::BTreeMap;

/// Targets that are kept at most: there are more where streams are refused by the library as soon as they begin, or reset by
/// the client, and these need none.
const KEPT_MOST: usize = 256;

/// Odd targets by their streams.
#[derive(Debug, Default)]
pub(super) struct Targets(BTreeMap<u32, Box<[u8]>>);

impl Targets {
    /// `stream` begins with `target`.
    pub(super) fn note(&mut self, stream: u32, target: Box<[u8]>) {
        self.0.insert(stream, target);
        if self.0.len() > KEPT_MOST {
            self.0.pop_first();
        }
    }

    /// Takes the target of `stream`. The library hands streams out in order: those of earlier ones are of no use.
    pub(super) fn take(&mut self, stream: u32) -> Option<Box<[u8]>> {
        while let Some(first) = self.0.first_entry()
            && *first.key() < stream
        {
            first.remove();
        }
        self.0.remove(&stream)
    }

    /// The library has reset `stream`.
    pub(super) fn forget(&mut self, stream: u32) {
        self.0.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_kept_for_streams_to_come() {
        let mut targets = Targets::default();
        for stream in [1, 3, 5, 7] {
            targets.note(stream, Box::new([b'/']));
        }
        targets.forget(5);
        assert!(targets.take(3).is_some());
        assert_eq!(targets.0.keys().collect::<Vec<_>>(), [&7]);
        assert!(targets.take(3).is_none() && targets.take(9).is_none());
        for stream in 0..1000 {
            targets.note(stream, Box::default());
        }
        assert_eq!((targets.0.len(), targets.take(999)), (KEPT_MOST, Some(Box::default())));
    }
}
