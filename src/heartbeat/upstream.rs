//! The app's own liveness: one probe at a time for a whole upstream process, never one per session.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::UpstreamPolicy;

/// How exactly the time of the last byte is kept, in milliseconds; a coarse tick keeps the cache line quiet.
const TICK_MS: u64 = 64;
/// A tick this late means that the process was stopped or starved.
const STALL_GUARD: Duration = Duration::from_secs(2);

/// What the sessions of one upstream know together: when the app was last heard, and when it was last probed.
#[derive(Debug)]
pub struct UpstreamPulse {
    epoch: Instant,
    heard_ms: AtomicU64,
    /// 0 until a probe has left.
    probed_ms: AtomicU64,
    /// As the watch has left it.
    dead: AtomicBool,
}

impl UpstreamPulse {
    /// A pulse that counts as heard at `now`.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, heard_ms: AtomicU64::new(0), probed_ms: AtomicU64::new(0), dead: AtomicBool::new(false) }
    }

    /// Bytes of the app were read on some session.
    #[inline]
    pub fn heard(&self, now: Instant) {
        let ms = self.since_epoch_ms(now);
        if ms > self.heard_ms.load(Ordering::Relaxed) + TICK_MS {
            self.heard_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// The probe that [`Tick::Probe`] asked for has left for the wire.
    pub fn probe_left(&self, now: Instant) {
        self.probed_ms.store(self.since_epoch_ms(now).max(1), Ordering::Relaxed);
    }

    /// Whether new clients may be sent to the app: its watch has not found it dead, or has since lost the sessions by
    /// which it would see it come back. (Were it dead for good then, nobody would be sent to it, and nobody could tell.)
    pub fn is_responsive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    fn last_heard(&self) -> Instant {
        self.epoch + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// Whether the app was heard at `asked` or later. What is kept has lost its microseconds, so `asked` is compared
    /// without its own: an answer may come within the same millisecond.
    fn heard_since(&self, asked: Instant) -> bool {
        self.heard_ms.load(Ordering::Relaxed) >= self.since_epoch_ms(asked)
    }

    /// When the probe left that was asked for at `asked`; as above.
    fn probed_since(&self, asked: Instant) -> Option<Instant> {
        let probed_ms = self.probed_ms.load(Ordering::Relaxed);
        let at = self.epoch + Duration::from_millis(probed_ms);
        (probed_ms >= self.since_epoch_ms(asked)).then_some(at.max(asked))
    }

    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of half a billion years")]
    fn since_epoch_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

/// What the watch asks for when it is ticked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing for now.
    Wait,
    /// Send one ping on one session, the next in turn.
    Probe,
    /// The probe went unanswered: the app counts as unresponsive. Its sessions are held.
    Missed {
        /// How long it has been silent.
        silent: Duration,
    },
    /// The app was heard again.
    Recovered,
    /// The app has been silent for `give_up`: its clients get Close 1012.
    GiveUp {
        /// How long it has been silent.
        silent: Duration,
    },
}

/// Watches one upstream process, from outside the sessions.
#[derive(Debug)]
pub struct Watch {
    policy: UpstreamPolicy,
    state: State,
    /// When the next tick was promised; a much later one tells of a suspension.
    expected: Instant,
    /// Silence does not count from before this.
    not_before: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Asked { at: Instant },
    Unresponsive { next_probe: Instant },
    GivenUp,
}

impl Watch {
    /// A watch that begins at `now`.
    pub fn new(policy: UpstreamPolicy, now: Instant) -> Self {
        Self { policy, state: State::Listening, expected: now, not_before: now }
    }

    /// Whether the app counts as responsive.
    pub fn is_responsive(&self) -> bool {
        !matches!(self.state, State::Unresponsive { .. } | State::GivenUp)
    }

    /// How often to tick: a quarter of the shortest window.
    pub fn period(&self) -> Option<Duration> {
        let interval = self.policy.interval?;
        Some(interval.min(self.policy.timeout) / 4)
    }

    /// Looks at `pulse`, and leaves there what it finds; `sessions` tells whether there is any session to speak through.
    pub fn tick(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: bool) -> Tick {
        let tick = self.look(now, pulse, sessions);
        pulse.dead.store(sessions && !self.is_responsive(), Ordering::Relaxed);
        tick
    }

    fn look(&mut self, now: Instant, pulse: &UpstreamPulse, sessions: bool) -> Tick {
        let Some(interval) = self.policy.interval else { return Tick::Wait };
        if now.saturating_duration_since(self.expected) > STALL_GUARD || !sessions {
            self.not_before = now;
        }
        self.expected = now + self.period().unwrap_or_default();
        let heard = pulse.last_heard();
        let silent = now.saturating_duration_since(heard.max(self.not_before));
        match self.state {
            State::Listening if sessions && silent >= interval => self.ask(now),
            State::Listening => Tick::Wait,
            State::Asked { at } if pulse.heard_since(at) || !sessions => {
                self.state = State::Listening;
                Tick::Wait
            }
            State::Asked { at } => match pulse.probed_since(at) {
                Some(left) if now.saturating_duration_since(left) >= self.policy.timeout => {
                    self.state = State::Unresponsive { next_probe: now };
                    Tick::Missed { silent }
                }
                Some(_) => Tick::Wait,
                // The session that was asked could not send it (it ended, or is inside a frame): the next one may.
                None if now.saturating_duration_since(at) >= self.policy.timeout => self.ask(now),
                None => Tick::Wait,
            },
            State::Unresponsive { .. } | State::GivenUp if silent < self.policy.timeout && sessions => {
                self.state = State::Listening;
                Tick::Recovered
            }
            State::Unresponsive { .. } if silent >= self.policy.give_up => {
                self.state = State::GivenUp;
                Tick::GiveUp { silent }
            }
            State::Unresponsive { next_probe } if now >= next_probe => {
                self.state = State::Unresponsive { next_probe: now + self.policy.timeout };
                Tick::Probe
            }
            State::Unresponsive { .. } | State::GivenUp => Tick::Wait,
        }
    }

    fn ask(&mut self, now: Instant) -> Tick {
        self.state = State::Asked { at: now };
        Tick::Probe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_probe_leaves_and_is_answered_within_the_millisecond_in_which_it_is_asked_for() {
        let base = crate::any_instant();
        for answered in [true, false] {
            let pulse = UpstreamPulse::new(base);
            let mut watch = Watch::new(UpstreamPolicy::default(), base);
            let asked = base + 15 * SECOND + Duration::from_micros(700);
            for second in 1..=14 {
                assert_eq!(watch.tick(base + second * SECOND, &pulse, true), Tick::Wait);
            }
            assert_eq!(watch.tick(asked, &pulse, true), Tick::Probe);
            pulse.probe_left(asked + Duration::from_micros(50));
            if answered {
                pulse.heard(asked + Duration::from_micros(100));
            }
            let ticks: Vec<_> = (1..=11).map(|second| watch.tick(asked + second * SECOND, &pulse, true)).collect();
            let missed = ticks.iter().any(|tick| matches!(tick, Tick::Missed { .. }));
            let asked_again = ticks.contains(&Tick::Probe);
            assert_eq!((missed, watch.is_responsive()), (!answered, answered), "{ticks:?}");
            assert!(!(answered && asked_again), "{ticks:?}");
        }
    }

    struct Rig {
        base: Instant,
        pulse: UpstreamPulse,
        watch: Watch,
    }

    impl Rig {
        fn new() -> Self {
            let base = crate::any_instant();
            Self { base, pulse: UpstreamPulse::new(base), watch: Watch::new(UpstreamPolicy::default(), base) }
        }

        /// Ticks once a second over the given seconds and tells what came of it, and when.
        fn run(
            &mut self,
            seconds: std::ops::Range<u32>,
            sessions: bool,
            mut on_probe: impl FnMut(&Self, Instant),
        ) -> Vec<(u32, Tick)> {
            let mut seen = Vec::new();
            for second in seconds {
                let now = self.base + SECOND * second;
                let tick = self.watch.tick(now, &self.pulse, sessions);
                if tick == Tick::Probe {
                    on_probe(self, now);
                }
                if tick != Tick::Wait {
                    seen.push((second, tick));
                }
            }
            seen
        }
    }

    #[test]
    fn a_quiet_app_is_probed_once_an_interval_and_stays_responsive() {
        let mut rig = Rig::new();
        let seen = rig.run(0..61, true, |rig, now| {
            rig.pulse.probe_left(now);
            rig.pulse.heard(now + SECOND / 10);
        });
        let probes: Vec<_> = seen.iter().map(|(second, _)| *second).collect();
        assert_eq!(probes, [15, 31, 47], "{seen:?}");
        assert!(seen.iter().all(|(_, tick)| *tick == Tick::Probe), "{seen:?}");
    }

    #[test]
    fn a_frozen_app_is_missed_first_and_given_up_later() {
        let mut rig = Rig::new();
        let seen = rig.run(0..120, true, |rig, now| rig.pulse.probe_left(now));
        assert_eq!(seen[0], (15, Tick::Probe));
        assert_eq!(seen[1], (25, Tick::Missed { silent: 25 * SECOND }), "held, not torn down");
        assert_eq!(seen.last(), Some(&(60, Tick::GiveUp { silent: 60 * SECOND })), "{seen:?}");
    }

    #[test]
    fn an_app_that_is_heard_again_recovers_with_its_sessions() {
        let mut rig = Rig::new();
        let mut seen = rig.run(0..40, true, |rig, now| rig.pulse.probe_left(now));
        rig.pulse.heard(rig.base + SECOND * 40);
        seen.extend(rig.run(40..50, true, |rig, now| rig.pulse.probe_left(now)));
        assert_eq!(seen.last(), Some(&(40, Tick::Recovered)), "{seen:?}");
        assert!(rig.watch.is_responsive());
    }

    #[test]
    fn a_suspended_proxy_does_not_blame_the_app() {
        let mut rig = Rig::new();
        rig.run(0..10, true, |rig, now| rig.pulse.probe_left(now));
        let seen = rig.run(300..312, true, |rig, now| rig.pulse.probe_left(now));
        assert_eq!(seen, [], "the five minutes were ours");
    }

    #[test]
    fn a_probe_that_could_not_leave_is_given_to_the_next_session() {
        let mut rig = Rig::new();
        let seen = rig.run(0..40, true, |_, _| {});
        assert_eq!(seen, [(15, Tick::Probe), (25, Tick::Probe), (35, Tick::Probe)]);
    }

    #[test]
    fn without_sessions_nothing_is_asked_and_nobody_is_blamed() {
        let mut rig = Rig::new();
        assert_eq!(rig.run(0..200, false, |_, _| {}), []);
        let seen = rig.run(200..214, true, |_, _| {});
        assert_eq!(seen, [], "silence counts from the first session");
    }
}
