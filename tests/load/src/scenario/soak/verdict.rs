//! The figures of a soak and the verdict on each.

use std::time::Duration;

use tokio::time::Instant;

use super::proxy::Ends;
use super::samples::{Sample, Trend, session_difference};
use super::tally::Tally;
use super::{Fault, Soak};
use crate::scenario::{Figures, kib};
use crate::stats::percentile;

/// The tolerated difference between the sessions of the admin API and the generator's, in percent.
const SESSIONS_APART: f64 = 2.0;
/// The tolerated share of sessions without a verdict, in percent.
const NOT_JUDGED: f64 = 1.0;
/// The tolerated growth of descriptors over the last two thirds, in percent. They follow the number of sessions.
const DESCRIPTOR_GROWTH: f64 = 5.0;

/// The result of a soak.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// All figures.
    pub figures: Figures,
    /// The verdicts against the proxy, with their limits; none if the proxy passed.
    pub failures: Vec<String>,
}

/// The proxy before the first session.
pub(super) struct Before {
    pub(super) descriptors: u64,
    pub(super) cpu: Duration,
    pub(super) ends: Ends,
    pub(super) began: Instant,
}

/// The proxy after the last session, once all resources are released.
pub(super) struct Left {
    pub(super) sessions: u64,
    /// Descriptors beyond those before the first session.
    pub(super) descriptors: u64,
    pub(super) buffered: f64,
    pub(super) ends: Ends,
    pub(super) cpu: Duration,
}

impl Judgement {
    fn show(&mut self, name: &'static str, value: f64) {
        self.figures.put(name, value);
    }

    /// Adds a figure that must not exceed `most`.
    fn hold(&mut self, name: &'static str, value: f64, most: f64) {
        self.show(name, value);
        // NaN counts as over the limit.
        if value.is_nan() || value > most {
            self.failures.push(format!("{name} is {value:.3}, above {most}"));
        }
    }
}

/// Computes the figures and their verdicts.
pub(super) fn judge(options: &Soak, tally: &Tally, samples: &[Sample], before: &Before, left: &Left) -> Judgement {
    let mut found = Judgement { figures: Figures::default(), failures: Vec::new() };
    let took = before.began.elapsed();
    found.show("minutes", took.as_secs_f64() / 60.0);
    found.show("seed", options.seed as f64);
    found.show("sessions_at_once", options.sessions as f64);
    found.show("sessions", tally.sessions as f64);
    found.show("sessions_http2", tally.http2 as f64);
    found.show("sessions_slow", tally.slow as f64);
    found.show("messages", tally.messages as f64);
    found.show("megabytes_each_way", tally.bytes as f64 / 1e6);
    for (way, count) in &tally.ways {
        found.show(way, *count as f64);
    }
    for (name, fault) in [
        ("not_opened", Fault::NotOpened),
        ("live_ended", Fault::LiveEnded),
        ("dead_late", Fault::DeadLate),
        ("wrong_bytes", Fault::WrongBytes),
        ("wrong_ends", Fault::WrongEnd),
    ] {
        found.hold(name, tally.count(fault) as f64, 0.0);
    }
    let judged = tally.sessions.max(1) as f64;
    found.hold("not_judged_percent", tally.not_judged as f64 / judged * 100.0, NOT_JUDGED);
    let bound = options.interval + options.timeout;
    found.show("death_bound_s", bound.as_secs_f64());
    for (names, times) in [
        (["death_client_s_median", "death_client_s_max"], &tally.deaths_client),
        (["death_app_s_median", "death_app_s_max"], &tally.deaths_app),
    ] {
        let mut times = times.clone();
        times.sort_unstable();
        for (name, percent) in names.into_iter().zip([50.0, 100.0]) {
            // A run without deaths has not tested them.
            let value = percentile(&times, percent).map_or(f64::NAN, |time| time.as_secs_f64());
            found.hold(name, value, (bound + options.slack).as_secs_f64());
        }
    }
    if let Some(longest) = tally.deaths_http2.iter().max() {
        found.show("death_http2_s_max", longest.as_secs_f64());
    }
    if let Some((time, session)) = &tally.worst_death {
        eprintln!("the longest time to an end was {time:?}: {session}");
    }
    // A session without a verdict may have ended under any label: one is surplus there and one missing elsewhere.
    let differing = tally.differing(&before.ends, &left.ends).saturating_sub(2 * tally.not_judged);
    found.hold("close_reasons_differing", differing as f64, 0.0);
    trends(&mut found, options, samples);
    found.hold("sessions_left", left.sessions as f64, 0.0);
    found.hold("descriptors_left", left.descriptors as f64, options.descriptor_tolerance as f64);
    found.hold("buffered_bytes_left", left.buffered, 0.0);
    let spent = left.cpu.saturating_sub(before.cpu);
    found.show("cpu_share_percent", spent.as_secs_f64() / took.as_secs_f64() * 100.0);
    found
}

fn trends(found: &mut Judgement, options: &Soak, samples: &[Sample]) {
    let growth = |value: fn(&Sample) -> f64| Trend::of(samples, value);
    let (pss, private) = (growth(|sample| sample.pss), growth(|sample| sample.private));
    let (descriptors, threads) = (growth(|sample| sample.descriptors), growth(|sample| sample.threads));
    let figure = |trend: Option<Trend>, part: fn(&Trend) -> f64| trend.as_ref().map_or(f64::NAN, part);
    found.show("pss_start_kib", kib(figure(pss, |trend| trend.start)));
    found.show("pss_end_kib", kib(figure(pss, |trend| trend.end)));
    found.show("pss_kib_per_minute", kib(figure(pss, |trend| trend.per_minute)));
    let pss_growth = figure(pss, |trend| trend.percent);
    found.show("pss_growth_percent", pss_growth);
    found.show("private_start_kib", kib(figure(private, |trend| trend.start)));
    found.show("private_end_kib", kib(figure(private, |trend| trend.end)));
    let private_growth = figure(private, |trend| trend.percent);
    found.show("private_growth_percent", private_growth);
    // Not `max`, which drops NaN.
    let most = if private_growth > pss_growth { private_growth } else { pss_growth };
    let beyond = most - options.memory_tolerance;
    found.hold("memory_over_tolerance_percent", if beyond < 0.0 { 0.0 } else { beyond }, 0.0);
    found.show("memory_tolerance_percent", options.memory_tolerance);
    found.show("descriptors_start", figure(descriptors, |trend| trend.start));
    found.show("descriptors_end", figure(descriptors, |trend| trend.end));
    found.hold("descriptors_growth_percent", figure(descriptors, |trend| trend.percent), DESCRIPTOR_GROWTH);
    found.show("threads_start", figure(threads, |trend| trend.start));
    found.hold("threads_growth_percent", figure(threads, |trend| trend.percent), 0.0);
    found.show("samples", samples.len() as f64);
    let apart = session_difference(samples).unwrap_or(f64::NAN);
    found.hold("sessions_difference_percent", apart, SESSIONS_APART);
}
