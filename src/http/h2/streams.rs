//! The live streams of one connection: how far the bytes of each have come, which heartbeat each follows, and what the
//! answers to the connection's PINGs show of its client's silence.

mod inquiry;
mod pings;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::heartbeats::Heartbeats;
use super::targets::Targets;
use super::tolerance::Tolerance;
use super::turns::ResponseBudget;
use crate::heartbeat::{Mode, Policy};
use crate::relay::Delivery;
use pings::{InquiryAnswer, Pings, Stall};

/// Window of a stream and of a connection before anything else is agreed on (RFC 9113 §6.9.2).
const FIRST_WINDOW: i64 = 65_535;

/// Streams that are not entered yet whose windows are remembered.
const EARLY_MOST: usize = 1024;

/// Bytes that other streams may hold in the library while a stream counts as flushed ahead of its turn: they may
/// stand before its own.
const AHEAD: u64 = 64 * 1024;

/// The streams that a task serves, by their numbers.
#[derive(Debug)]
pub(super) struct Streams {
    live: BTreeMap<u32, Live>,
    /// The number of streams of each kind.
    open: [u32; 2],
    /// Streams of which bytes are among those that the library has written and the socket has not taken.
    dirty: Vec<u32>,
    /// Bytes of all streams that were handed to the library and that it has not written.
    held: u64,
    /// The bytes among them that belong to responses, and the order in which responses may add to them.
    pub(super) turns: ResponseBudget,
    /// End of the last bytes of any stream among those of the connection, once the socket has taken it.
    end: u64,
    /// Bytes that the client takes on the connection as a whole, and since when there has been no room for any.
    window: i64,
    shut: Option<Instant>,
    /// `SETTINGS_INITIAL_WINDOW_SIZE` of the client.
    initial_window: i64,
    /// The last stream that was entered, and what the client has added to the windows of streams behind it: a
    /// `WINDOW_UPDATE` may follow its HEADERS at once.
    entered: u32,
    early: BTreeMap<u32, i64>,
    pings: Pings,
    /// The earliest instant at which the lack of a stream's answer may call for PINGs, and whether it has become earlier
    /// since [`Self::take_changed`].
    inquire_at: Option<Instant>,
    is_earlier: bool,
    pub(super) heartbeats: Heartbeats,
    /// Bytes of padding to be credited to the connection's window, and whether a stream has some as well.
    credit: u32,
    has_credit: bool,
    pub(super) tolerance: Tolerance,
    pub(super) targets: Targets,
}

/// The purpose of a stream; there are limits for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// A request and its response.
    Plain,
    /// A WebSocket (RFC 8441).
    WebSocket,
}

/// The client's progress with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of the stream that the library has written.
    pub(super) own: u64,
    /// Bytes of the streams of the connection that the client's kernel has acknowledged, where that is known.
    pub(super) of_all: Option<u64>,
    /// Set while the stream waits for its turn among others.
    pub(super) is_behind: bool,
    /// Set while it waits for a `WINDOW_UPDATE` that may be on its way.
    pub(super) awaits_update: bool,
}

/// One stream.
#[derive(Debug)]
struct Live {
    kind: StreamKind,
    is_abandoned: bool,
    /// Bytes handed to the library, and how many of them it has written.
    handed: u64,
    emitted: u64,
    /// End of the last of these among the bytes of the connection, once the socket has taken it.
    end: u64,
    is_dirty: bool,
    /// Set while bytes wait for room in the windows or in the library.
    wants_room: bool,
    promised: Option<Promise>,
    end_stream: EndStream,
    /// Bytes that the client takes on this stream, and since when there has been no room for any.
    window: i64,
    shut: Option<Instant>,
    /// The wait for one of the windows.
    stall: Option<Stall>,
    /// The highest position that [`Streams::acked`] has returned.
    acked: u64,
    /// The connection's position when others were last found to have gone before promised bytes.
    passed: u64,
    /// The task that waits until the socket has taken everything.
    waiting: Option<Waker>,
    policy: Option<Arc<Policy>>,
    /// The answer that the heartbeat waits for.
    answer: Option<InquiryAnswer>,
    /// Bytes of padding to be credited to the stream's window.
    credit: u32,
}

