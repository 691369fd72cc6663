//! The process metrics, named alike by every Prometheus client library.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use rustix::process::{Resource, getrlimit};

use super::catalogue::{self, Metric};
use super::collectors::begin;
use crate::platform::process_usage;

/// The collector of the usage of this process, read at each scrape. What the system does not report is missing.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// Returns the collector of a process that starts now.
    pub(super) fn starting() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = process_usage::read();
        if let Some(seconds) = usage.processor_seconds {
            begin(&mut encoder, &catalogue::PROCESS_CPU)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        gauge(&mut encoder, &catalogue::PROCESS_MEMORY, usage.resident_bytes)?;
        gauge(&mut encoder, &catalogue::PROCESS_VIRTUAL_MEMORY, usage.virtual_bytes)?;
        gauge(&mut encoder, &catalogue::PROCESS_THREADS, usage.threads)?;
        gauge(&mut encoder, &catalogue::PROCESS_OPEN_FDS, usage.descriptors)?;
        gauge(&mut encoder, &catalogue::PROCESS_MAX_FDS, getrlimit(Resource::Nofile).current)?;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        begin(&mut encoder, &catalogue::PROCESS_START_TIME)?.encode_gauge(&started)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, metric: &'static Metric, value: Option<u64>) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    begin(encoder, metric)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}
