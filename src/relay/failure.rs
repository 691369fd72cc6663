//! The causes of an end that failures of reads and writes stand for.

use std::io;

use super::leg::Unanswered;
use crate::session::{Breakage, CloseCause};

/// Returns the cause of an end when a read or a write on the client leg failed with `error`.
pub(super) fn client_lost(error: &io::Error) -> CloseCause {
    match error.kind() {
        io::ErrorKind::TimedOut if is_unanswered(error) => CloseCause::ClientUnanswered,
        // The kernel, or the connection that the leg shares with others, has seen no acknowledgement for too long.
        io::ErrorKind::TimedOut => CloseCause::SlowReader,
        _ => CloseCause::ClientLost { breakage: Some(breakage(error)) },
    }
}

/// Returns the cause of an end when the app's leg ended without a Close, or failed with `error`.
pub(super) fn upstream_lost(error: Option<&io::Error>) -> CloseCause {
    CloseCause::UpstreamLost { breakage: error.map(breakage) }
}

fn breakage(error: &io::Error) -> Breakage {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Breakage::Reset,
        io::ErrorKind::BrokenPipe => Breakage::ClosedWhileWriting,
        io::ErrorKind::TimedOut => Breakage::TimedOut,
        _ => Breakage::Failed,
    }
}

/// Returns whether not the kernel gave up, but the connection that the leg shares with others.
fn is_unanswered(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Unanswered>)
}
