//! Statistics of the whole process, sampled once a second.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::context::Context;
use super::session_view::ViewClock;
use crate::drain::DrainPhase;
use crate::session::{LiveStats, Traffic};

/// One sample. Totals are since the start; `at` is in unix seconds, `buffered` in bytes.
#[derive(Debug, Serialize)]
pub(super) struct ProxyStats {
    at: f64,
    open: usize,
    opened_total: u64,
    closed_total: u64,
    #[serde(rename = "in")]
    from_clients: Flow,
    #[serde(rename = "out")]
    from_apps: Flow,
    buffered: u64,
    rtt: Rtt,
    /// Sessions with at least one miss and no sign of life since.
    missing: usize,
    draining: bool,
    phase: &'static str,
    generation: u64,
}

#[derive(Debug, Serialize)]
struct Flow {
    msgs: u64,
    bytes: u64,
}

impl From<Traffic> for Flow {
    fn from(traffic: Traffic) -> Self {
        Self { msgs: traffic.messages, bytes: traffic.bytes }
    }
}

/// Percentiles of the latest round-trip times of the live sessions, in seconds.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Rtt {
    p50_s: Option<f64>,
    p90_s: Option<f64>,
    p99_s: Option<f64>,
    max_s: Option<f64>,
    count: usize,
}

impl ProxyStats {
    pub(super) fn of(context: &Context, generation: u64) -> Self {
        let stats: Vec<LiveStats> = context.registry.sessions().iter().map(|live| live.live_stats()).collect();
        let (from_clients, from_apps) = context.registry.traffic();
        let opened_total = context.metrics.totals().websockets;
        let memory = context.metrics.memory();
        let phase = context.shutdown.phase();
        Self {
            at: ViewClock::now().seconds(),
            open: stats.len(),
            opened_total,
            closed_total: opened_total.saturating_sub(stats.len() as u64),
            from_clients: from_clients.into(),
            from_apps: from_apps.into(),
            buffered: memory.total(),
            rtt: Rtt::of(stats.iter().filter_map(|stats| stats.rtt).collect()),
            missing: stats.iter().filter(|stats| stats.misses > 0).count(),
            draining: phase >= DrainPhase::Announced,
            phase: phase.as_str(),
            generation,
        }
    }
}

impl Rtt {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        // Nearest-rank percentile: the smallest value that `percent` in 100 values do not exceed.
        let rank = |percent: usize| {
            let index = (all.len() * percent).div_ceil(100).checked_sub(1)?;
            all.get(index).map(Duration::as_secs_f64)
        };
        Self { p50_s: rank(50), p90_s: rank(90), p99_s: rank(99), max_s: rank(100), count: all.len() }
    }
}

/// The latest sample as JSON, shared by all requests of the same second.
#[derive(Debug, Default)]
pub(super) struct Shared(Option<(Instant, String)>);

impl Shared {
    /// Returns the sample as JSON; takes a new one with `sample` when the latest is older than `age`.
    pub(super) fn within(&mut self, age: Duration, sample: impl FnOnce() -> ProxyStats) -> &str {
        let stale = self.0.as_ref().is_none_or(|(at, _)| at.elapsed() >= age);
        if stale {
            let text = serde_json::to_string(&sample()).expect("structs of numbers and text have a form in JSON");
            self.0 = Some((Instant::now(), text));
        }
        self.0.as_ref().map_or("", |(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!(Rtt::of(Vec::new()), Rtt::default());
        let one = Rtt::of(vec![Duration::from_secs(3)]);
        assert_eq!(one, Rtt { p50_s: Some(3.0), p90_s: Some(3.0), p99_s: Some(3.0), max_s: Some(3.0), count: 1 });
        let hundred = Rtt::of((1..=100).rev().map(Duration::from_secs).collect());
        assert_eq!((hundred.p50_s, hundred.p90_s, hundred.p99_s), (Some(50.0), Some(90.0), Some(99.0)));
        assert_eq!(hundred.max_s, Some(100.0));
    }
}
