//! The orphans of the app: its processes whose parents have ended, which become children of pulsegate.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use crate::platform::process_family::{ZombieChild, zombies};

/// The pause before looking again at children for which others wait.
const PAUSE: Duration = Duration::from_millis(20);

/// The time that another thread has to wait for a child that it may have started.
const STARTER: Duration = Duration::from_secs(1);

/// Waits for the orphans that have ended, which would be left to the first process of the machine or container.
pub(super) fn sweep(leader: Pid) {
    for ZombieChild { id, leads_group } in zombies().unwrap_or_default() {
        if let Some(child) = Pid::from_raw(id).filter(|child| *child != leader && !leads_group) {
            // The thread that reaps may have waited for it meanwhile.
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

/// Waits for all children that have ended, until there are none, except for the app's first process.
///
/// Another thread may have started a program, such as a browser, and wait for it. Such a child is left to it for a while.
pub(super) fn reap(leader: Pid) {
    let mut left: BTreeMap<i32, Instant> = BTreeMap::new();
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) | Err(Errno::INTR) => {}
            // No child is left.
            Err(_) => return,
        }
        let zombies = zombies().unwrap_or_default();
        left.retain(|id, _| zombies.iter().any(|zombie| zombie.id == *id));
        let mut reaped = 0;
        for ZombieChild { id, leads_group } in zombies {
            let since = left.entry(id).or_insert_with(Instant::now);
            let Some(child) = Pid::from_raw(id).filter(|child| *child != leader) else { continue };
            if leads_group && since.elapsed() < STARTER {
                continue;
            }
            if waitpid(Some(child), WaitOptions::NOHANG).is_ok_and(|waited| waited.is_some()) {
                reaped += 1;
            }
        }
        if reaped == 0 {
            thread::sleep(PAUSE);
        }
    }
}