/// The progress of `END_STREAM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndStream {
    Unsent,
    /// Handed to the library.
    Handed,
    /// Written by the library.
    Emitted,
}

/// A position reported for bytes that the driver is about to write: their end among those of the connection, at least.
#[derive(Clone, Copy, Debug)]
struct Promise {
    handed: u64,
    end: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            open: [0; 2],
            dirty: Vec::new(),
            held: 0,
            end: 0,
            turns: ResponseBudget::default(),
            window: FIRST_WINDOW,
            shut: None,
            initial_window: FIRST_WINDOW,
            entered: 0,
            early: BTreeMap::new(),
            pings: Pings::default(),
            inquire_at: None,
            is_earlier: false,
            heartbeats: Heartbeats::default(),
            credit: 0,
            has_credit: false,
            tolerance: Tolerance::new(Instant::now()),
            targets: Targets::default(),
        }
    }
}

/// Entry and exit, and the heartbeats.
impl Streams {
    pub(super) fn open(&mut self, id: u32, kind: StreamKind) {
        self.open[kind as usize] += 1;
        let early = self.early.remove(&id).unwrap_or(0);
        self.live.insert(id, Live::new(kind, self.initial_window + early));
        self.entered = self.entered.max(id);
        self.early.retain(|later, _| *later > id);
    }

    /// The client has abandoned stream `id`, which counts once.
    pub(super) fn abandon(&mut self, id: u32, now: Instant) {
        if let Some(live) = self.live.get_mut(&id)
            && !std::mem::replace(&mut live.is_abandoned, true)
        {
            self.tolerance.lose(now);
        }
    }

    /// Returns how many streams of this kind are open.
    pub(super) fn open_of(&self, kind: StreamKind) -> u32 {
        self.open[kind as usize]
    }

    pub(super) fn close(&mut self, id: u32) {
        if let Some(live) = self.live.remove(&id) {
            self.open[live.kind as usize] -= 1;
            self.release(live.kind, live.held());
            self.turns.leave(id);
            self.heartbeats.forget(live.policy.as_ref());
        }
    }

    pub(super) fn is_live(&self, id: u32) -> bool {
        self.live.contains_key(&id)
    }

    /// Stream `id` follows `policy` from here on.
    pub(super) fn follow(&mut self, id: u32, policy: &Arc<Policy>) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let before = live.policy.replace(Arc::clone(policy));
        self.heartbeats.follow(policy);
        self.heartbeats.forget(before.as_ref());
    }

    /// Returns whether the clocks may have moved to an earlier instant since [`Self::take_changed`].
    pub(super) fn has_changed(&self) -> bool {
        self.is_earlier || self.heartbeats.has_changed()
    }

    /// Returns whether the clocks may have moved to an earlier instant since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_earlier) | self.heartbeats.take_changed()
    }

    /// Returns whether stream `id` has no heartbeat.
    pub(super) fn is_off(&self, id: u32) -> bool {
        self.live.get(&id).and_then(|live| live.policy.as_ref()).is_some_and(|policy| policy.mode == Mode::Off)
    }
}

/// Bytes on their way to the client.
impl Streams {
    /// `bytes` of stream `id` are about to be handed to the library.
    pub(super) fn hand(&mut self, id: u32, bytes: usize) {
        if let Some(live) = self.live.get_mut(&id) {
            live.handed += bytes as u64;
            live.wants_room = false;
            self.held += bytes as u64;
            if live.kind == StreamKind::Plain {
                self.turns.hold(bytes as u64);
            }
        }
    }

    /// The library does not hold these bytes any more.
    fn release(&mut self, kind: StreamKind, bytes: u64) {
        self.held -= bytes;
        if kind == StreamKind::Plain {
            self.turns.release(bytes);
        }
    }

    /// Bytes of stream `id` wait for room in the windows or in the library.
    pub(super) fn want_room(&mut self, id: u32) {
        if let Some(live) = self.live.get_mut(&id) {
            live.wants_room = true;
        }
    }

