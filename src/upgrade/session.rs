//! From two streams behind their 101s to a running session.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::config::SessionLimits;
use crate::heartbeat::{Policy, UpstreamPulse};
use crate::registry::{Entry, Event, Opening, Registry};
use crate::relay::{self, Control, Leg, Legs, Observer, Terms};
use crate::session::{ConnId, Ending, SessionFacts};
use crate::telemetry::lines;
use crate::telemetry::metrics::{Active, Attempt, Direction, Metrics, RouteMetrics};
use crate::upstream::UpstreamStream;
use crate::ws::{Coding, Limits, Sender};

/// A session that lacks nothing but its client leg, which is free once the 101 has left.
#[derive(Debug)]
pub struct Prepared {
    /// What its lines say.
    pub facts: SessionFacts,
    /// How old it may grow: some a little less and some a little more, for those that opened together are not to come
    /// back together.
    pub max_age: Option<Duration>,
    /// The request that it comes of, which is still to be counted.
    pub attempt: Attempt,
    /// What is asked of its client.
    pub policy: Arc<Policy>,
    /// What its extensions do to payloads.
    pub coding: Coding,
    /// The liveness of its app.
    pub pulse: Arc<UpstreamPulse>,
    /// The upstream leg.
    pub upstream: UpstreamStream,
    /// Read from the app behind its 101.
    pub upstream_early: Bytes,
}

/// What all sessions of one worker share.
#[derive(Debug)]
pub struct Sessions {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
}

impl Sessions {
    /// Sessions that are entered in `registry` and run as tasks of `tracker`.
    pub fn new(registry: Arc<Registry>, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        Self { registry, metrics, tracker }
    }

    /// A name for a session that is about to open.
    pub fn next_id(&self) -> ConnId {
        self.registry.next_id()
    }

    /// Starts a session in a task of its own: a task is as large as its largest await, and those of the HTTP
    /// stages are large.
    pub fn start<C: Leg + Send + 'static>(&self, client: C, client_early: Bytes, prepared: Prepared) {
        let Prepared { facts, max_age, attempt, policy, coding, pulse, upstream, upstream_early } = prepared;
        let facts = Arc::new(facts);
        let control = Arc::new(Control::default());
        let opening = Opening { facts: Arc::clone(&facts), control: Arc::clone(&control), pulse: Arc::clone(&pulse) };
        let route = Arc::clone(attempt.route());
        let active = attempt.opened();
        let metrics = Arc::clone(&self.metrics);
        let active = Mutex::new(Some(active));
        let entry = self.registry.open(opening);
        if entry.is_reconnect() {
            route.reconnected();
        }
        let watched = Arc::new(Watched { entry, route, metrics, active });
        let terms = Terms {
            policy,
            limits: limits(&facts.request.route.limits, coding),
            memory: Arc::clone(self.metrics.memory()),
            pulse,
            observer: watched,
            id: facts.id,
            seed: fastrand::u64(..),
            max_age: max_age.map(|age| varied(age, fastrand::f64())),
        };
        lines::ws_open(&facts);
        let legs = Legs { client, client_early, upstream, upstream_early };
        // `map` rather than an async block: that would hold the relay's future twice, captured and awaited.
        self.tracker.spawn(relay::run(legs, terms, control).map(drop));
    }
}

/// A session whose figures are counted, and whose story is told. The relay and the end of the session share it.
#[derive(Debug)]
struct Watched {
    entry: Entry,
    route: Arc<RouteMetrics>,
    metrics: Arc<Metrics>,
    /// Counts the session as active until it has ended.
    active: Mutex<Option<Active>>,
}

impl Observer for Watched {
    fn ended(&self, ending: &Ending) {
        drop(self.active.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.route.closed(ending);
        let closed = self.entry.close(ending.clone());
        lines::ws_close(&closed.facts, &closed.ending);
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
            Sender::Client => Direction::In,
            Sender::Server => Direction::Out,
        });
    }
}

/// `age`, give or take a tenth; `random` is from 0 up to 1.
fn varied(age: Duration, random: f64) -> Duration {
    age.mul_f64(0.9 + 0.2 * random)
}

fn limits(of: &SessionLimits, coding: Coding) -> Limits {
    let SessionLimits { frame, message, messages_per_second } = *of;
    Limits { frame, message, messages_per_second, rsv: coding.rsv() }
}

/// Takes a stream back from hyper behind a 101, with the bytes that were read too early. `None` if the connection
/// broke before the 101 was through.
pub async fn regain<S>(upgraded: OnUpgrade) -> Option<(S, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let parts = upgraded.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    // A copy: a few bytes would hold the whole of hyper's buffer.
    Some((parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_opened_together_do_not_grow_old_together() {
        let age = Duration::from_secs(1000);
        assert_eq!(varied(age, 0.0), age * 9 / 10);
        assert_eq!(varied(age, 0.5), age);
        assert!(varied(age, 0.999) > age * 109 / 100 && varied(age, 0.999) < age * 11 / 10);
    }
}
