//! Keys of a terminal.

/// The code that turns off the function of a key (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = libc::_POSIX_VDISABLE;
