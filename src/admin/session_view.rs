//! Sessions in the JSON form of the admin API.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::heartbeat::Mode;
use crate::registry::{ClosedSession, Live, Registry};
use crate::session::{ClientAddress, ConnId, LiveStats, SessionFacts, Traffic, close_summary};

/// A snapshot of one session.
#[derive(Clone, Debug)]
pub(super) enum Row {
    /// It lives.
    Live(Arc<Live>, LiveStats),
    /// A closed session that is still remembered.
    Closed(Arc<ClosedSession>),
}

/// The session states that a query selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Live sessions.
    Open,
    /// Closed sessions that are still remembered.
    Closed,
    /// Live and closed sessions.
    All,
}

impl std::str::FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}

/// Returns a snapshot of the sessions in `state`; holds no lock of `registry` after it returns.
pub(super) fn rows(registry: &Registry, state: State) -> Vec<Row> {
    // Live sessions first: one that closes in between is found twice rather than not at all.
    let live = if state == State::Closed { Vec::new() } else { registry.sessions() };
    let closed = if state == State::Open { Vec::new() } else { registry.closed() };
    let ended: HashSet<ConnId> = closed.iter().map(|closed| closed.id).collect();
    let live = live.into_iter().filter(|live| !ended.contains(&live.id)).map(Row::from);
    live.chain(closed.into_iter().map(Row::Closed)).collect()
}

impl From<Arc<Live>> for Row {
    fn from(live: Arc<Live>) -> Self {
        let figures = live.live_stats();
        Self::Live(live, figures)
    }
}

impl Row {
    pub(super) fn id(&self) -> ConnId {
        match self {
            Self::Live(live, _) => live.id,
            Self::Closed(closed) => closed.id,
        }
    }

    /// Returns the facts known at the opening.
    pub(super) fn facts(&self) -> &SessionFacts {
        match self {
            Self::Live(live, _) => &live.facts,
            Self::Closed(closed) => &closed.facts,
        }
    }

    /// Returns the route as host (if it has one) and path, the same text as the label in metrics.
    pub(super) fn route(&self) -> String {
        let route = &self.facts().request.route;
        route.host.as_ref().map_or_else(|| route.path.to_string(), |host| format!("{host}{}", route.path))
    }

    pub(super) fn client(&self) -> IpAddr {
        match self.facts().request.client {
            ClientAddress::Peer(address) => address.ip(),
            ClientAddress::Forwarded(address) => address,
        }
        .to_canonical()
    }

    pub(super) fn opened_at(&self) -> SystemTime {
        match self {
            Self::Live(live, _) => live.opened_at,
            Self::Closed(closed) => closed.opened_at,
        }
    }

    /// Returns the time at which both legs had closed; `None` for a live session.
    pub(super) fn closed_at(&self) -> Option<SystemTime> {
        match self {
            Self::Live(..) => None,
            Self::Closed(closed) => Some(closed.closed_at),
        }
    }

    /// Returns the bytes buffered towards the app and towards the client; `None` for a closed session.
    pub(super) fn held(&self) -> Option<(usize, usize)> {
        match self {
            Self::Live(_, figures) => Some((figures.held_to_app, figures.held_to_client)),
            Self::Closed(_) => None,
        }
    }

    /// Returns the time of the last byte from the client; `None` for a closed session. Computed from the opening time
    /// rather than from now, so that it is the same in every snapshot until more bytes arrive, as a cursor requires.
    pub(super) fn last_seen(&self) -> Option<SystemTime> {
        match self {
            Self::Live(live, figures) => {
                Some(live.opened_at + figures.last_seen.saturating_duration_since(live.opened))
            }
            Self::Closed(_) => None,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Live(_, figures) => figures.rtt,
            Self::Closed(closed) => closed.ending.heartbeat.rtt_last,
        }
    }

