//! RFC 6455 framing without input or output: headers, the frame scanner, control frames, close codes.
//!
//! Everything here is a function of the bytes it is given. Nothing holds payload, and nothing that is relayed is
//! ever rewritten: the scanner only tells where frames begin and end.

mod close;
mod control;
mod header;
mod message;
mod scanner;

pub use close::{Close, may_be_sent};
pub use control::{ControlFrame, MAX_CONTROL_PAYLOAD, unmask};
pub use header::{Header, MAX_HEADER, Opcode, Sender};
pub use message::message_frame;
pub use scanner::{Piece, Scanner};

/// The RSV bits of an extension that is not known here: all three, for it may claim any.
pub const RSV_ALL: u8 = 0x70;
/// The RSV bit of permessage-deflate, RSV1 (RFC 7692 §6).
pub const RSV_DEFLATE: u8 = 0x40;

/// What the negotiated extensions do to the payloads of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// Nothing.
    #[default]
    Plain,
    /// permessage-deflate may compress any message (RFC 7692).
    Deflate {
        /// Whether the client's messages may refer to earlier ones (no `client_no_context_takeover`, §7.1.1.2).
        client_takeover: bool,
        /// Whether the app's messages may refer to earlier ones (no `server_no_context_takeover`, §7.1.1.1).
        server_takeover: bool,
    },
    /// Something that is not known here.
    Unknown,
}

impl Coding {
    /// The RSV bits that the extensions claim, as in [`Limits::rsv`].
    pub fn rsv(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Deflate { .. } => RSV_DEFLATE,
            Self::Unknown => RSV_ALL,
        }
    }
}

/// Frame rules of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one data frame in bytes; `None` is unlimited.
    pub frame: Option<u64>,
    /// Largest payload of one message in bytes; `None` is unlimited.
    pub message: Option<u64>,
    /// Messages a second that the client may send; `None` is unlimited. The scanner, which knows no time, leaves it to
    /// its caller.
    pub messages_per_second: Option<u32>,
    /// RSV bits that negotiated extensions have claimed, as they stand in the first header byte
    /// ([`RSV_DEFLATE`], or [`RSV_ALL`] where an extension is unknown to us).
    pub rsv: u8,
}

/// A rule of RFC 6455 that a peer broke, or a limit that it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An opcode that no extension has given a meaning (§5.2).
    ReservedOpcode,
    /// An RSV bit that no extension has claimed for this frame (§5.2, RFC 7692 §6.1).
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
    /// A Close with one byte of payload, or with a code that may not stand on a wire (§5.5.1, §7.4).
    BadClose,
    /// A Close whose reason is not UTF-8 (§5.5.1).
    BadCloseReason,
    /// A frame over the configured limit.
    FrameTooBig,
    /// A message over the configured limit.
    MessageTooBig,
}

impl Violation {
    /// What the peer did, in a few words.
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

    /// The code with which the offender is told (§7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::FrameTooBig | Self::MessageTooBig => 1009,
            Self::BadCloseReason => 1007,
            _ => 1002,
        }
    }
}
