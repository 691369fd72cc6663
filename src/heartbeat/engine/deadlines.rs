//! The engine's deadlines and the decisions at a deadline.

use std::time::{Duration, Instant};

use super::{Engine, LATER_LOOK, ProbeOrigin, earliest};
use crate::heartbeat::downlink::{Delivery, ProbePosition};
use crate::heartbeat::phase::{Paused, ProbePhase, Reissue, Wait};
use crate::heartbeat::{Awaited, Due, EngineVerdict, ProofOfLife};

/// The minimum wait for bytes that the kernel is known to hold; their arrival wakes the relay by itself.
const UNREAD: Duration = Duration::from_millis(100);

impl Engine {
    /// Returns the time at which [`Self::handle_timeout`] must be called. It may move later at any time without notice;
    /// it moves earlier only by calls other than [`Self::read`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.phase == ProbePhase::Still {
            return None;
        }
        let blocked = self.downlink.look_at();
        let reissue = match self.reissue {
            Reissue::At(at) => Some(at),
            Reissue::None | Reissue::Due => None,
        };
        if self.paused.is_some() {
            return earliest([self.next_action_at(), blocked, reissue]);
        }
        let frame = self.frame_began().map(|since| since + self.policy.frame_max_time);
        let look = match self.phase {
            ProbePhase::Queued { wait, .. } => Some(wait.look_at),
            _ => None,
        };
        earliest([self.next_action_at(), Some(self.checked + self.reach()), blocked, look, frame, reissue])
    }

    /// Returns the time of the next action if the client sends nothing before: a probe becomes due, or a window ends.
    /// The deadline may be earlier, for a check only.
    #[inline]
    pub fn next_action_at(&self) -> Option<Instant> {
        match (self.phase, self.paused) {
            (ProbePhase::Still, _) => None,
            (_, Some(Paused { until, .. })) => Some(until),
            (ProbePhase::Quiet, None) => self.quiet_until(),
            (ProbePhase::Queued { wait, handed }, None) => Some(self.queued_until(wait, handed)),
            (ProbePhase::Sent { deadline, .. }, None) => Some(deadline),
        }
    }

    /// Returns the event expected at [`Self::next_action_at`].
    #[inline]
    pub fn awaited(&self) -> Awaited {
        match (self.phase, self.paused) {
            (ProbePhase::Still, _) => Awaited::Nothing,
            (_, Some(_)) => Awaited::App,
            (ProbePhase::Quiet, None) if self.proxy_probes() => Awaited::Probe,
            (ProbePhase::Quiet, None) if self.silent_until().is_some() => Awaited::Beat,
            (ProbePhase::Quiet, None) => Awaited::AppProbe,
            (ProbePhase::Queued { .. }, None) => Awaited::Gap,
            (ProbePhase::Sent { .. }, None) => Awaited::Answer,
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
            Some(EngineVerdict::Trickle) if !self.frame.extended => return Due::Look,
            Some(verdict) => return Due::End(verdict),
            None => {}
        }
        if self.reissue.is_due(now) {
            self.reissue = Reissue::Due;
        }
        let quiet_is_over = self.paused.is_none() && self.quiet_until().is_some_and(|until| until <= now);
        if self.phase == ProbePhase::Quiet && quiet_is_over {
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
    pub fn delivery_checked(
        &mut self,
        now: Instant,
        written: u64,
        delivery: Option<Delivery>,
    ) -> Option<EngineVerdict> {
        if self.phase == ProbePhase::Still {
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
            return Some(EngineVerdict::SlowReader);
        }
        if self.phase == ProbePhase::Quiet
            && self.paused.is_none()
            && self.silent_until().is_some_and(|until| until <= now)
        {
            return self.silence_ended(now, delivery);
        }
        let (at, deadline, held_up) = match self.phase {
            ProbePhase::Sent { at, deadline, held_up } => (at, deadline, held_up),
            ProbePhase::Queued { wait, handed } if self.paused.is_none() => return self.waited(now, wait, handed),
            ProbePhase::Quiet | ProbePhase::Queued { .. } | ProbePhase::Still => return None,
        };
        if deadline > now || self.paused.is_some() {
            return None;
        }
        let may_defer = now.saturating_duration_since(at) < self.window() + self.policy.max_deferral;
        let whereabouts = self.downlink.probe_position(delivery);
        // A window that only begins now needs no deferral.
        let begins = held_up && whereabouts == ProbePosition::Arrived;
        if may_defer && !begins && delivery.is_some_and(|delivery| delivery.unread) {
            let until = now + self.unread_step();
            self.deferred += until.saturating_duration_since(deadline);
            self.phase = ProbePhase::Sent { at, deadline: until, held_up };
            return None;
        }
        match whereabouts {
            // The last few bytes of a backlog that was moving are not a lone probe.
            ProbePosition::Lost if held_up && !self.downlink.is_still(now, at, delivery) && may_defer => {
                self.phase = ProbePhase::Sent { at, deadline: self.look_after(now), held_up };
                None
            }
            ProbePosition::Behind if self.downlink.is_still(now, at, delivery) || !may_defer => {
                Some(EngineVerdict::SlowReader)
            }
            ProbePosition::Behind => {
                self.phase = ProbePhase::Sent { at, deadline: self.look_after(now), held_up: true };
                None
            }
            // Writes progress, or `look` would have ended it: the client reads the data in front of the probe slowly.
            ProbePosition::Arrived if self.downlink.is_blocked() && may_defer => {
                self.phase = ProbePhase::Sent { at, deadline: self.look_after(now), held_up: true };
                None
            }
            ProbePosition::Arrived if held_up => {
                self.deferred = Duration::ZERO;
                self.phase = ProbePhase::Sent { at, deadline: now + self.window(), held_up: false };
                None
            }
            ProbePosition::Arrived | ProbePosition::Lost => self.miss(now),
        }
    }

    /// Returns the window of the awaited answer: its start and its length. A deferral for unread bytes changes neither.
    pub fn answer_window(&self) -> Option<(Instant, Duration)> {
        let (until, window) = match self.phase {
            ProbePhase::Sent { deadline, held_up: false, .. } => (deadline, self.window()),
            ProbePhase::Quiet if self.must_send() => self.silent_until().zip(self.proof.window())?,
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
    fn waited(&mut self, now: Instant, wait: Wait, handed: Option<ProbeOrigin>) -> Option<EngineVerdict> {
        let is_blocked = self.downlink.is_blocked();
        let mut until = wait.until;
        if self.downlink.has_moved() {
            let frozen = if is_blocked { Duration::ZERO } else { self.policy.write_stall };
            let used = self.backlog.read(now).saturating_sub(wait.backlog);
            until = now + frozen + self.policy.max_deferral.saturating_sub(used);
        }
        let look_at = self.downlink.next_look(now);
        self.phase = ProbePhase::Queued { wait: Wait { until, look_at, ..wait }, handed };
        if self.downlink.is_unmoved(now) {
            return Some(EngineVerdict::SlowReader);
        }
        if until > now {
            return None;
        }
        if is_blocked || self.downlink.has_unacknowledged() {
            return Some(EngineVerdict::SlowReader);
        }
        self.count_miss();
        Some(EngineVerdict::Timeout)
    }

    fn miss(&mut self, now: Instant) -> Option<EngineVerdict> {
        self.count_miss();
        if self.missed_in_a_row >= self.policy.max_missed {
            return Some(EngineVerdict::Timeout);
        }
        if self.proxy_probes() {
            self.queue(now, None);
        } else {
            // The app may wait for its answer before it sends the next probe.
            self.deferred = Duration::ZERO;
            self.phase = ProbePhase::Sent { at: now, deadline: now + self.window(), held_up: false };
        }
        None
    }

    /// Handles the end of the window of a client that must send on its own; unread bytes defer the end.
    fn silence_ended(&mut self, now: Instant, delivery: Option<Delivery>) -> Option<EngineVerdict> {
        if delivery.is_some_and(|delivery| delivery.unread) && self.put_off < self.policy.max_deferral {
            let before = self.last_byte;
            self.extend_silence(now, self.unread_step());
            self.deferred += self.last_byte.saturating_duration_since(before);
            return None;
        }
        self.count_miss();
        Some(EngineVerdict::Timeout)
    }

    /// Returns the verdict of a deadline that cannot be deferred any more.
    fn overdue(&self, now: Instant) -> Option<EngineVerdict> {
        if let Some(Paused { until, .. }) = self.paused {
            return (now >= until).then_some(EngineVerdict::UpstreamStalled);
        }
        let is_trickle = self.frame_began().is_some_and(|since| now >= since + self.policy.frame_max_time);
        is_trickle.then_some(EngineVerdict::Trickle)
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
        if let ProbePhase::Sent { at, deadline, .. } = &mut self.phase {
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
            ProbePhase::Sent { .. } => frame.min(self.delays.idle),
            ProbePhase::Queued { handed: None, .. } if self.probes_by_message() => frame.min(self.window()),
            _ => frame,
        }
    }

    /// Returns whether the probes are the proxy's own.
    fn proxy_probes(&self) -> bool {
        self.proof == ProofOfLife::Pongs || self.probes_by_message()
    }

    /// Returns the time of the next action in [`ProbePhase::Quiet`].
    fn quiet_until(&self) -> Option<Instant> {
        if self.proxy_probes() { Some(self.probe_at()) } else { self.silent_until() }
    }

    /// Returns the end of the waiting time of a queued probe.
    fn queued_until(&self, wait: Wait, handed: Option<ProbeOrigin>) -> Instant {
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
                ProbePhase::Sent { deadline, .. } => deadline <= now,
                ProbePhase::Queued { wait, .. } => wait.until <= now || wait.look_at <= now,
                ProbePhase::Quiet | ProbePhase::Still => false,
            }
    }

    fn probe_has_deadline(&self) -> bool {
        matches!(self.phase, ProbePhase::Sent { .. })
    }
}