    /// Returns the consecutive misses of a live session, or all misses of a closed one.
    pub(super) fn misses(&self) -> u64 {
        match self {
            Self::Live(_, figures) => figures.misses.into(),
            Self::Closed(closed) => closed.ending.heartbeat.missed,
        }
    }

    pub(super) fn sent_by_client(&self) -> Traffic {
        match self {
            Self::Live(_, figures) => figures.from_client,
            Self::Closed(closed) => closed.ending.from_client,
        }
    }

    pub(super) fn sent_by_app(&self) -> Traffic {
        match self {
            Self::Live(_, figures) => figures.from_upstream,
            Self::Closed(closed) => closed.ending.from_upstream,
        }
    }

    /// Returns the form that is serialised as JSON.
    pub(super) fn show(&self, clock: ViewClock) -> SessionView<'_> {
        let facts = self.facts();
        let request = &facts.request;
        let opened_at = self.opened_at();
        let (held_to_app, held_to_client) = self.held().unwrap_or_default();
        let (state, duration) = match self {
            Self::Live(live, figures) => {
                let state = if figures.closing { "closing" } else { "open" };
                let duration = clock.instant.saturating_duration_since(live.opened);
                (state, duration)
            }
            Self::Closed(closed) => ("closed", closed.ending.duration),
        };
        let last_seen = match self {
            Self::Live(_, figures) => Some(figures.last_seen),
            Self::Closed(_) => None,
        };
        let idle = last_seen.map(|seen| clock.instant.saturating_duration_since(seen));
        SessionView {
            id: self.id().to_string(),
            state,
            route: self.route(),
            path: &request.path,
            client: request.client.to_string(),
            user_agent: request.user_agent.as_deref(),
            sni: request.server_name.as_deref(),
            tls: facts.tls_version.map(|version| Tls { version, group: facts.tls_group }),
            protocol: request.protocol,
            subprotocol: facts.subprotocol.as_deref(),
            trace_id: request.trace_id.as_deref(),
            opened_at: unix(opened_at),
            closed_at: self.closed_at().map(unix),
            duration_s: duration.as_secs_f64(),
            last_seen_at: last_seen.map(|seen| clock.unix(seen)),
            idle_s: idle.map(|idle| idle.as_secs_f64()),
            heartbeat: self.heartbeat(clock),
            from_client: Flow::of(self.sent_by_client(), held_to_app),
            from_app: Flow::of(self.sent_by_app(), held_to_client),
            config_generation: facts.config_generation,
            close: self.close(),
        }
    }

    fn heartbeat(&self, clock: ViewClock) -> Heartbeat {
        let policy = &self.facts().heartbeat.policy;
        let (missed, rtt_min, next_deadline) = match self {
            Self::Live(_, figures) => (figures.missed, figures.rtt_min, figures.next_deadline),
            Self::Closed(closed) => (closed.ending.heartbeat.missed, None, None),
        };
        // Mode off enforces no times.
        let enforced = |time: Duration| (policy.mode != Mode::Off).then_some(time.as_secs_f64());
        Heartbeat {
            mode: policy.mode.as_str(),
            profile: policy.mode.profile().map(|profile| profile.name),
            interval_s: enforced(policy.interval),
            timeout_s: enforced(policy.timeout),
            misses: self.misses(),
            max: policy.max_missed,
            missed,
            rtt_s: self.rtt().map(|rtt| rtt.as_secs_f64()),
            rtt_min_s: rtt_min.map(|rtt| rtt.as_secs_f64()),
            next_deadline_at: next_deadline.map(|at| clock.unix(at)),
        }
    }

    fn close(&self) -> Option<Close<'_>> {
        let Self::Closed(closed) = self else { return None };
        let ending = &closed.ending;
        Some(Close {
            initiator: ending.cause.initiator().as_str(),
            reason: ending.cause.reason().as_str(),
            detail: ending.cause.detail(),
            code: ending.client_code,
            upstream_code: ending.upstream_code,
            text: (!ending.close_reason.is_empty()).then_some(&*ending.close_reason),
            sentence: close_summary(ending, &closed.facts.heartbeat.policy),
        })
    }
}

