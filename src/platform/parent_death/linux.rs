//! A signal by the kernel.

use std::os::unix::process::CommandExt;

use crate::platform::linux_calls;

pub(super) fn ends_with_parent(command: &mut impl CommandExt) {
    linux_calls::terminate_with_parent(command);
}
