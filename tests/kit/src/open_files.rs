//! The limit of open files: a test with many connections needs more than the usual soft limit.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, for this process and those that it starts; fails if that is below `needed`.
pub fn raise_open_file_limit(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may be raised to the hard one");
    let enough = limit.current.is_none_or(|files| files >= needed);
    assert!(enough, "too few open files, {:?}: raise the limit with ulimit -Hn {needed}", limit.current);
}
