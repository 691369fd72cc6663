//! The client's windows (RFC 9113 §6.9), and the bytes of padding that it gets back in them.

use super::{EARLY_MOST, Streams, note_open};

/// The client's windows (RFC 9113 §6.9).
impl Streams {
    pub(in crate::http::h2) fn widen(&mut self, id: u32, increment: u32) {
        if id == 0 {
            self.window += i64::from(increment);
            note_open(&mut self.shut, self.window);
        } else if let Some(live) = self.live.get_mut(&id) {
            live.window += i64::from(increment);
            note_open(&mut live.shut, live.window);
        } else if id > self.entered && self.early.len() < EARLY_MOST {
            *self.early.entry(id).or_default() += i64::from(increment);
        }
    }

    pub(in crate::http::h2) fn set_initial_window(&mut self, size: u32) {
        let more = i64::from(size) - std::mem::replace(&mut self.initial_window, i64::from(size));
        for live in self.live.values_mut() {
            live.window += more;
            note_open(&mut live.shut, live.window);
        }
    }

    /// `bytes` of padding of stream `id` were taken out: the client is to get them back in its windows.
    pub(in crate::http::h2) fn credit(&mut self, id: u32, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes);
        self.has_credit = true;
        if let Some(live) = self.live.get_mut(&id) {
            live.credit = live.credit.saturating_add(bytes);
        }
    }

    /// Returns the windows to be widened, by stream, and by how much; stream 0 is the connection.
    pub(in crate::http::h2) fn take_credits(&mut self) -> Vec<(u32, u32)> {
        if !std::mem::take(&mut self.has_credit) {
            return Vec::new();
        }
        let streams = self.live.iter_mut().map(|(id, live)| (*id, std::mem::take(&mut live.credit)));
        streams.chain([(0, std::mem::take(&mut self.credit))]).filter(|(_, credit)| *credit > 0).collect()
    }
}
