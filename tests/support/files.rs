//! Open files: a test with many connections needs more of them than a shell usually gives.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as it goes, for this process and those that it starts; fails if that is less than `needed`.
pub(crate) fn raise_the_limit_of_open_files(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may be raised to the hard one");
    let enough = limit.current.is_none_or(|files| files >= needed);
    assert!(enough, "too few open files, {:?}: raise the limit with ulimit -Hn {needed}", limit.current);
}