    /// `END_STREAM` of stream `id` is about to be handed to the library.
    pub(super) fn hand_end(&mut self, id: u32) {
        if let Some(live) = self.live.get_mut(&id).filter(|live| live.end_stream == EndStream::Unsent) {
            live.end_stream = EndStream::Handed;
        }
    }

    /// The library begins a DATA frame with `payload` bytes.
    pub(super) fn spend(&mut self, id: u32, payload: usize, now: Instant) {
        self.window -= wide(payload);
        note_shut(&mut self.shut, self.window, now);
        if let Some(live) = self.live.get_mut(&id) {
            live.window -= wide(payload);
            note_shut(&mut live.shut, live.window, now);
        }
    }

    /// The library has written `bytes` of stream `id`, and `ends`: its `END_STREAM`.
    pub(super) fn emit(&mut self, id: u32, bytes: usize, ends: bool) {
        if let Some(live) = self.live.get_mut(&id) {
            let before = live.held();
            live.emitted += bytes as u64;
            let (kind, written) = (live.kind, before - live.held());
            if ends {
                live.end_stream = EndStream::Emitted;
            }
            if !std::mem::replace(&mut live.is_dirty, true) {
                self.dirty.push(id);
            }
            self.release(kind, written);
        }
    }

    /// The library has written a PING.
    pub(super) fn emit_ping(&mut self) {
        self.pings.end = None;
    }

    /// The socket has taken everything that the library has written: `written` bytes in all. Moves to `woken` the tasks
    /// that have waited for it.
    pub(super) fn drained(&mut self, written: u64, woken: &mut Vec<Waker>) {
        self.pings.end.get_or_insert(written);
        if !self.dirty.is_empty() {
            self.end = written;
        }
        woken.extend(self.turns.next());
        for id in self.dirty.drain(..) {
            if let Some(live) = self.live.get_mut(&id) {
                (live.is_dirty, live.end) = (false, written);
                live.promised = live.promised.filter(|promised| promised.handed > live.emitted);
                if live.is_flushed() {
                    woken.extend(live.waiting.take());
                }
            }
        }
    }

