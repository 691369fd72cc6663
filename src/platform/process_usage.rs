//! The resources that this process uses.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;
mod usage;

pub use usage::ProcessUsage;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
use portable as system;

/// Reads the resources that this process uses now.
pub fn read() -> ProcessUsage {
    system::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_follows_the_process() {
        let before = read();
        let held: Vec<_> = (0..50).map(|_| tempfile::tempfile().expect("a file")).collect();
        let after = read();
        assert!(after.processor_seconds >= before.processor_seconds && after.processor_seconds.is_some());
        // Other tests open and close descriptors at the same time, but not as many as these.
        assert!(after.descriptors.is_some_and(|count| count >= held.len() as u64), "{after:?}");
    }
}
