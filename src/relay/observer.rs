//! The receiver of a session's events.

use std::fmt;
use std::time::Duration;

use crate::session::Ending;
use crate::ws::Sender;

/// The receiver of one session's events, called by the session's own task: it must not block.
///
/// Nothing is called for a single frame; an idle session reports a ping and its pong.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Reports a probe of the proxy that goes out to the client.
    fn pinged(&self) {}

    /// Reports the client's answer to one; `rtt` is its round trip, if that was measured.
    fn ponged(&self, rtt: Option<Duration>) {
        let _ = rtt;
    }

    /// Reports a round trip that was measured by a probe of the app.
    fn measured(&self, rtt: Duration) {
        let _ = rtt;
    }

    /// Reports the app's answer to a ping of the proxy; `rtt` is its round trip.
    fn upstream_ponged(&self, rtt: Duration) {
        let _ = rtt;
    }

    /// Reports a window without a sign of life, the `misses`th in a row; the `max`th ends the session.
    fn missed(&self, misses: u32, max: u32) {
        let _ = (misses, max);
    }

    /// Reports that the session ends for want of a sign of life.
    fn timed_out(&self) {}

    /// Reports the end of the session: both peers were sent everything, and what was written is known. A socket may still be
    /// read for a moment, so that closing it resets nothing.
    fn ended(&self, ending: &Ending) {
        let _ = ending;
    }

    /// Reports, once each time, that reading from `from` pauses because the other leg does not take what was read.
    fn paused(&self, from: Sender) {
        let _ = from;
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}
