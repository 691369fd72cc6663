//! The report of an end: the Closes written on both legs, and the final figures.

use std::time::Instant;

use super::end::End;
use super::leg::Leg;
use super::pump::Pump;
use crate::session::{CloseCause, Ending};
use crate::ws::Sender;

/// The code that stands for a Close which was neither sent nor received (RFC 6455 §7.1.5).
const NO_CLOSE: u16 = 1006;

impl<C: Leg, U: Leg> Pump<C, U> {
    /// Reports the end once what was written on both legs is known.
    pub(super) fn settle(&mut self, now: Instant) {
        if !(self.client_end.is_settled() && self.app_end.is_settled()) {
            return;
        }
        let Some(end) = self.end.as_deref().filter(|end| end.ending.is_none()) else { return };
        let ending = self.ending(end, now);
        self.rules.ended(&ending);
        if let Some(end) = &mut self.end {
            end.ending = Some(ending);
        }
    }

    fn ending(&self, end: &End, now: Instant) -> Ending {
        let first = self.rules.first_close.as_ref();
        let code = |peer: Sender, to_peer: Option<u16>, from_peer: Option<u16>| {
            let own = first.filter(|first| first.by == peer).map(|first| first.code);
            own.or(to_peer).or(from_peer).unwrap_or(NO_CLOSE)
        };
        // A peer that answered a Close has received it, however its connection ended.
        let (from_client, from_app) = (self.up.inbound.close, self.down.inbound.close);
        let to_client = self.down.written_close().filter(|_| !self.client_end.is_lost || from_client.is_some());
        let to_app = self.up.written_close().filter(|_| !self.app_end.is_lost || from_app.is_some());
        let by_app = first.filter(|first| first.by == Sender::Server).map(|first| &first.reason);
        let app_reason = by_app.or(to_app.map(|close| &close.reason));
        let client_code = code(Sender::Client, to_client.map(|close| close.code), from_client);
        // A client that only ended its direction may have been closed by its app.
        let is_clean = first.is_some() || client_code != NO_CLOSE;
        let reason = first.map(|first| &first.reason).or(to_client.map(|close| &close.reason));
        Ending {
            // Only the end of the client's connection begins such an end without a Close.
            cause: match end.cause {
                CloseCause::Closed { .. } if !is_clean => CloseCause::ClientLost { breakage: None },
                ref cause => cause.clone(),
            },
            client_code,
            upstream_code: code(Sender::Server, to_app.map(|close| close.code), from_app),
            close_reason: reason.cloned().unwrap_or_default(),
            upstream_close_reason: app_reason.cloned().unwrap_or_default(),
            from_client: self.up.inbound.traffic,
            from_upstream: self.down.inbound.traffic,
            heartbeat: self.rules.engine.stats(),
            duration: now.saturating_duration_since(self.rules.control.opened()),
            last_seen_ago: end.last_seen_ago,
            last_pong_ago: end.last_pong_ago,
        }
    }
}
