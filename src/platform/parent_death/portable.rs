//! No signal.

use std::os::unix::process::CommandExt;

pub(super) fn ends_with_parent(_: &mut impl CommandExt) {}
