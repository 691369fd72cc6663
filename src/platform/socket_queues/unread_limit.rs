//! The precision of the count of unread bytes.

/// The number of unread bytes up to which [`unread`](super::unread) counts on every system.
pub const UNREAD_COUNTED: usize = 2048;
