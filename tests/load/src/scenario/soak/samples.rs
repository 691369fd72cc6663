//! The proxy's memory, descriptors and sessions over time, and their trends.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::proxy::Proxy;
use crate::process::Tree;
use crate::stats::{median, robust_slope};

/// One sample of the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Time since the start of the run.
    pub(super) seconds: f64,
    /// Proportional set size, in bytes.
    pub(super) pss: f64,
    /// Private memory, in bytes.
    pub(super) private: f64,
    /// The number of open file descriptors.
    pub(super) descriptors: f64,
    /// Threads.
    pub(super) threads: f64,
    /// CPU time since the process started, in seconds.
    pub(super) cpu: f64,
    /// Live sessions in the admin API.
    pub(super) sessions: f64,
    /// Sessions whose connection the app has open.
    pub(super) at_app: f64,
    /// Sessions that the clients have not finished. A frozen client finds its end late.
    pub(super) at_client: f64,
}

/// The columns of [`Sample`]'s display.
pub(super) const COLUMNS: &str =
    "seconds,pss_kib,private_kib,descriptors,threads,cpu_s,sessions_admin,sessions_app,sessions_client";

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, pss, private, descriptors, threads, cpu, sessions, at_app, at_client } = self;
        let (pss, private) = (pss / 1024.0, private / 1024.0);
        write!(
            out,
            "{seconds:.0},{pss:.0},{private:.0},{descriptors:.0},{threads:.0},{cpu:.2},{sessions:.0},{at_app:.0},{at_client:.0}"
        )
    }
}

impl Sample {
    /// Samples the process and the admin API.
    pub(super) async fn take(
        tree: &Tree,
        proxy: &Proxy,
        since_start: Duration,
        [at_app, at_client]: [usize; 2],
    ) -> Result<Self> {
        let sessions = proxy.sessions().await? as f64;
        Ok(Self {
            seconds: since_start.as_secs_f64(),
            pss: tree.pss()? as f64,
            private: tree.private_memory()? as f64,
            descriptors: tree.descriptors()? as f64,
            threads: tree.threads()? as f64,
            cpu: tree.cpu()?.as_secs_f64(),
            sessions,
            at_app: at_app as f64,
            at_client: at_client as f64,
        })
    }
}

/// The trend of one value over the last two thirds of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// The median of the first tenth of these samples.
    pub(super) start: f64,
    /// The median of the last tenth.
    pub(super) end: f64,
    /// Growth per minute, by the robust slope.
    pub(super) per_minute: f64,
    /// Growth over the whole time by that slope, in percent of the median.
    pub(super) percent: f64,
}

impl Trend {
    /// Returns the trend of `value`; [`None`] with fewer than three samples. The first third is left out: sessions,
    /// caches and the allocator are still growing to their level.
    pub(super) fn of(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Option<Self> {
        let late = &samples[samples.len() / 3..];
        let points: Vec<(f64, f64)> = late.iter().map(|sample| (sample.seconds, value(sample))).collect();
        if points.len() < 3 {
            return None;
        }
        let slope = robust_slope(&points)?;
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let tenth = values.len().div_ceil(10);
        let span = points.last()?.0 - points.first()?.0;
        Some(Self {
            start: median(&values[..tenth])?,
            end: median(&values[values.len() - tenth..])?,
            per_minute: slope * 60.0,
            percent: slope * span / median(&values)?.max(1.0) * 100.0,
        })
    }
}

/// Returns the median difference between the sessions of the admin API and the generator's, in percent of the latter.
/// An end takes time, so that the admin API's number lies between the sessions open at the app and those that the
/// clients have not finished.
pub(super) fn session_difference(samples: &[Sample]) -> Option<f64> {
    let late = &samples[samples.len() / 3..];
    let counts: Vec<f64> = late.iter().map(|sample| sample.at_client).collect();
    let distance = |sample: &Sample| (sample.sessions - sample.at_client).max(sample.at_app - sample.sessions).max(0.0);
    let distances: Vec<f64> = late.iter().map(distance).collect();
    Some(median(&distances)? / median(&counts)?.max(1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pss: impl Fn(f64) -> f64) -> Vec<Sample> {
        let seconds = (0..60).map(|index| f64::from(index) * 10.0);
        seconds.map(|seconds| Sample { seconds, pss: pss(seconds), ..Sample::default() }).collect()
    }

    #[test]
    fn a_start_is_no_trend_and_a_leak_is_one() {
        let settled = run(|seconds| if seconds < 150.0 { seconds * 1000.0 } else { 150_000.0 + seconds % 30.0 });
        let trend = Trend::of(&settled, |sample| sample.pss).expect("there are sixty samples");
        assert!(trend.percent.abs() < 0.1, "{trend:?}");
        let leaking = run(|seconds| 100_000.0 + seconds * 100.0);
        let trend = Trend::of(&leaking, |sample| sample.pss).expect("there are sixty samples");
        assert!((trend.per_minute - 6000.0).abs() < 1.0, "{trend:?}");
        assert!(trend.percent > 25.0 && trend.end > trend.start, "{trend:?}");
        assert_eq!(Trend::of(&leaking[..3], |sample| sample.pss), None);
    }

    #[test]
    fn session_counts_outside_both_ends_are_a_difference() {
        let sample = Sample { at_app: 90.0, at_client: 100.0, ..Sample::default() };
        for (sessions, apart) in [(110.0, 10.0), (95.0, 0.0), (80.0, 10.0)] {
            let samples = vec![Sample { sessions, ..sample }; 9];
            assert_eq!(session_difference(&samples), Some(apart));
        }
        assert_eq!(session_difference(&[]), None);
    }
}
