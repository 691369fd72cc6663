//! The frame scanner: finds the frame boundaries in a stream of bytes.

use super::{FrameHeader, Limits, Opcode, Sender, Violation};

/// The state of one direction's frame stream, for input in chunks of any size.
///
/// The scanner holds no bytes. The payload of data frames is skipped, not read. Input that cannot be consumed yet, an
/// incomplete header or an incomplete control frame, stays with the caller, which passes it again in front of the next
/// bytes; it is never more than [`Scanner::MAX_REST`] bytes.
#[derive(Debug)]
pub struct Scanner {
    from: Sender,
    limits: Limits,
    /// The payload bytes of the current data frame still to come; 0 at a frame boundary.
    remaining: u64,
    /// True if the current data frame is the last one of its message.
    fin: bool,
    /// The declared payload bytes of the open message so far; `None` between messages.
    message: Option<u64>,
}

/// The item at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A data frame or a part of one.
    Data {
        /// The length of this part in bytes, header included.
        len: usize,
        /// The payload bytes among them.
        payload: usize,
        /// True if this part ends its frame.
        ends_frame: bool,
        /// True if this part ends its message.
        ends_message: bool,
    },
    /// A complete control frame: `header.len` bytes of header, then `header.payload` bytes of payload.
    Control(FrameHeader),
}

impl Scanner {
    /// The maximum number of bytes left over for the next call: a control frame without its last byte.
    pub const MAX_REST: usize = 2 + 4 + super::MAX_CONTROL_PAYLOAD - 1;

    /// Creates a scanner at the beginning of a stream.
    pub fn new(from: Sender, limits: Limits) -> Self {
        Self { from, limits, remaining: 0, fin: true, message: None }
    }

    /// Returns whether the bytes consumed so far end at a frame boundary.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }

    /// Returns whether the bytes consumed so far end at a message boundary.
    pub fn between_messages(&self) -> bool {
        self.at_boundary() && self.message.is_none()
    }

    /// Returns whether `input`, the bytes after those consumed so far, begins with the complete header of a new
    /// message.
    pub fn begins_message(&self, input: &[u8]) -> bool {
        let is_data = |header: FrameHeader| !header.opcode.is_control();
        self.between_messages()
            && FrameHeader::parse(input, self.from, &self.limits).is_ok_and(|header| header.is_some_and(is_data))
    }

    /// Consumes the item at the front of `input`; `None` if more bytes are needed first.
    ///
    /// # Errors
    ///
    /// The [`Violation`] committed by the frame at the front. The scanner must not be used afterwards.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Piece>, Violation> {
        if self.remaining > 0 {
            return Ok((!input.is_empty()).then(|| self.advance(0, input.len())));
        }
        let Some(header) = FrameHeader::parse(input, self.from, &self.limits)? else { return Ok(None) };
        if header.opcode.is_control() {
            return Ok(is_whole(&header, input).then_some(Piece::Control(header)));
        }
        self.open(&header)?;
        Ok(Some(self.advance(header.len, input.len() - header.len)))
    }

    /// Begins a data frame.
    fn open(&mut self, header: &FrameHeader) -> Result<(), Violation> {
        let so_far = match (self.message, header.opcode) {
            (None, Opcode::CONTINUATION) => return Err(Violation::UnexpectedContinuation),
            (Some(_), Opcode::TEXT | Opcode::BINARY) => return Err(Violation::UnfinishedMessage),
            (so_far, _) => so_far.unwrap_or(0),
        };
        let message = so_far.saturating_add(header.payload);
        if self.limits.frame.is_some_and(|limit| header.payload > limit) {
            return Err(Violation::FrameTooBig);
        }
        if self.limits.message.is_some_and(|limit| message > limit) {
            return Err(Violation::MessageTooBig);
        }
        self.remaining = header.payload;
        self.fin = header.fin;
        self.message = Some(message);
        Ok(())
    }

    /// Consumes the available payload after `header` bytes of header.
    fn advance(&mut self, header: usize, available: usize) -> Piece {
        let taken = usize::try_from(self.remaining).map_or(available, |remaining| remaining.min(available));
        self.remaining -= taken as u64;
        let ends_frame = self.remaining == 0;
        let ends_message = ends_frame && self.fin;
        if ends_message {
            self.message = None;
        }
        Piece::Data { len: header + taken, payload: taken, ends_frame, ends_message }
    }
}

fn is_whole(header: &FrameHeader, input: &[u8]) -> bool {
    input.len() as u64 >= header.len as u64 + header.payload
}

#[cfg(test)]
mod tests;
