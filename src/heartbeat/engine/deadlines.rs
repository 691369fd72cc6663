//! The engine's deadlines and the decisions at a deadline.

use std::time::{Duration, Instant};

use super::{Engine, LATER_LOOK, Whose, earliest};
use crate::heartbeat::downlink::{Delivery, Whereabouts};
use crate::heartbeat::phase::{Paused, Phase, Reissue, Wait};
use crate::heartbeat::{Awaited, Due, Proof, Verdict};

/// The minimum wait for bytes that the kernel is known to hold; their arrival wakes the relay by itself.
const UNREAD: Duration = Duration::from_millis(100);

impl Engine {
    /// Returns the time at which [`Self::handle_timeout`] must be called. It may move later at any time without notice;
    /// it moves earlier only by calls other than [`Self::read`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Still {
            return None;
        }
        let blocked = self.downlink.look_at();
        let reissue = match self.reissue {
            Reissue::At(at) => Some(at),
            Reissue::None | Reissue::Due => None,
        };
        if self.paused.is_some() {
            return earliest([self.outlook(), blocked, reissue]);
        }
        let frame = self.frame_began().map(|since| since + self.policy.frame_max_time);
        let look = match self.phase {
            Phase::Queued { wait, .. } => Some(wait.look_at),
            _ => None,
        };
        earliest([self.outlook(), Some(self.checked + self.reach()), blocked, look, frame, reissue])
    }

    /// Returns the time of the next action if the client sends nothing before: a probe becomes due, or a window ends.
    /// The deadline may be earlier, for a check only.
    #[inline]
    pub fn outlook(&self) -> Option<Instant> {
        match (self.phase, self.paused) {
            (Phase::Still, _) => None,
            (_, Some(Paused { until, .. })) => Some(until),
            (Phase::Quiet, None) => self.quiet_until(),
            (Phase::Queued { wait, handed }, None) => Some(self.queued_until(wait, handed)),
            (Phase::Sent { deadline, .. }, None) => Some(deadline),
        }
    }

    /// Returns the event expected at [`Self::outlook`].
    #[inline]
    pub fn awaited(&self) -> Awaited {
        match (self.phase, self.paused) {
            (Phase::Still, _) => Awaited::Nothing,
            (_, Some(_)) => Awaited::App,
            (Phase::Quiet, None) if self.proxy_probes() => Awaited::Probe,
            (Phase::Quiet, None) if self.silent_until().is_some() => Awaited::Beat,
            (Phase::Quiet, None) => Awaited::Question,
            (Phase::Queued { .. }, None) => Awaited::Gap,
            (Phase::Sent { .. }, None) => Awaited::Answer,
        }
    }

    /// Returns [`Self::deadline`] if it may have moved other than by a read since the last call.
    #[inline]
    pub fn poll_deadline(&mut self) -> Option<Instant> {
        if !std::mem::take(&mut self.hurried) {
            return None;
        }
        let deadline = self.deadline();
        self.armed = earliest([self.armed, deadline]);
        deadline
    }

    /// Reports that the relay was woken at `now` and has not read yet. Bytes read next may have arrived at any time
    /// during a suspension, and are judged by clocks that stood still for its duration.
    #[inline]
    pub fn woken(&mut self, now: Instant) {
        if let Some(due) = self.armed
            && now.saturating_duration_since(due) > self.policy.stall_guard
        {
            self.armed = None;
            self.checked = now;
            self.hurried = true;
            self.resume_from_suspension(due, now);
        }
    }

    /// Handles the timer. Must be called after [`Self::woken`] and after all reads of the same moment.
    pub fn handle_timeout(&mut self, now: Instant) -> Due {
        self.woken(now);
        self.armed = None;
        self.hurried = true;
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Due::Nothing;
        }
        self.checked = now;
        match self.overdue(now) {
            // The rest of the frame may be unread, and is waited for once.
            Some(Verdict::Trickle) if !self.frame.extended => return Due::Look,
            Some(verdict) => return Due::End(verdict),
            None => {}
        }
        if self.reissue.is_due(now) {
            self.reissue = Reissue::Due;
        }
        let quiet_is_over = self.paused.is_none() && self.quiet_until().is_some_and(|until| until <= now);
        if self.phase == Phase::Quiet && quiet_is_over {
            if self.must_send() {
                return Due::Look;
            }
            self.queue(now, None);
        }
        let downlink = self.downlink.look_at().is_some_and(|at| at <= now);
        if downlink || self.deadline_passed(now) { Due::Look } else { Due::Nothing }
    }

    /// Records the findings after [`Due::Look`]: the written position, and the progress of the client's kernel; `None`
    /// for a leg without a kernel socket. Returns the verdict that ends the session, if any.
    pub fn looked(&mut self, now: Instant, written: u64, delivery: Option<Delivery>) -> Option<Verdict> {
        if self.phase == Phase::Still {
            return None;
        }
        if let Some(verdict) = self.overdue(now) {
            if !delivery.is_some_and(|delivery| delivery.unread) {
                return Some(verdict);
            }
            self.extend_frame(now, self.window());
        }
        // Without kernel information, a client that is not read cannot prove anything.
        let spare_flight = self.probe_has_deadline() || delivery.is_none() && self.paused.is_some();
        if self.downlink.look(now, written, delivery, spare_flight) {
            return Some(Verdict::SlowReader);
        }
        if self.phase == Phase::Quiet && self.paused.is_none() && self.silent_until().is_some_and(|until| until <= now)
        {
            return self.silence_ended(now, delivery);
        }
        let (at, deadline, held_up) = match self.phase {
            Phase::Sent { at, deadline, held_up } => (at, deadline, held_up),
            Phase::Queued { wait, handed } if self.paused.is_none() => return self.waited(now, wait, handed),
            Phase::Quiet | Phase::Queued { .. } | Phase::Still => return None,
        };
        if deadline > now || self.paused.is_some() {
            return None;
        }
        let may_defer = now.saturating_duration_since(at) < self.window() + self.policy.max_deferral;
        let whereabouts = self.downlink.whereabouts(delivery);
        // A window that only begins now needs no deferral.
        let begins = held_up && whereabouts == Whereabouts::Arrived;
        if may_defer && !begins && delivery.is_some_and(|delivery| delivery.unread) {
            let until = now + self.unread_step();
            self.deferred += until.saturating_duration_since(deadline);
            self.phase = Phase::Sent { at, deadline: until, held_up };
            return None;
        }
        match whereabouts {
            // The last few bytes of a backlog that was moving are not a lone probe.
            Whereabouts::Lost if held_up && !self.downlink.is_still(now, at, delivery) && may_defer => {
                self.phase = Phase::Sent { at, deadline: self.look_after(now), held_up };
                None
            }
            Whereabouts::Behind if self.downlink.is_still(now, at, delivery) || !may_defer => Some(Verdict::SlowReader),
            Whereabouts::Behind => {
                self.phase = Phase::Sent { at, deadline: self.look_after(now), held_up: true };
                None
            }
            // Writes progress, or `look` would have ended it: the client reads the data in front of the probe slowly.
            Whereabouts::Arrived if self.downlink.is_blocked() && may_defer => {
                self.phase = Phase::Sent { at, deadline: self.look_after(now), held_up: true };
                None
            }
            Whereabouts::Arrived if held_up => {
                self.deferred = Duration::ZERO;
                self.phase = Phase::Sent { at, deadline: now + self.window(), held_up: false };
                None
            }
            Whereabouts::Arrived | Whereabouts::Lost => self.miss(now),
        }
    }

    /// Returns the window of the awaited answer: its start and its length. A deferral for unread bytes changes neither.
    pub fn answer_window(&self) -> Option<(Instant, Duration)> {
        let (until, window) = match self.phase {
            Phase::Sent { deadline, held_up: false, .. } => (deadline, self.window()),
            Phase::Quiet if self.must_send() => self.silent_until().zip(self.proof.window())?,
            _ => return None,
        };
        until.checked_sub(self.deferred + window).map(|since| (since, window))
    }

    /// Returns the delay before checking again whether bytes sent by the client have been read: short at first, and
    /// longer as the deferral grows.
    fn unread_step(&self) -> Duration {
        let most = self.policy.stall_guard.min(self.window() / 4).max(UNREAD);
        (self.deferred / 2).clamp(UNREAD, most)
    }

    /// Returns the time of the next check of a probe behind a backlog: its window begins only once it has arrived.
    fn look_after(&self, now: Instant) -> Instant {
        self.downlink.next_look(now).min(now + self.window() / LATER_LOOK)
    }

    /// Decides on a probe that is queued. While the bytes in front of it reach the client and the proxy holds none of
    /// them back, its allowed waiting time does not decrease.
    fn waited(&mut self, now: Instant, wait: Wait, handed: Option<Whose>) -> Option<Verdict> {
        let is_blocked = self.downlink.is_blocked();
        let mut until = wait.until;
        if self.downlink.has_moved() {
            let frozen = if is_blocked { Duration::ZERO } else { self.policy.write_stall };
            let used = self.backlog.read(now).saturating_sub(wait.backlog);
            until = now + frozen + self.policy.max_deferral.saturating_sub(used);
        }
        let look_at = self.downlink.next_look(now);
        self.phase = Phase::Queued { wait: Wait { until, look_at, ..wait }, handed };
        if self.downlink.is_unmoved(now) {
            return Some(Verdict::SlowReader);
        }
        if until > now {
            return None;
        }
        if is_blocked || self.downlink.has_unacknowledged() {
            return Some(Verdict::SlowReader);
        }
        self.count_miss();
        Some(Verdict::Timeout)
    }

    fn miss(&mut self, now: Instant) -> Option<Verdict> {
        self.count_miss();
        if self.missed_in_a_row >= self.policy.max_missed {
            return Some(Verdict::Timeout);
        }
        if self.proxy_probes() {
            self.queue(now, None);
        } else {
            // The app may wait for its answer before it sends the next probe.
            self.deferred = Duration::ZERO;
            self.phase = Phase::Sent { at: now, deadline: now + self.window(), held_up: false };
        }
        None
    }

    /// Handles the end of the window of a client that must send on its own; unread bytes defer the end.
    fn silence_ended(&mut self, now: Instant, delivery: Option<Delivery>) -> Option<Verdict> {
        if delivery.is_some_and(|delivery| delivery.unread) && self.put_off < self.policy.max_deferral {
            let before = self.last_byte;
            self.extend_silence(now, self.unread_step());
            self.deferred += self.last_byte.saturating_duration_since(before);
            return None;
        }
        self.count_miss();
        Some(Verdict::Timeout)
    }

    /// Returns the verdict of a deadline that cannot be deferred any more.
    fn overdue(&self, now: Instant) -> Option<Verdict> {
        if let Some(Paused { until, .. }) = self.paused {
            return (now >= until).then_some(Verdict::UpstreamStalled);
        }
        let is_trickle = self.frame_began().is_some_and(|since| now >= since + self.policy.frame_max_time);
        is_trickle.then_some(Verdict::Trickle)
    }

    /// Handles a late timer of `from`: the process was suspended or starved. Bytes that waited meanwhile are read
    /// before any deadline, and a probe in flight gets one fresh window per sign of life; later pauses only move its
    /// end by their length. One such pause may have any length; consecutive ones count together.
    fn resume_from_suspension(&mut self, from: Instant, now: Instant) {
        let late = now.saturating_duration_since(from);
        if self.suspensions.late > Duration::ZERO && self.suspensions.late + late > self.policy.max_deferral {
            return;
        }
        self.suspensions.late += late;
        self.downlink.shift_by_suspension(from, now);
        self.backlog.shift_by_suspension(from, now);
        let window = self.window();
        if let Some(Paused { until, .. }) = &mut self.paused {
            // The clocks stand still already; the fresh window is due to the app.
            *until += late;
            if !self.suspensions.refreshed {
                *until = (*until).max(now + window);
                self.suspensions.refreshed = true;
            }
            return;
        }
        self.shift(from, now);
        self.extend_frame(now, window);
        if !self.suspensions.refreshed && self.silent_until().is_some_and(|until| until <= now) {
            self.extend_silence(now, self.proof.window().unwrap_or(window));
            self.suspensions.refreshed = true;
        }
        if let Phase::Sent { at, deadline, .. } = &mut self.phase {
            *at += late;
            if !self.suspensions.refreshed {
                *deadline = now + window;
                self.suspensions.refreshed = true;
            }
        }
    }

    /// Extends a client frame in progress to `window` from `now`, once, if it has less: the rest of it may be unread.
    fn extend_frame(&mut self, now: Instant, window: Duration) {
        let Some(began) = self.frame_began().filter(|_| !self.frame.extended) else { return };
        let Some(earliest) = (now + window).checked_sub(self.policy.frame_max_time) else { return };
        if began < earliest {
            self.frame.extended = true;
            let partial = self.partial.iter_mut().filter_map(|partial| partial.since.as_mut());
            for since in self.frame.since.iter_mut().chain(partial) {
                *since = (*since).max(earliest);
            }
        }
    }

    /// Returns the maximum time for which the timer may be armed: a read starts the clock of a frame, in the middle of
    /// a window that of the next probe, and with a queued message that of its waiting time.
    fn reach(&self) -> Duration {
        let frame = self.policy.frame_max_time;
        match self.phase {
            Phase::Sent { .. } => frame.min(self.delays.idle),
            Phase::Queued { handed: None, .. } if self.probes_by_message() => frame.min(self.window()),
            _ => frame,
        }
    }

    /// Returns whether the probes are the proxy's own.
    fn proxy_probes(&self) -> bool {
        self.proof == Proof::Pongs || self.probes_by_message()
    }

    /// Returns the time of the next action in [`Phase::Quiet`].
    fn quiet_until(&self) -> Option<Instant> {
        if self.proxy_probes() { Some(self.probe_at()) } else { self.silent_until() }
    }

    /// Returns the end of the waiting time of a queued probe.
    fn queued_until(&self, wait: Wait, handed: Option<Whose>) -> Instant {
        // A message that finds no gap between two others is replaced by a Ping.
        let gives_way = wait.since + self.window();
        if handed.is_none() && self.probes_by_message() && gives_way > self.checked {
            return gives_way;
        }
        wait.until
    }

    /// Returns the time of the next probe: after silence, or under traffic after long enough without a probe.
    fn probe_at(&self) -> Instant {
        (self.last_byte + self.delays.idle).min(self.last_probe + self.delays.busy)
    }

    fn deadline_passed(&self, now: Instant) -> bool {
        self.paused.is_none()
            && match self.phase {
                Phase::Sent { deadline, .. } => deadline <= now,
                Phase::Queued { wait, .. } => wait.until <= now || wait.look_at <= now,
                Phase::Quiet | Phase::Still => false,
            }
    }

    fn probe_has_deadline(&self) -> bool {
        matches!(self.phase, Phase::Sent { .. })
    }
}
