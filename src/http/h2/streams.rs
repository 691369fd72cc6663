//! The live streams of one connection: how far the bytes of each have come, which heartbeat each follows, and which
//! answers to the connection's PINGs each has seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::heartbeats::Heartbeats;
use super::tolerance::Tolerance;
use super::turns::Turns;
use crate::heartbeat::{Mode, Policy};
use crate::relay::Delivery;

/// Window of a stream and of a connection before anything else is agreed on (RFC 9113 §6.9.2).
const FIRST_WINDOW: i64 = 65_535;

/// Answers to later PINGs after which a stream's own answer is no longer on its way. A client's library may send the
/// first ahead of what it has queued, but then that queue is on the wire before the second.
const ANSWERS: u64 = 2;

/// Bytes that other streams may hold in the library while a stream counts as flushed ahead of its turn: they may
/// stand before its own.
const AHEAD: u64 = 64 * 1024;

/// The streams that a task serves, by their numbers.
#[derive(Debug)]
pub(super) struct Streams {
    live: BTreeMap<u32, Live>,
    /// How many there are of each kind.
    open: [u32; 2],
    /// Streams of which bytes are among those that the library has written and the socket has not taken.
    dirty: Vec<u32>,
    /// Bytes of all streams that were handed to the library and that it has not written.
    held: u64,
    /// Those of them that belong to responses, and whose turn it is to add to them.
    pub(super) turns: Turns,
    /// Bytes that the client takes on the connection as a whole.
    window: i64,
    /// `SETTINGS_INITIAL_WINDOW_SIZE` of the client.
    initial_window: i64,
    pings: Pings,
    pub(super) heartbeats: Heartbeats,
    /// Bytes of padding to be credited to the connection's window, and whether a stream has some as well.
    credit: u32,
    has_credit: bool,
    pub(super) tolerance: Tolerance,
}

/// The PINGs of the connection (RFC 9113 §6.7).
#[derive(Debug, Default)]
struct Pings {
    sent: u64,
    answered: u64,
    /// The number of the last one that a stream waits for.
    wanted: u64,
    /// End of the last one among the bytes of the connection, once the socket has taken it.
    end: Option<u64>,
}

/// What a stream is for; there are limits for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request and its response.
    Plain,
    /// A WebSocket (RFC 8441).
    WebSocket,
}

/// How far the client has come with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of the stream that the library has written.
    pub(super) own: u64,
    /// Bytes of the connection that the client's kernel has acknowledged, where that is known.
    pub(super) of_all: Option<u64>,
    /// Whether the stream waits for its turn among others.
    pub(super) is_behind: bool,
}

/// One stream.
#[derive(Debug)]
struct Live {
    kind: Kind,
    is_abandoned: bool,
    /// Bytes handed to the library, and how many of them it has written.
    handed: u64,
    emitted: u64,
    /// End of the last of these among the bytes of the connection, once the socket has taken it.
    end: u64,
    is_dirty: bool,
    promised: Option<Promise>,
    fin: Fin,
    /// Bytes that the client takes on this stream.
    window: i64,
    /// The highest position that [`Streams::acked`] has returned.
    acked: u64,
    /// The task that waits until the socket has taken everything.
    waiting: Option<Waker>,
    policy: Option<Arc<Policy>>,
    round: Option<Round>,
    /// Bytes of padding to be credited to the stream's window.
    credit: u32,
}

/// How far `END_STREAM` has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    Open,
    /// It was handed to the library.
    Handed,
    /// The library has written it.
    Emitted,
}

/// A position reported for bytes that the driver is about to write: their end among those of the connection, at least.
#[derive(Clone, Copy, Debug)]
struct Promise {
    handed: u64,
    end: u64,
}

/// The wait for answers to PINGs that follow a probe of the stream.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Number of PINGs sent when it began.
    base: u64,
    /// Set once unread bytes of the connection have put off its outcome, which they may do once.
    excused: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            open: [0; 2],
            dirty: Vec::new(),
            held: 0,
            turns: Turns::default(),
            window: FIRST_WINDOW,
            initial_window: FIRST_WINDOW,
            pings: Pings::default(),
            heartbeats: Heartbeats::default(),
            credit: 0,
            has_credit: false,
            tolerance: Tolerance::new(Instant::now()),
        }
    }
}

/// Entry and exit, and the heartbeats.
impl Streams {
    pub(super) fn open(&mut self, id: u32, kind: Kind) {
        self.open[kind as usize] += 1;
        self.live.insert(id, Live::new(kind, self.initial_window));
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
    pub(super) fn open_of(&self, kind: Kind) -> u32 {
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
            self.held += bytes as u64;
            if live.kind == Kind::Plain {
                self.turns.hold(bytes as u64);
            }
        }
    }

    /// The library does not hold these bytes any more.
    fn release(&mut self, kind: Kind, bytes: u64) {
        self.held -= bytes;
        if kind == Kind::Plain {
            self.turns.release(bytes);
        }
    }

    /// `END_STREAM` of stream `id` is about to be handed to the library.
    pub(super) fn hand_end(&mut self, id: u32) {
        if let Some(live) = self.live.get_mut(&id) {
            live.fin = Fin::Handed;
        }
    }

    /// The library begins a DATA frame with `payload` bytes.
    pub(super) fn spend(&mut self, id: u32, payload: usize) {
        self.window -= wide(payload);
        if let Some(live) = self.live.get_mut(&id) {
            live.window -= wide(payload);
        }
    }

