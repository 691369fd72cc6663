//! A walk over the frames that the HTTP/2 library sends (RFC 9113 §4.1): how far the bytes of each stream have come.

use h2::Reason;
use tokio::time::Instant;

use super::frame::{ACK, DATA, END_STREAM, H2FrameHeader, HEADER, PING, RST_STREAM, WORD, word};
use super::streams::Streams;

/// The position of the walk.
#[derive(Debug, Default)]
pub(super) struct Egress {
    /// The beginning of a frame's header.
    begun: Vec<u8>,
    /// The frame whose payload is being written, and what is left of that.
    frame: H2FrameHeader,
    left: usize,
    /// The code of a reset, as far as it has been written.
    code: Vec<u8>,
}

impl Egress {
    /// Returns whether a frame of the proxy's own may follow what was written so far.
    pub(super) fn at_boundary(&self) -> bool {
        self.left == 0 && self.begun.is_empty()
    }

    /// The library has written `bytes` at `now`.
    pub(super) fn walk(&mut self, mut bytes: &[u8], now: Instant, streams: &mut Streams) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let len = self.left.min(bytes.len());
                self.left -= len;
                if self.frame.kind == RST_STREAM {
                    self.reset(&bytes[..len], now, streams);
                }
                bytes = &bytes[len..];
                self.passed(len, streams);
                continue;
            }
            let header = if self.begun.is_empty() && bytes.len() >= HEADER {
                let header = H2FrameHeader::of(bytes);
                bytes = &bytes[HEADER..];
                header
            } else {
                let len = bytes.len().min(HEADER - self.begun.len());
                self.begun.extend_from_slice(&bytes[..len]);
                bytes = &bytes[len..];
                if self.begun.len() < HEADER {
                    return;
                }
                let header = H2FrameHeader::of(&self.begun);
                self.begun.clear();
                header
            };
            self.begin(header, now, streams);
        }
    }

    fn begin(&mut self, header: H2FrameHeader, now: Instant, streams: &mut Streams) {
        (self.frame, self.left) = (header, header.payload);
        match header.kind {
            DATA => {
                streams.spend(header.stream, header.payload, now);
                streams.tolerance.data(header.payload);
                if header.payload == 0 {
                    self.passed(0, streams);
                }
            }
            PING if !header.has(ACK) => streams.emit_ping(),
            _ => {}
        }
    }

    /// `bytes` of a reset's code are written. A stream that the library resets for an error of the client's is a loss.
    fn reset(&mut self, bytes: &[u8], now: Instant, streams: &mut Streams) {
        self.code.extend_from_slice(bytes);
        if self.code.len() == WORD {
            let code = Reason::from(word(&self.code));
            self.code.clear();
            streams.targets.forget(self.frame.stream);
            let is_error = matches!(
                code,
                Reason::PROTOCOL_ERROR | Reason::FLOW_CONTROL_ERROR | Reason::STREAM_CLOSED | Reason::FRAME_SIZE_ERROR
            );
            if is_error {
                streams.tolerance.lose(now);
            }
        }
    }

    fn passed(&self, bytes: usize, streams: &mut Streams) {
        if self.frame.kind == DATA {
            streams.emit(self.frame.stream, bytes, self.left == 0 && self.frame.has(END_STREAM));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::streams::StreamKind;
    use super::*;

    #[test]
    fn the_bytes_of_a_stream_count_wherever_the_output_is_cut() {
        let frame = |kind, flags, stream: u8, payload: &[u8]| {
            let len = u8::try_from(payload.len()).expect("short");
            [&[0, 0, len, kind, flags, 0, 0, 0, stream][..], payload].concat()
        };
        let sent = [
            frame(0x4, 0, 0, b"123456"),
            frame(DATA, 0, 1, b"hello"),
            frame(DATA, 0, 3, b"others"),
            frame(PING, 0, 0, b"12345678"),
            frame(DATA, END_STREAM, 1, b""),
        ]
        .concat();
        for size in 1..=sent.len() {
            let (mut egress, mut streams) = (Egress::default(), Streams::default());
            streams.open(1, StreamKind::Plain);
            streams.hand(1, 5);
            streams.hand_end(1);
            for piece in sent.chunks(size) {
                assert!(streams.end_of(1).is_none(), "pieces of {size}");
                egress.walk(piece, Instant::now(), &mut streams);
            }
            assert!(egress.at_boundary());
            assert_eq!(streams.unsent(1), 0);
            let cx = Context::from_waker(Waker::noop());
            assert!(streams.poll_flushed(1, &cx).is_pending(), "the socket has not taken it");
            streams.drained(100, &mut Vec::new());
            assert!(streams.poll_flushed(1, &cx).is_ready());
            assert_eq!((streams.end_of(1), streams.ping_end()), (Some(100), Some(100)));
        }
    }
}
