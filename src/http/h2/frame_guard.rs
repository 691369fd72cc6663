//! The walk over a client's frames as a function of bytes.

use tokio::time::Instant;

use super::frame_limits::Frames;
use super::streams::{StreamKind, Streams};

/// The frame walk of one connection together with its live streams, for tests from outside.
#[derive(Debug)]
pub struct FrameGuard {
    frames: Frames,
    streams: Streams,
    now: Instant,
}

impl FrameGuard {
    /// A connection that begins at `now` and on which `live` streams are open.
    pub fn new(now: Instant, live: &[u32]) -> Self {
        let mut streams = Streams::default();
        for id in live {
            streams.open(*id, StreamKind::WebSocket);
        }
        Self { frames: Frames::new(now), streams, now }
    }

    /// Takes the next `bytes` of the client and returns what passes on to the library.
    pub fn sift(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = [self.frames.held(), bytes].concat();
        let kept = self.frames.sift(&mut all, self.now, &mut self.streams);
        all.truncate(kept);
        all
    }

    /// The bytes that are kept back until it is known what they are.
    pub fn held(&self) -> &[u8] {
        self.frames.held()
    }

    /// The number of small DATA frames.
    pub fn small(&self) -> usize {
        self.frames.small()
    }

    /// The number of streams that were lost by errors of the client's.
    pub fn losses(&mut self) -> u32 {
        self.streams.tolerance.losses()
    }

    /// The word for the reason for which the connection is to end, and its code.
    pub fn fault(&self) -> Option<(&'static str, u32)> {
        self.frames.fault().map(|fault| (fault.word, fault.code.into()))
    }

    /// Stream and length so far of the DATA frame under way.
    pub fn data(&self) -> Option<(u32, usize)> {
        self.frames.data().map(|part| (part.stream, part.len))
    }

    /// Returns whether a header block is under way.
    pub fn is_in_block(&self) -> bool {
        self.frames.block_until(std::time::Duration::ZERO).is_some()
    }

    /// Takes the streams whose trailers are malformed.
    pub fn take_malformed(&mut self) -> Vec<u32> {
        self.frames.take_malformed()
    }

    /// Takes the streams that are to be reset, and the windows to be widened, by stream.
    pub fn take(&mut self) -> (Vec<u32>, Vec<(u32, u32)>) {
        (self.frames.take_broken(), self.streams.take_credits())
    }
}