    /// The library has written `bytes` of stream `id`, and `ends`: its `END_STREAM`.
    pub(super) fn emit(&mut self, id: u32, bytes: usize, ends: bool) {
        if let Some(live) = self.live.get_mut(&id) {
            let before = live.held();
            live.emitted += bytes as u64;
            let (kind, written) = (live.kind, before - live.held());
            if ends {
                live.fin = Fin::Emitted;
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

    /// Returns how far the client has come with stream `id`, on a connection with `of_all` acknowledged bytes.
    pub(super) fn taken(&self, id: u32, of_all: Option<u64>) -> Taken {
        let live = self.live.get(&id);
        let holds = live.is_some_and(|live| live.held() > 0);
        Taken { own: live.map_or(0, |live| live.emitted), of_all, is_behind: holds || self.turns.is_waiting(id) }
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
    /// A stream that waits for its turn moves with the connection. One whose window is shut does not, nor does one of
    /// which all bytes have arrived: then the progress of others says nothing about it.
    pub(super) fn acked(&mut self, id: u32, of_all: u64) -> u64 {
        let connection_is_shut = self.window <= 0;
        let is_queued = self.turns.is_waiting(id);
        let Some(live) = self.live.get_mut(&id) else { return of_all };
        let is_held = live.held() > 0;
        let is_shut = is_held && (connection_is_shut || live.window <= 0);
        let moves_on = (is_held || live.is_dirty || is_queued) && !is_shut;
        let acked = match live.promised {
            Some(Promise { end, .. }) if moves_on => of_all.min(end.saturating_sub(1)),
            _ if moves_on => of_all,
            _ => of_all.min(live.end),
        };
        live.acked = live.acked.max(acked);
        live.acked
    }
}

/// The client's windows (RFC 9113 §6.9).
impl Streams {
    pub(super) fn widen(&mut self, id: u32, increment: u32) {
        if id == 0 {
            self.window += i64::from(increment);
        } else if let Some(live) = self.live.get_mut(&id) {
            live.window += i64::from(increment);
        }
    }

    pub(super) fn set_initial_window(&mut self, size: u32) {
        let more = i64::from(size) - std::mem::replace(&mut self.initial_window, i64::from(size));
        self.live.values_mut().for_each(|live| live.window += more);
    }

    /// `bytes` of padding of stream `id` were taken out: the client is to get them back in its windows.
    pub(super) fn credit(&mut self, id: u32, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes);
        self.has_credit = true;
        if let Some(live) = self.live.get_mut(&id) {
            live.credit = live.credit.saturating_add(bytes);
        }
    }

    /// Returns the windows to be widened, by stream, and by how much; stream 0 is the connection.
    pub(super) fn take_credits(&mut self) -> Vec<(u32, u32)> {
        if !std::mem::take(&mut self.has_credit) {
            return Vec::new();
        }
        let streams = self.live.iter_mut().map(|(id, live)| (*id, std::mem::take(&mut live.credit)));
        streams.chain([(0, std::mem::take(&mut self.credit))]).filter(|(_, credit)| *credit > 0).collect()
    }
}

/// The PINGs of the connection, and what their answers say about a stream.
impl Streams {
    pub(super) fn ping_sent(&mut self) {
        self.pings.sent += 1;
        self.pings.end = None;
    }

    pub(super) fn ping_answered(&mut self) {
        self.pings.answered = self.pings.sent;
    }

    /// Returns the end of the last PING among the bytes of the connection; `None` until the socket has taken it.
    pub(super) fn ping_end(&self) -> Option<u64> {
        self.pings.end
    }

    /// Returns whether a stream waits for the answer to a PING that has not been sent.
    pub(super) fn wants_ping(&self) -> bool {
        self.pings.wanted > self.pings.sent
    }

    /// Bytes of stream `id` have come.
    pub(super) fn heard(&mut self, id: u32) {
        if let Some(live) = self.live.get_mut(&id) {
            live.round = None;
        }
    }

    /// Returns whether bytes of stream `id` may be on their way, on a connection that was last heard at `heard` and of
    /// which bytes wait to be read (`unread`). While the connection is heard, its answers to later PINGs decide.
    pub(super) fn is_on_its_way(&mut self, id: u32, now: Instant, heard: Instant, unread: bool) -> bool {
        let Some(live) = self.live.get_mut(&id) else { return unread };
        let is_quiet = live.policy.as_ref().is_none_or(|policy| now >= heard + policy.timeout);
        match &mut live.round {
            None if is_quiet => unread,
            None => {
                let base = self.pings.sent;
                live.round = Some(Round { base, excused: false });
                self.pings.wanted = self.pings.wanted.max(base + ANSWERS);
                true
            }
            Some(round) if self.pings.answered < round.base + ANSWERS => {
                self.pings.wanted = self.pings.wanted.max(round.base + ANSWERS);
                unread || !is_quiet
            }
            Some(round) if unread && !round.excused => {
                round.excused = true;
                true
            }
            Some(_) => {
                live.round = None;
                false
            }
        }
    }

    /// [`Delivery`] of stream `id`, from that of the connection.
    pub(super) fn delivery(&mut self, id: u32, of_all: Delivery, now: Instant, heard: Instant) -> Delivery {
        let unread = self.is_on_its_way(id, now, heard, of_all.unread);
        Delivery { acked: self.acked(id, of_all.acked), unread }
    }
}

impl Live {
    fn new(kind: Kind, window: i64) -> Self {
        Self {
            kind,
            is_abandoned: false,
            handed: 0,
            emitted: 0,
            end: 0,
            is_dirty: false,
            promised: None,
            fin: Fin::Open,
            window,
            acked: 0,
            waiting: None,
            policy: None,
            round: None,
            credit: 0,
        }
    }

    /// Bytes that the library holds.
    fn held(&self) -> u64 {
        self.handed.saturating_sub(self.emitted)
    }

    fn is_flushed(&self) -> bool {
        self.held() == 0 && !self.is_dirty && self.fin != Fin::Handed
    }
}

fn wide(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
