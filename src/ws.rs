//! RFC 6455 framing without I/O: headers, the frame scanner, control frames, close codes.
//!
//! Everything here is a function of the bytes passed in. No payload is held, and relayed bytes are never rewritten: the
//! scanner only reports where frames begin and end.

mod close;
mod control;
mod header;
mod message;
mod scanner;

pub use close::{Close, may_be_sent};
pub use control::{ControlFrame, MAX_CONTROL_PAYLOAD, unmask};
pub use header::{FrameHeader, MAX_HEADER, Opcode, Sender};
pub use message::message_frame;
pub use scanner::{Piece, Scanner};

/// The RSV bits claimed by an unknown extension: all three, as it may use any of them.
pub const RSV_ALL: u8 = 0x70;
/// The RSV bit of permessage-deflate, RSV1 (RFC 7692 §6).
pub const RSV_DEFLATE: u8 = 0x40;

/// The payload transformation negotiated for one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// No extension; payloads are sent as they are.
    #[default]
    Plain,
    /// permessage-deflate: any message may be compressed (RFC 7692).
    Deflate {
        /// True if the client's messages may refer to earlier ones (no `client_no_context_takeover`, RFC 7692
        /// §7.1.1.2).
        client_takeover: bool,
        /// True if the app's messages may refer to earlier ones (no `server_no_context_takeover`, RFC 7692 §7.1.1.1).
        server_takeover: bool,
    },
    /// An extension that pulsegate does not implement.
    Unknown,
}

impl Coding {
    /// Returns the RSV bits claimed by the extensions, as in [`Limits::rsv`].
    pub fn rsv(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Deflate { .. } => RSV_DEFLATE,
            Self::Unknown => RSV_ALL,
        }
    }
}

/// The frame limits of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The maximum payload of one data frame in bytes; `None` is unlimited.
    pub frame: Option<u64>,
    /// The maximum payload of one message in bytes; `None` is unlimited.
    pub message: Option<u64>,
    /// The maximum number of client messages a second; `None` is unlimited. The scanner has no clock, so its caller
    /// enforces this limit.
    pub messages_per_second: Option<u32>,
    /// The RSV bits claimed by the negotiated extensions, at their position in the first header byte ([`RSV_DEFLATE`],
    /// or [`RSV_ALL`] for an unknown extension).
    pub rsv: u8,
}

/// A broken rule of RFC 6455, or an exceeded limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved opcode that no extension defines (§5.2).
    ReservedOpcode,
    /// An RSV bit that no extension claims for this frame (§5.2, RFC 7692 §6.1).
    ReservedBit,
    /// A client frame without a mask (§5.1).
    Unmasked,
    /// A server frame with a mask (§5.1).
    Masked,
    /// A control frame over 125 bytes (§5.5).
    ControlTooLong,
    /// A control frame without FIN (§5.5).
    ControlFragmented,
    /// A 64-bit length with the top bit set (§5.2).
    LengthOverflow,
    /// A continuation with no message open (§5.4).
    UnexpectedContinuation,
    /// A new message before the last one ended (§5.4).
    UnfinishedMessage,
    /// A Close with one byte of payload, or with a code that must not be sent (§5.5.1, §7.4).
    BadClose,
    /// A Close whose reason is not UTF-8 (§5.5.1).
    BadCloseReason,
    /// A frame over the configured limit.
    FrameTooBig,
    /// A message over the configured limit.
    MessageTooBig,
}

impl Violation {
    /// Returns a short description of the violation for close reasons and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservedOpcode => "reserved opcode",
            Self::ReservedBit => "reserved bit set",
            Self::Unmasked => "unmasked client frame",
            Self::Masked => "masked server frame",
            Self::ControlTooLong => "control frame over 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::LengthOverflow => "length over 63 bits",
            Self::UnexpectedContinuation => "continuation without a message",
            Self::UnfinishedMessage => "new message inside another",
            Self::BadClose => "invalid close code",
            Self::BadCloseReason => "close reason is not UTF-8",
            Self::FrameTooBig => "frame over the limit",
            Self::MessageTooBig => "message over the limit",
        }
    }

    /// Returns the close code sent to the offending peer (§7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::FrameTooBig | Self::MessageTooBig => 1009,
            Self::BadCloseReason => 1007,
            _ => 1002,
        }
    }
}
