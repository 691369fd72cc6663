//! The running app: waiting for its end, and bringing it about.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, test_kill_process_group, waitpid,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::exit::AppExit;
use super::orphans;
use super::terminal_input::TerminalGuard;
use crate::platform::process_family::{self, FamilySnapshot, zombies};

/// The shortest and the longest interval of looking whether the last process of the app has ended.
const LOOKS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

/// The time for the kernel to end killed processes.
const KILLED: Duration = Duration::from_secs(2);

/// The time for processes to follow the first one, before they are called left behind.
const FOLLOW: Duration = Duration::from_millis(300);

/// The number of rounds in which processes that have started meanwhile get a signal, too.
const ROUNDS: usize = 3;

/// The app's first process and all that descends from it; they are killed on drop.
#[derive(Debug)]
pub struct AppProcess {
    leader: Pid,
    exit: watch::Receiver<Option<AppExit>>,
    stopped_by: Arc<AtomicU8>,
    /// Restores the terminal on drop.
    _terminal: Option<TerminalGuard>,
}

impl AppProcess {
    /// Takes over the child with this id, which leads a process group. `on_exit` is called before anything else learns of
    /// the exit, `afterwards` after that.
    pub(super) fn watch(
        id: u32,
        terminal: Option<TerminalGuard>,
        on_exit: impl FnOnce(AppExit) + Send + 'static,
        afterwards: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let leader = Pid::from_raw(id.cast_signed()).ok_or_else(|| io::Error::other("no process has the id 0"))?;
        let (ended, exit) = watch::channel(None);
        let stopped_by = Arc::<AtomicU8>::default();
        let process = Self { leader, exit, stopped_by: Arc::clone(&stopped_by), _terminal: terminal };
        // Without a look at its children, the first process of a container waits for whichever ends.
        let sees_orphans = zombies().is_some();
        let waits_for_any = !sees_orphans && getpid().is_init();
        thread::Builder::new().name("app".to_owned()).spawn(move || {
            let mut calls = Some((on_exit, afterwards));
            wait(leader, waits_for_any, &stopped_by, |exit| {
                let Some((on_exit, afterwards)) = calls.take() else { return };
                on_exit(exit);
                ended.send_replace(Some(exit));
                afterwards();
            });
        })?;
        if sees_orphans {
            thread::Builder::new().name("reaper".to_owned()).spawn(move || orphans::reap(leader))?;
        }
        Ok(process)
    }

    /// Returns its process id, which is that of its group.
    pub fn id(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Returns the number of the signal that has stopped the first process, if it is stopped.
    pub fn stopped_by(&self) -> Option<u8> {
        Some(self.stopped_by.load(Ordering::Relaxed)).filter(|signal| *signal > 0)
    }

    /// Completes once its first process has ended. Others may live on.
    pub async fn exited(&self) -> AppExit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match ended {
            Some(exit) => exit,
            // The thread that waits has panicked, which has been reported.
            None => std::future::pending().await,
        }
    }

    /// Waits a moment for the processes that the first one, which has ended, left behind. Returns those that live on.
    pub async fn left_behind(&self) -> FamilySnapshot {
        // An end together with the first process takes its time as well.
        let _ = timeout(FOLLOW, self.gone()).await;
        self.family().unwrap_or_default()
    }

    /// Ends all processes: SIGTERM, and SIGKILL to what is left after `grace` or once `insisted` completes. Returns the end of
    /// the app's first process.
    pub async fn stop(&self, grace: Duration, insisted: impl Future<Output = ()>) -> AppExit {
        self.signal(Signal::TERM);
        // A stopped process takes no other signal.
        self.signal(Signal::CONT);
        tokio::select! {
            biased;
            exit = self.gone() => {
                orphans::sweep(self.leader);
                return exit;
            }
            () = insisted => tracing::warn!(target: "pulsegate::child", reason = "a second signal", "app.killed"),
            () = sleep(grace) => tracing::warn!(target: "pulsegate::child", reason = "its grace is over", grace_s = grace.as_secs_f64(), "app.killed"),
        }
        let killed = async {
            while self.has_processes() {
                self.signal(Signal::KILL);
                sleep(LOOKS[0]).await;
            }
            self.exited().await
        };
        let known = || self.exit.borrow().unwrap_or(AppExit::Signal(9));
        let exit = timeout(KILLED, killed).await.unwrap_or_else(|_| known());
        orphans::sweep(self.leader);
        exit
    }

    /// Completes once no process is left.
    async fn gone(&self) -> AppExit {
        let exit = self.exited().await;
        let [mut pause, longest] = LOOKS;
        while self.has_processes() {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        exit
    }

    fn has_processes(&self) -> bool {
        match self.family() {
            Some(family) => !family.is_empty(),
            // A group whose processes run as another user exists as well.
            None => test_kill_process_group(self.leader) != Err(Errno::SRCH),
        }
    }

    fn family(&self) -> Option<FamilySnapshot> {
        process_family::read(self.id())
    }

    /// Sends a signal to the group of the first process, and to each other process once.
    fn signal(&self, signal: Signal) {
        // A process may have ended in the meantime.
        let _ = kill_process_group(self.leader, signal);
        let mut sent = BTreeSet::new();
        for _ in 0..ROUNDS {
            let family = self.family().unwrap_or_default();
            let elsewhere = family.iter().filter(|(_, process)| process.group != self.id()).map(|(id, _)| *id);
            let more: Vec<i32> = elsewhere.filter(|id| sent.insert(*id)).collect();
            if more.is_empty() {
                return;
            }
            for process in more.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(process, signal);
            }
        }
    }
}

impl Drop for AppProcess {
    fn drop(&mut self) {
        if self.has_processes() {
            self.signal(Signal::KILL);
        }
    }
}

/// Waits for the end of the first process, or with `any` for the end of all children. Stores the signal that stops the
/// first one meanwhile.
fn wait(leader: Pid, any: bool, stopped_by: &AtomicU8, mut on_end: impl FnMut(AppExit)) {
    let options = WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    loop {
        let waited = if any { rustix::process::wait(options) } else { waitpid(Some(leader), options) };
        match waited {
            Ok(Some((id, status))) if id == leader => {
                if status.stopped() || status.continued() {
                    let signal = status.stopping_signal().and_then(|signal| u8::try_from(signal).ok());
                    stopped_by.store(signal.unwrap_or_default(), Ordering::Relaxed);
                    continue;
                }
                on_end(AppExit::of(status));
                if !any {
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            // No child is left.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::atomic::AtomicBool;

    use super::super::command::AppCommand;
    use super::*;
    use crate::config::UpstreamTarget;

    #[tokio::test]
    async fn the_end_is_reported_before_anything_else_learns_of_it() {
        let command = AppCommand::of(&["sh", "-c", "exit 3"].map(OsString::from)).expect("a program");
        let address = UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: 1 };
        let reported = Arc::<AtomicBool>::default();
        let report = Arc::clone(&reported);
        let on_exit = move |_| {
            thread::sleep(Duration::from_millis(200));
            report.store(true, Ordering::Relaxed);
        };
        let app = command.start(&address, on_exit, || {});
        let exit = app.expect("it starts").exited().await;
        assert_eq!((exit, reported.load(Ordering::Relaxed)), (AppExit::Code(3), true));
    }
}
