//! Whom a session tells what happens on it, as it happens.

use std::fmt;
use std::time::Duration;

use crate::session::Ending;
use crate::ws::Sender;

/// Is told what happens on one session, by the session's own task: it must not block.
///
/// Nothing here is on the way of a frame; an idle session tells of a ping and its pong.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A probe of the proxy's own goes out to the client.
    fn pinged(&self) {}

    /// The client has answered one; `rtt` is its round trip, if that was measured.
    fn ponged(&self, rtt: Option<Duration>) {
        let _ = rtt;
    }

    /// A round trip was measured by a probe of the app's own.
    fn measured(&self, rtt: Duration) {
        let _ = rtt;
    }

    /// The app has answered a ping of the proxy's own; `rtt` is its round trip.
    fn upstream_ponged(&self, rtt: Duration) {
        let _ = rtt;
    }

    /// A window has passed without a sign of life, the `misses`th in a row; the `max`th ends the session.
    fn missed(&self, misses: u32, max: u32) {
        let _ = (misses, max);
    }

    /// The session ends for want of a sign of life.
    fn timed_out(&self) {}

    /// The session has ended: both peers have been sent all that they get, and what was written is known. A socket may
    /// still be read for a moment, so that closing it resets nothing.
    fn ended(&self, ending: &Ending) {
        let _ = ending;
    }

    /// What `from` sends is held up from here on, because the other leg does not take it. Told once each time.
    fn paused(&self, from: Sender) {
        let _ = from;
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}
