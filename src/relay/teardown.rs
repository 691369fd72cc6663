//! The end of one leg: what was accepted for its peer → Close → the peer's half → FIN → the peer's FIN.
//!
//! The time limits of these steps depend on the offender. The leg of an offender gets `close_grace` in all. Any other
//! leg delivers first, for as long as that moves, and its shorter times begin when nothing is left to deliver.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::direction::Direction;
use super::leg::Leg;
use super::slot::Slot;

/// The interval of checks whether the peer's kernel has acknowledged everything. Nothing wakes a task for that.
const ACK_LOOK: Duration = Duration::from_millis(50);

/// The progress of one leg's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer still gets what the other peer sends.
    Open,
    /// Nothing more is accepted for the peer: what waits goes out, and the peer's half of the end is waited for.
    Closing,
    /// FIN is out; what comes in is thrown away until the peer's end.
    Finished { since: Instant },
    /// The leg is closed.
    Done,
}

/// The times of an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct TeardownTimeouts {
    /// For the peer's half of a closing handshake that a peer began, from when everything is delivered; behind it FIN goes
    /// out, and `grace` begins. `None`: the peer's half is waited for within `grace`.
    pub(super) half: Option<Duration>,
    /// For the peer's end, from when everything is delivered.
    pub(super) grace: Duration,
    /// Without any progress.
    pub(super) stall: Duration,
    /// In all, from the first Close on.
    pub(super) absolute: Instant,
    /// Since when nothing is left to deliver on either leg; `None` while something is.
    pub(super) quiet: Option<Instant>,
}

/// The result of a review of a leg's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TeardownFinding {
    /// The leg has time left.
    InTime,
    /// The peer's half of the end was waited for in vain.
    NoAnswer,
    /// The leg's time is over.
    OutOfTime,
}

/// The end of one leg.
#[derive(Debug)]
pub(super) struct LegTeardown {
    opened: Instant,
    stage: Stage,
    /// The time at which the leg of an offender is cut off.
    offender_until: Option<Instant>,
    /// True if FIN does not wait for the peer's half.
    fin_at_once: bool,
    /// The bytes accepted and not yet delivered at the last look; a change is progress.
    mark: Mark,
    moved: Instant,
    /// Since when everything that was accepted is delivered.
    delivered: Option<Instant>,
    /// True if the connection broke, or was reset, with bytes that had not left this host.
    pub(super) is_lost: bool,
    /// The time of the next check.
    next: Option<Instant>,
}

/// The delivery of the bytes accepted for a leg's peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    accepted: u64,
    waiting: usize,
    written: u64,
    unacked: u64,
    /// Of a stream of HTTP/2 that waits for its turn, the progress of its connection.
    acked: u64,
}