/// The current time on both clocks, to convert an [`Instant`] into a time of day.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViewClock {
    system: SystemTime,
    instant: Instant,
}

impl ViewClock {
    pub(super) fn now() -> Self {
        Self { system: SystemTime::now(), instant: Instant::now() }
    }

    /// Returns the clock for which `system` and `instant` are the current time.
    #[cfg(test)]
    pub(super) fn at(system: SystemTime, instant: Instant) -> Self {
        Self { system, instant }
    }

    /// Returns the instant of `time`, which may lie in the future.
    #[cfg(test)]
    pub(super) fn instant_of(self, time: SystemTime) -> Instant {
        let ahead = time.duration_since(self.system).unwrap_or_default();
        self.instant - self.since_time(time) + ahead
    }

    /// Returns the current time in unix seconds.
    pub(super) fn seconds(self) -> f64 {
        unix(self.system)
    }

    /// Returns the time of day of `at`, which may lie in the future.
    pub(super) fn time_of(self, at: Instant) -> SystemTime {
        self.system - self.since(at) + self.until(at)
    }

    /// Returns the time from `at` to now; zero if `at` lies in the future.
    pub(super) fn since(self, at: Instant) -> Duration {
        self.instant.saturating_duration_since(at)
    }

    /// Returns the time from now to `at`; zero if `at` has passed.
    pub(super) fn until(self, at: Instant) -> Duration {
        at.saturating_duration_since(self.instant)
    }

    /// Returns the time from `at` to now; zero if `at` lies in the future.
    pub(super) fn since_time(self, at: SystemTime) -> Duration {
        self.system.duration_since(at).unwrap_or_default()
    }

    /// Returns `at`, which may lie in the future, in unix seconds.
    fn unix(self, at: Instant) -> f64 {
        let behind = self.instant.saturating_duration_since(at).as_secs_f64();
        let ahead = at.saturating_duration_since(self.instant).as_secs_f64();
        self.seconds() - behind + ahead
    }
}

/// Returns `time` in unix seconds.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Returns `time` in nanoseconds since the unix epoch.
pub(super) fn nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// A session as JSON. Times are in unix seconds, durations (`_s`) in seconds; unknown values are null.
#[derive(Debug, Serialize)]
pub(super) struct SessionView<'a> {
    id: String,
    state: &'static str,
    route: String,
    path: &'a str,
    client: String,
    user_agent: Option<&'a str>,
    sni: Option<&'a str>,
    tls: Option<Tls>,
    protocol: &'static str,
    subprotocol: Option<&'a str>,
    trace_id: Option<&'a str>,
    opened_at: f64,
    closed_at: Option<f64>,
    duration_s: f64,
    last_seen_at: Option<f64>,
    idle_s: Option<f64>,
    heartbeat: Heartbeat,
    #[serde(rename = "in")]
    from_client: Flow,
    #[serde(rename = "out")]
    from_app: Flow,
    config_generation: u64,
    close: Option<Close<'a>>,
}

#[derive(Debug, Serialize)]
struct Tls {
    version: &'static str,
    group: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Heartbeat {
    mode: &'static str,
    profile: Option<&'static str>,
    interval_s: Option<f64>,
    timeout_s: Option<f64>,
    misses: u64,
    max: u32,
    missed: u64,
    rtt_s: Option<f64>,
    rtt_min_s: Option<f64>,
    next_deadline_at: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Flow {
    msgs: u64,
    bytes: u64,
    buffered: usize,
}

impl Flow {
    fn of(traffic: Traffic, buffered: usize) -> Self {
        Self { msgs: traffic.messages, bytes: traffic.bytes, buffered }
    }
}

#[derive(Debug, Serialize)]
struct Close<'a> {
    initiator: &'static str,
    reason: &'static str,
    detail: Option<&'static str>,
    code: u16,
    upstream_code: u16,
    text: Option<&'a str>,
    sentence: String,
}
