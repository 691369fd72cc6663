//! The usage by POSIX: a clock that counts the processor time of the process, and a folder of its descriptors.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::usage::{ProcessUsage, descriptors};

pub(super) fn now() -> ProcessUsage {
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok();
    ProcessUsage {
        processor_seconds: used.map(|used| used.as_secs_f64()),
        descriptors: descriptors("/dev/fd"),
        ..ProcessUsage::default()
    }
}
