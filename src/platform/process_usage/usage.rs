//! The resources of a process.

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

/// Returns the open descriptors that `folder` lists, without the one that is open while they are counted.
pub(super) fn descriptors(folder: &str) -> Option<u64> {
    let count = std::fs::read_dir(folder).ok()?.count();
    Some(count.saturating_sub(1) as u64)
}