    /// The connection has ended. Moves all waiting tasks to `woken`.
    pub(super) fn ended(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.turns.end());
        woken.extend(self.live.values_mut().filter_map(|live| live.waiting.take()));
    }

    /// Waits until the socket has taken everything of stream `id`.
    pub(super) fn poll_flushed(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        let Some(live) = self.live.get_mut(&id).filter(|live| !live.is_flushed()) else { return Poll::Ready(()) };
        if !live.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            live.waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Returns whether nothing but the driver's next turn stands between stream `id` and a socket that takes bytes: its
    /// windows have room for what the library holds, and other streams hold little. Its bytes will end at `end` at
    /// least; until they do, [`Self::acked`] does not reach that. A session that had to wait for the turn would be
    /// polled twice as often.
    pub(super) fn is_next(&mut self, id: u32, end: u64) -> bool {
        let (of_all, window) = (self.held, self.window);
        let Some(live) = self.live.get_mut(&id) else { return false };
        let held = live.held();
        let room = i64::try_from(held).is_ok_and(|held| held <= live.window.min(window));
        let is_next = room && of_all - held <= AHEAD;
        if is_next {
            live.promised = Some(Promise { handed: live.handed, end });
        }
        is_next
    }

    /// Returns how far the client has come with stream `id`, on a connection of which `of_all` has been delivered and that
    /// was last heard at `last_received`, if it may stand still for `stall`.
    ///
    /// As in [`Self::acked`], a stream is behind others while its own window is open; a PING is no progress while the
    /// connection's is shut.
    pub(super) fn taken(
        &mut self,
        id: u32,
        of_all: Option<Delivery>,
        now: Instant,
        last_received: Instant,
        stall: Duration,
    ) -> Taken {
        let unread = of_all.is_some_and(|of_all| of_all.unread);
        let awaits_update = self.awaits_update(id, unread, now, last_received, stall);
        let is_queued = self.turns.is_waiting(id);
        let live = self.live.get(&id);
        Taken {
            own: live.map_or(0, |live| live.emitted),
            of_all: of_all.map(|of_all| self.of_streams(of_all.acked)),
            is_behind: live.is_some_and(|live| live.moves_on(is_queued)),
            awaits_update,
        }
    }

    /// Returns the bytes, of `acked` bytes of the connection, that count as progress of its streams.
    fn of_streams(&self, acked: u64) -> u64 {
        if self.window <= 0 && self.dirty.is_empty() { acked.min(self.end) } else { acked }
    }

    /// Bytes of stream `id` that the library holds.
    pub(super) fn unsent(&self, id: u32) -> u64 {
        self.live.get(&id).map_or(0, Live::held)
    }

    /// Returns the end of the bytes of stream `id` among those of the connection, if the socket has taken all of them.
    pub(super) fn end_of(&self, id: u32) -> Option<u64> {
        self.live.get(&id).filter(|live| live.is_flushed()).map(|live| live.end)
    }

    /// Returns the position up to which the bytes of stream `id` are acknowledged, on a connection with `of_all`
    /// acknowledged bytes.
    ///
    /// A stream that waits for its turn moves with the connection; where the window of that is shut, with the bytes of
    /// its streams, so that a PING is no progress. A stream whose own window is shut does not move, nor does one of which
    /// all bytes have arrived: then the progress of others does not count for it. Only while the `WINDOW_UPDATE` that it
    /// waits for may be on its way (see [`Stall`]) does each call count as progress.
    pub(super) fn acked(&mut self, id: u32, of_all: Delivery, now: Instant, last_received: Instant) -> u64 {
        let policy = self.live.get(&id).and_then(|live| live.policy.as_ref());
        let write_stall = policy.map(|policy| policy.write_stall);
        let awaits_update = write_stall
            .is_some_and(|write_stall| self.awaits_update(id, of_all.unread, now, last_received, write_stall));
        let (of_all, of_streams) = (of_all.acked, self.of_streams(of_all.acked));
        let Some(live) = self.live.get_mut(&id) else { return of_all };
        let moves_on = live.moves_on(false);
        let acked = match live.promised {
            // Others went first. While they move each look is progress, yet no arrival.
            Some(Promise { end, .. }) if moves_on && of_streams >= end => {
                let moved = std::mem::replace(&mut live.passed, of_streams) < of_streams;
                live.acked.saturating_add(u64::from(moved)).min(end.saturating_sub(1))
            }
            _ if moves_on => of_streams,
            _ => of_all.min(live.end),
        };
        live.acked = live.acked.saturating_add(u64::from(awaits_update)).max(acked);
        live.acked
    }
}

impl Live {
    fn new(kind: StreamKind, window: i64) -> Self {
        Self {
            kind,
            is_abandoned: false,
            handed: 0,
            emitted: 0,
            end: 0,
            is_dirty: false,
            wants_room: false,
            promised: None,
            end_stream: EndStream::Unsent,
            window,
            shut: None,
            stall: None,
            acked: 0,
            passed: 0,
            waiting: None,
            policy: None,
            answer: None,
            credit: 0,
        }
    }

    /// Bytes that the library holds.
    fn held(&self) -> u64 {
        self.handed.saturating_sub(self.emitted)
    }

    /// Returns whether bytes wait in the library or for room in it.
    fn waits(&self) -> bool {
        self.held() > 0 || self.wants_room
    }

    /// Returns whether the progress of others is its own: its bytes stand among theirs, or wait for their turn
    /// (`is_queued`), and its own window is open.
    fn moves_on(&self, is_queued: bool) -> bool {
        if self.waits() || is_queued { self.window > 0 } else { self.is_dirty }
    }

    fn is_flushed(&self) -> bool {
        self.held() == 0 && !self.is_dirty && self.end_stream != EndStream::Handed
    }
}

/// Takes in that a `window` may have been used up.
fn note_shut(shut: &mut Option<Instant>, window: i64, now: Instant) {
    if window <= 0 {
        shut.get_or_insert(now);
    }
}

/// Takes in that a `window` may have been widened.
fn note_open(shut: &mut Option<Instant>, window: i64) {
    if window > 0 {
        *shut = None;
    }
}

fn wide(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
