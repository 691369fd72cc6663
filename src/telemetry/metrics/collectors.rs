//! Collectors of values that are read at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::catalogue::{self, Metric, MetricKind};
use crate::relay::Memory;
use crate::session::Traffic;

/// Bytes buffered by sessions: `in` from clients, `out` to clients.
#[derive(Debug)]
pub(super) struct Buffered(pub(super) Arc<Memory>);

/// Traffic of all sessions since the start, from clients and from apps.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed(Arc<OnceLock<Source>>);

struct Source(Box<dyn Fn() -> (Traffic, Traffic) + Send + Sync>);

/// The expiry times of the certificates presented to clients, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates(Arc<Mutex<BTreeMap<Box<str>, SystemTime>>>);

impl Collector for Buffered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = begin(&mut encoder, &catalogue::BUFFERED_BYTES)?;
        for (direction, bytes) in [("in", self.0.to_app()), ("out", self.0.to_client())] {
            family.encode_family(&[("direction", direction)])?.encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

impl Passed {
    /// Sets the source, once.
    pub(super) fn observe(&self, source: impl Fn() -> (Traffic, Traffic) + Send + Sync + 'static) {
        let first = self.0.set(Source(Box::new(source)));
        debug_assert!(first.is_ok(), "there is one source of a process's traffic");
    }
}

impl Collector for Passed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (from_clients, from_apps) = self.0.get().map_or_else(Default::default, |source| (source.0)());
        for (metric, value) in [
            (&catalogue::MESSAGES, (|traffic| traffic.messages) as fn(&Traffic) -> u64),
            (&catalogue::PAYLOAD_BYTES, |traffic| traffic.payload),
        ] {
            let mut family = begin(&mut encoder, metric)?;
            for (direction, traffic) in [("in", &from_clients), ("out", &from_apps)] {
                let labels = [("direction", direction)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value(traffic), None)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Certificates {
    /// Sets the expiry of the certificate `name`.
    pub(super) fn set(&self, name: &str, not_after: SystemTime) {
        self.all().insert(name.into(), not_after);
    }

    /// Removes all certificates.
    pub(super) fn clear(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Box<str>, SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all().clone();
        if all.is_empty() {
            return Ok(());
        }
        let mut family = begin(&mut encoder, &catalogue::TLS_CERTIFICATE_NOT_AFTER)?;
        for (name, not_after) in &all {
            family.encode_family(&[("cert", &**name)])?.encode_gauge(&unix_seconds(*not_after))?;
        }
        Ok(())
    }
}

/// Returns `time` in whole unix seconds; zero for times before 1970.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Writes the description of `metric`. Fails when the encoder fails.
pub(super) fn begin<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    metric: &'static Metric,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    // The registry appends a full stop to its own help texts.
    encoder.encode_descriptor(metric.name, &format!("{}.", metric.help), None, kind)
}
