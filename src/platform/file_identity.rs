//! The identity of a file: whether a path still leads to the same one.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub use linux::FileIdentity;
#[cfg(any(feature = "portable", not(target_os = "linux")))]
pub use portable::FileIdentity;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_successor_at_the_same_path_is_another_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let first = UnixListener::bind(&path).expect("bind");
        let identity = FileIdentity::of(&path).expect("it exists");
        assert!(identity.is_at(&path).expect("it exists"));
        drop(first);
        assert!(identity.is_at(&path).expect("a socket's file outlives it"));
        fs::rename(&path, dir.path().join("elsewhere")).expect("rename");
        assert!(identity.is_at(&path).is_err(), "nothing is there");
        let _second = UnixListener::bind(&path).expect("bind");
        assert!(!identity.is_at(&path).expect("it exists"));
    }
}
