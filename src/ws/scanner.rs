//! The frame scanner: where frames begin and end in a stream of bytes, and nothing else.

use super::{Header, Limits, Opcode, Sender, Violation};

/// Follows the frames of one direction, however their bytes are cut into chunks.
///
/// The scanner holds no bytes. Payload of data frames is stepped over, not looked at. What it could not yet consume,
/// an unfinished header or an unfinished control frame, stays with the caller, who gives it again in front of what
/// comes next; that is never more than [`Scanner::MAX_REST`] bytes.
#[derive(Debug)]
pub struct Scanner {
    from: Sender,
    limits: Limits,
    /// Payload of the current data frame that has not passed yet; 0 at a frame boundary.
    remaining: u64,
    /// Whether the current data frame is the last one of its message.
    fin: bool,
    /// Payload of the open message so far, by declared lengths; `None` between messages.
    message: Option<u64>,
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A data frame or a part of one.
    Data {
        /// Bytes of the input that it takes.
        len: usize,
        /// How many of them are payload.
        payload: usize,
        /// Whether this part ends its frame.
        ends_frame: bool,
        /// Whether this part ends its message.
        ends_message: bool,
    },
    /// A whole control frame; its payload is the `header.payload` bytes behind the `header.len` bytes of header.
    Control(Header),
}

impl Scanner {
    /// The most that may be left over for the next call: a control frame that lacks its last byte.
    pub const MAX_REST: usize = 2 + 4 + super::MAX_CONTROL_PAYLOAD - 1;

    /// A scanner at the beginning of a stream.
    pub fn new(from: Sender, limits: Limits) -> Self {
        Self { from, limits, remaining: 0, fin: true, message: None }
    }

    /// Whether the bytes consumed so far end with a whole frame.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }

    /// Whether the bytes consumed so far end with a whole message.
    pub fn between_messages(&self) -> bool {
        self.at_boundary() && self.message.is_none()
    }

    /// Whether `input`, which stands behind the bytes consumed so far, begins with the whole header of a new message.
    pub fn begins_message(&self, input: &[u8]) -> bool {
        let is_data = |header: Header| !header.opcode.is_control();
        self.between_messages()
            && Header::parse(input, self.from, &self.limits).is_ok_and(|header| header.is_some_and(is_data))
    }

    /// Consumes what stands at the front of `input`; `None` where more bytes are needed first.
    ///
    /// # Errors
    ///
    /// The [`Violation`] that the frame at the front commits. The scanner is of no use afterwards.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Piece>, Violation> {
        if self.remaining > 0 {
            return Ok((!input.is_empty()).then(|| self.advance(0, input.len())));
        }
        let Some(header) = Header::parse(input, self.from, &self.limits)? else { return Ok(None) };
        if header.opcode.is_control() {
            return Ok(is_whole(&header, input).then_some(Piece::Control(header)));
        }
        self.open(&header)?;
        Ok(Some(self.advance(header.len, input.len() - header.len)))
    }

    /// Enters a data frame.
    fn open(&mut self, header: &Header) -> Result<(), Violation> {
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

    /// Takes as much payload as there is behind `header` bytes.
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

fn is_whole(header: &Header, input: &[u8]) -> bool {
    input.len() as u64 >= header.len as u64 + header.payload
}

#[cfg(test)]
#[path = "scanner_tests.rs"]
mod tests;
