//! RFC 6455 framing without input or output: headers, the frame scanner, close codes.

/// Frame rules of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one data frame in bytes; `None` is unlimited.
    pub frame: Option<u64>,
    /// Largest payload of one message in bytes; `None` is unlimited.
    pub message: Option<u64>,
    /// RSV bits that negotiated extensions have claimed, as they stand in the first header byte
    /// (0x40 is RSV1, which permessage-deflate uses; RFC 7692 §6).
    pub rsv: u8,
}
