//! What this process uses of its machine.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// The resources in use at one moment; `None` is not known.
///
/// Portable: processor time and open descriptors alone are known; memory and threads are not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// Processor time since the start, of user and system, in seconds.
    pub processor_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
}

impl ProcessUsage {
    /// Reads the usage of this process now.
    pub fn now() -> Self {
        system::now()
    }
}

/// Returns the open descriptors that `folder` lists, without the one that is open while they are counted.
fn descriptors(folder: &str) -> Option<u64> {
    let count = std::fs::read_dir(folder).ok()?.count();
    Some(count.saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_follows_the_process() {
        let before = ProcessUsage::now();
        let held: Vec<_> = (0..50).map(|_| tempfile::tempfile().expect("a file")).collect();
        let after = ProcessUsage::now();
        assert!(after.processor_seconds >= before.processor_seconds && after.processor_seconds.is_some());
        // Other tests open and close descriptors at the same time, but not as many as these.
        assert!(after.descriptors.is_some_and(|count| count >= held.len() as u64), "{after:?}");
    }
}
