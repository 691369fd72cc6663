//! Messages as a peer with permessage-deflate sends them (RFC 7692).

use flate2::{Compress, Compression, FlushCompress};

use crate::rig::Frame;

/// One peer's compressor.
pub struct Deflate {
    stream: Compress,
    takeover: bool,
}

impl Deflate {
    /// Creates a compressor; with `takeover` a message may refer to those before it (§7.2.3.2).
    pub fn new(takeover: bool) -> Self {
        Self { stream: Compress::new(Compression::default(), false), takeover }
    }

    /// Returns the message `frame`, compressed in one frame.
    pub fn message(&mut self, frame: &Frame) -> Frame {
        Frame { first: frame.first | 0x40, payload: self.payload(&frame.payload) }
    }

    pub fn payload(&mut self, payload: &[u8]) -> Vec<u8> {
        // An empty payload compresses to nothing; the message needs a block all the same (§7.2.3.6).
        if payload.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(payload.len() * 2 + 64);
        self.stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("valid at any time");
        assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]), "flushed");
        out.truncate(out.len() - 4);
        if !self.takeover {
            self.stream.reset();
        }
        out
    }
}
