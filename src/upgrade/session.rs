//! The start of a session from the two streams behind their 101 responses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::config::SessionLimits;
use crate::heartbeat::{Policy, UpstreamLiveness};
use crate::registry::{Event, Registry, RegistryEntry, SessionEntry};
use crate::relay::{self, Control, Leg, Legs, NegotiatedTerms, Observer};
use crate::session::{ConnId, Ending, SessionFacts};
use crate::telemetry::log_events;
use crate::telemetry::metrics::{GaugeGuard, Metrics, RouteMetrics, TrafficDirection, UpgradeAttempt};
use crate::upstream::UpstreamStream;
use crate::ws::{Coding, Limits, Sender};

/// A session that is complete except for its client leg, which becomes available once the 101 is sent.
#[derive(Debug)]
pub struct PreparedSession {
    /// The facts for its log lines.
    pub facts: SessionFacts,
    /// The maximum age; each session's is varied by up to a tenth, so that sessions opened together do not all
    /// reconnect together.
    pub max_age: Option<Duration>,
    /// The request that led to it, still to be counted.
    pub attempt: UpgradeAttempt,
    /// The heartbeat policy for its client.
    pub policy: Arc<Policy>,
    /// The coding of payloads by its extensions.
    pub coding: Coding,
    /// The liveness of its app.
    pub liveness: Arc<UpstreamLiveness>,
    /// The upstream leg.
    pub upstream: UpstreamStream,
    /// The bytes read from the app behind its 101.
    pub upstream_early: Bytes,
}

/// The means that all sessions of one worker share.
#[derive(Debug)]
pub struct Sessions {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
}

impl Sessions {
    /// Creates the means of a worker: sessions are entered in `registry` and run as tasks of `tracker`.
    pub fn new(registry: Arc<Registry>, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        Self { registry, metrics, tracker }
    }

    /// Returns the id for a session that is about to open.
    pub fn next_id(&self) -> ConnId {
        self.registry.next_id()
    }

    /// Starts a session in a task of its own: a task is as large as its largest await, and those of the HTTP stages are
    /// large.
    pub fn start<C: Leg + Send + 'static>(&self, client: C, client_early: Bytes, prepared: PreparedSession) {
        let PreparedSession { facts, max_age, attempt, policy, coding, liveness, upstream, upstream_early } = prepared;
        let facts = Arc::new(facts);
        let control = Arc::new(Control::default());
        let opening =
            SessionEntry { facts: Arc::clone(&facts), control: Arc::clone(&control), liveness: Arc::clone(&liveness) };
        let route = Arc::clone(attempt.route());
        let active = attempt.opened();
        let metrics = Arc::clone(&self.metrics);
        let active = Mutex::new(Some(active));
        let entry = self.registry.open(opening);
        if entry.is_reconnect() {
            route.reconnected();
        }
        let watched = Arc::new(SessionObserver { entry, route, metrics, active });
        let terms = NegotiatedTerms {
            policy,
            limits: limits(&facts.request.route.limits, coding),
            memory: Arc::clone(self.metrics.memory()),
            liveness,
            observer: watched,
            id: facts.id,
            seed: fastrand::u64(..),
            max_age: max_age.map(|age| with_jitter(age, fastrand::f64())),
        };
        log_events::ws_open(&facts);
        let legs = Legs { client, client_early, upstream, upstream_early };
        // `map` instead of an async block, which would hold the relay's future twice, captured and awaited.
        self.tracker.spawn(relay::run(legs, terms, control).map(drop));
    }
}

/// The observer of a session, which counts its figures, publishes its events and logs its end. Shared by the relay and
/// the session's end.
#[derive(Debug)]
struct SessionObserver {
    entry: RegistryEntry,
    route: Arc<RouteMetrics>,
    metrics: Arc<Metrics>,
    /// Counts the session as active until it ends.
    active: Mutex<Option<GaugeGuard>>,
}

impl Observer for SessionObserver {
    fn ended(&self, ending: &Ending) {
        drop(self.active.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.route.closed(ending);
        let closed = self.entry.close(ending.clone());
        log_events::ws_close(&closed.facts, &closed.ending);
    }

    fn pinged(&self) {
        self.route.ping();
    }

    fn ponged(&self, rtt: Option<Duration>) {
        self.route.pong(rtt);
    }

    fn measured(&self, rtt: Duration) {
        self.route.measured(rtt);
    }

    fn upstream_ponged(&self, rtt: Duration) {
        self.route.upstream_ponged(rtt);
    }

    fn missed(&self, misses: u32, max: u32) {
        self.route.missed();
        let id = self.entry.live().id;
        self.entry.registry().events().publish(Event::Missed { id, misses, max, at: SystemTime::now() });
    }

    fn timed_out(&self) {
        self.route.timeout();
    }

    fn paused(&self, from: Sender) {
        self.metrics.backpressure(match from {
            Sender::Client => TrafficDirection::In,
            Sender::Server => TrafficDirection::Out,
        });
    }
}

/// Returns `age` multiplied by a factor from 0.9 to 1.1; `random` is from 0 up to 1.
fn with_jitter(age: Duration, random: f64) -> Duration {
    age.mul_f64(0.9 + 0.2 * random)
}

fn limits(of: &SessionLimits, coding: Coding) -> Limits {
    let SessionLimits { frame, message, messages_per_second } = *of;
    Limits { frame, message, messages_per_second, rsv: coding.rsv() }
}

/// Takes a stream back from hyper after a 101, with the bytes read beyond the head. Returns `None` if the connection
/// broke before the 101 was sent.
pub async fn take_upgraded_stream<S>(upgraded: OnUpgrade) -> Option<(S, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let parts = upgraded.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    // A copy: a few bytes would keep the whole of hyper's buffer allocated.
    Some((parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_opened_together_do_not_grow_old_together() {
        let age = Duration::from_secs(1000);
        assert_eq!(with_jitter(age, 0.0), age * 9 / 10);
        assert_eq!(with_jitter(age, 0.5), age);
        assert!(with_jitter(age, 0.999) > age * 109 / 100 && with_jitter(age, 0.999) < age * 11 / 10);
    }
}