impl LegTeardown {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            stage: Stage::Open,
            offender_until: None,
            fin_at_once: false,
            mark: Mark::default(),
            moved: now,
            delivered: None,
            is_lost: false,
            next: None,
        }
    }

    /// The leg's peer is to blame: the leg is cut off at `until`, or earlier where that was said before or after.
    pub(super) fn set_blame_deadline(&mut self, until: Instant) {
        self.offender_until = Some(self.offender_until.map_or(until, |earlier| earlier.min(until)));
    }

    /// The process was stopped for `time`, in which nothing could be read or written.
    pub(super) fn allow_for(&mut self, time: Duration) {
        self.moved += time;
        for at in [self.offender_until.as_mut(), self.delivered.as_mut()].into_iter().flatten() {
            *at += time;
        }
        if let Stage::Finished { since } = &mut self.stage {
            *since += time;
        }
    }

    /// FIN goes out behind what waits, without the peer's half of the end.
    pub(super) fn fin_at_once(&mut self) {
        self.fin_at_once = true;
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Returns whether something that was accepted for the peer is still to be delivered.
    pub(super) fn is_delivering(&self) -> bool {
        self.delivered.is_none() && !self.is_done()
    }

    /// Returns whether all that this leg's peer will ever get is on the wire, as far as that will be known.
    pub(super) fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Open | Stage::Closing => false,
            Stage::Finished { .. } => self.delivered.is_some() || self.offender_until.is_some(),
            Stage::Done => true,
        }
    }

    /// Since when the other leg need not wait for this one: everything is delivered, or no longer matters.
    pub(super) fn quiet(&self) -> Option<Instant> {
        if self.offender_until.is_some() || self.is_done() { Some(self.opened) } else { self.delivered }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Drives the leg as far as it goes without waiting. `towards` is the direction that ends in its peer, `back` the one
    /// that comes from there.
    pub(super) fn drive<L: Leg>(
        &mut self,
        leg: &mut Slot<L>,
        towards: &Direction,
        back: &Direction,
        cx: &mut Context<'_>,
        now: Instant,
    ) {
        loop {
            self.stage = match self.stage {
                Stage::Open if towards.is_closed() || towards.outbound.is_broken() => Stage::Closing,
                // Nothing can be written any more; what the peer has sent before is still wanted, as long as a half is
                // waited for.
                Stage::Closing if towards.outbound.is_broken() => {
                    if !back.inbound.is_over() && !back.is_closed() {
                        return;
                    }
                    Stage::Done
                }
                Stage::Closing
                    if towards.outbound.is_clear()
                        && (self.fin_at_once || back.inbound.is_over() || self.ends_half(leg, towards)) =>
                {
                    match Pin::new(&mut *leg).poll_shutdown(cx) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(())) => Stage::Finished { since: now },
                        Poll::Ready(Err(_)) => Stage::Done,
                    }
                }
                Stage::Finished { .. } if back.inbound.ended => Stage::Done,
                Stage::Open | Stage::Closing | Stage::Finished { .. } => return,
                Stage::Done => {
                    leg.close();
                    return;
                }
            };
        }
    }

    /// Returns whether FIN goes out behind the Close to an offender, whose half of the end changes nothing any more.
    fn ends_half<L: Leg>(&self, leg: &Slot<L>, towards: &Direction) -> bool {
        leg.has_halves() && self.offender_until.is_some() && towards.written_close().is_some()
    }

    /// Looks whether bytes move on the leg, and since when there are none left to deliver.
    pub(super) fn look<L: Leg>(&mut self, leg: &Slot<L>, towards: &Direction, now: Instant) {
        let outbound = &towards.outbound;
        let unacked = leg.unacked().unwrap_or(0);
        let acked = leg.delivery().map_or(0, |delivery| delivery.acked);
        let mark =
            Mark { accepted: outbound.accepted(), waiting: outbound.len(), written: leg.written(), unacked, acked };
        if mark != self.mark {
            if mark.accepted != self.mark.accepted {
                self.delivered = None;
            }
            (self.mark, self.moved) = (mark, now);
        }
        if outbound.is_clear() && unacked == 0 || self.is_done() {
            self.delivered.get_or_insert(now);
        } else {
            self.delivered = None;
        }
    }

    /// Compares the leg with its times.
    pub(super) fn review(&mut self, back: &Direction, time_limit: &TeardownTimeouts, now: Instant) -> TeardownFinding {
        self.next = None;
        let over = |at: Instant, finding| if at <= now { Err(finding) } else { Ok(at) };
        let next = match (self.stage, self.offender_until) {
            (Stage::Done, _) => return TeardownFinding::InTime,
            (_, Some(until)) => over(until, TeardownFinding::OutOfTime),
            (stage, None) => over(time_limit.absolute, TeardownFinding::OutOfTime).and_then(|absolute| {
                let next = match (stage, self.delivered) {
                    (_, None) => over(self.moved + time_limit.stall, TeardownFinding::OutOfTime)?.min(now + ACK_LOOK),
                    // The frame that its peer is sending is waited for.
                    (Stage::Closing | Stage::Finished { .. }, Some(_)) if back.awaits_gap() => absolute,
                    // Its peer's bytes are still relayed.
                    (Stage::Finished { .. }, Some(_)) if !back.is_closed() => absolute,
                    (Stage::Open | Stage::Done, Some(_)) => absolute,
                    (Stage::Finished { since }, Some(delivered)) => {
                        over(since.max(delivered) + time_limit.grace, TeardownFinding::OutOfTime)?
                    }
                    (Stage::Closing, Some(_)) => match (time_limit.quiet, time_limit.half) {
                        (Some(quiet), Some(half)) if !self.fin_at_once => {
                            over(quiet + half, TeardownFinding::NoAnswer)?
                        }
                        // A FIN that does not go out is waited for no longer than the peer's.
                        (Some(quiet), half) => {
                            over(quiet + half.unwrap_or_default() + time_limit.grace, TeardownFinding::OutOfTime)?
                        }
                        (None, _) => now + ACK_LOOK,
                    },
                };
                Ok(next.min(absolute))
            }),
        };
        match next {
            Ok(next) => {
                self.next = Some(next);
                TeardownFinding::InTime
            }
            Err(finding) => finding,
        }
    }

    /// Ends the leg. FIN suffices where everything is with the kernel and nothing of the peer's lies unread, so that a peer
    /// that wakes later still finds the Close; otherwise the connection is reset.
    pub(super) fn cut<L: Leg>(&mut self, leg: &mut Slot<L>, towards: &Direction, cx: &mut Context<'_>) {
        if self.is_done() {
            return;
        }
        let is_whole = towards.outbound.is_clear() && !towards.outbound.is_broken();
        let orderly = is_whole
            && Pin::new(&mut *leg).poll_shutdown(cx).is_ready()
            && !leg.delivery().is_some_and(|delivery| delivery.unread);
        if orderly {
            // The kernel goes on delivering.
            self.finish(leg);
        } else {
            self.abort(leg);
        }
    }

    /// Resets the connection at once.
    pub(super) fn abort<L: Leg>(&mut self, leg: &mut Slot<L>) {
        leg.abort_on_drop();
        self.gone(leg);
    }

    /// The connection is gone, and with it what its peer had not taken.
    pub(super) fn gone<L: Leg>(&mut self, leg: &mut Slot<L>) {
        if !self.is_done() {
            self.is_lost = leg.untransmitted().map_or(self.delivered.is_none(), |bytes| bytes > 0);
            self.finish(leg);
        }
    }

    fn finish<L: Leg>(&mut self, leg: &mut Slot<L>) {
        self.stage = Stage::Done;
        self.next = None;
        leg.close();
    }
}
