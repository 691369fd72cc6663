//! Histograms of durations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A histogram of durations in seconds. An observation is two atomic additions; the library's histogram takes a lock,
/// for which the workers would contend.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds in seconds, ascending; one more bucket holds the values above the last.
    bounds: &'static [f64],
    /// The observations of each bucket, not cumulative; one more bucket than bounds.
    counts: Box<[AtomicU64]>,
    /// The sum of all observations in microseconds; nanoseconds would overflow with 100,000 sessions of two days.
    micros: AtomicU64,
}

impl Histogram {
    /// Returns an empty histogram.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self(Arc::new(Buckets { bounds, counts, micros: AtomicU64::new(0) }))
    }

    /// Records one duration.
    pub(super) fn observe(&self, took: Duration) {
        let Buckets { bounds, counts, micros } = &*self.0;
        let seconds = took.as_secs_f64();
        let bucket = bounds.partition_point(|bound| *bound < seconds);
        counts[bucket].fetch_add(1, Ordering::Relaxed);
        micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { bounds, counts, micros } = &*self.0;
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        // Summed from the buckets: it must equal the last cumulative bucket, whatever is observed meanwhile.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(micros.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_has_room_for_it() {
        let histogram = Histogram::new(&[0.001, 0.5, 10.0]);
        for millis in [0, 1, 2, 500, 501, 20_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut registry = Registry::default();
        registry.register("took", "How long", histogram);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to a string");
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "took_sum 21.004",
            "took_count 6",
            r#"took_bucket{le="0.001"} 2"#,
            r#"took_bucket{le="0.5"} 4"#,
            r#"took_bucket{le="10.0"} 5"#,
            r#"took_bucket{le="+Inf"} 6"#,
        ];
        assert_eq!(lines, expected, "bounds are inclusive and buckets cumulative");
    }
}
