//! The way in from one leg: reads into the worker's scratch buffer and follows the frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

use super::leg::Leg;
use super::scratch::CHUNK;
use crate::session::Traffic;
use crate::ws::{Close, FrameHeader, Limits, MAX_CONTROL_PAYLOAD, Opcode, Piece, Scanner, Sender, Violation, unmask};

/// Bytes coming from one leg.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) scanner: Scanner,
    pub(super) traffic: Traffic,
    /// The code of the peer's Close, once it has been read; 1005 for an empty one.
    pub(super) close: Option<u16>,
    /// True if the peer will send nothing more.
    pub(super) ended: bool,
    /// True if the peer is treated as if it had vanished: nothing of it is relayed any more.
    pub(super) vanished: bool,
    /// True if the peer broke the framing: the scanner is of no use any more, and no Close is to be expected.
    pub(super) violated: bool,
    /// Read before the relay began.
    early: Bytes,
    /// An unfinished header or control frame, at most [`Scanner::MAX_REST`] bytes.
    rest: Vec<u8>,
}

impl Inbound {
    pub(super) fn new(from: Sender, limits: Limits, early: Bytes) -> Self {
        Self {
            scanner: Scanner::new(from, limits),
            traffic: Traffic::default(),
            close: None,
            ended: false,
            vanished: false,
            violated: false,
            early,
            rest: Vec::new(),
        }
    }

    /// Returns whether the peer is in the middle of a frame.
    #[inline]
    pub(super) fn inside_frame(&self) -> bool {
        !self.scanner.at_boundary() || !self.rest.is_empty()
    }

    /// Returns whether nothing more is to be read.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.ended || self.vanished
    }

    /// Returns whether nothing of interest can come any more: the peer has closed, ended, or broken the framing.
    pub(super) fn is_over(&self) -> bool {
        self.close.is_some() || self.ended || self.violated
    }

    /// Reads once into `scratch`, behind what was left over, and returns how much of it is filled; 0 where the peer
    /// has ended. `scratch` has room for [`Scanner::MAX_REST`] + [`CHUNK`] bytes.
    pub(super) fn poll_read<L: Leg>(
        &mut self,
        leg: &mut L,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let behind = self.rest.len();
        let read = if self.early.is_empty() {
            let mut space = ReadBuf::new(&mut scratch[behind..behind + CHUNK]);
            match ready!(Pin::new(leg).poll_read(cx, &mut space)) {
                Ok(()) => space.filled().len(),
                // TLS without close_notify: the connection was cut, as any TCP connection may be.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Poll::Ready(Err(error)),
            }
        } else {
            self.take_early(&mut scratch[behind..behind + CHUNK])
        };
        if read == 0 {
            self.ended = true;
            return Poll::Ready(Ok(0));
        }
        self.traffic.bytes += read as u64;
        scratch[..behind].copy_from_slice(&self.rest);
        self.rest = Vec::new();
        Poll::Ready(Ok(behind + read))
    }

    /// Keeps what the scanner could not consume yet.
    #[inline]
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.rest = rest.to_vec();
        }
    }

    /// Looks for the peer's Close in bytes that are otherwise thrown away.
    pub(super) fn seek_close(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while self.close.is_none() && !self.violated {
            match self.scanner.next(&bytes[at..]) {
                Ok(Some(Piece::Data { len, .. })) => at += len,
                Ok(Some(Piece::Control(header))) => {
                    if header.opcode == Opcode::CLOSE {
                        let payload = Payload::of(&header, &bytes[at..]);
                        self.close = Some(Close::parse(payload.as_bytes()).ok().and_then(|c| c.code).unwrap_or(1005));
                    }
                    at += control_len(&header);
                }
                Ok(None) => return self.keep(&bytes[at..]),
                Err(_) => self.violated = true,
            }
        }
    }

    fn take_early(&mut self, space: &mut [u8]) -> usize {
        let len = self.early.len().min(space.len());
        self.early.copy_to_slice(&mut space[..len]);
        if self.early.is_empty() {
            self.early = Bytes::new();
        }
        len
    }
}

/// The length of a whole control frame.
#[expect(clippy::cast_possible_truncation, reason = "the scanner lets no control frame over 125 bytes pass")]
pub(super) fn control_len(header: &FrameHeader) -> usize {
    header.len + header.payload as usize
}

/// The unmasked payload of a control frame.
pub(super) struct Payload {
    bytes: [u8; MAX_CONTROL_PAYLOAD],
    len: usize,
}

impl Payload {
    /// Of the control frame at the front of `bytes`.
    pub(super) fn of(header: &FrameHeader, bytes: &[u8]) -> Self {
        let payload = &bytes[header.len..control_len(header)];
        let mut copy = Self { bytes: [0; MAX_CONTROL_PAYLOAD], len: payload.len() };
        copy.bytes[..payload.len()].copy_from_slice(payload);
        if let Some(key) = header.mask {
            unmask(&mut copy.bytes[..payload.len()], key);
        }
        copy
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn close(&self) -> Result<Close<'_>, Violation> {
        Close::parse(self.as_bytes())
    }
}
