//! The running app: waiting for its end, and bringing it about.

use std::io;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, test_kill_process_group, wait, waitpid};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::exit::AppExit;

/// The interval of looking whether the last process of the group has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The time for the kernel to end a killed group.
const KILLED: Duration = Duration::from_secs(2);

/// The app's process and its group; both are killed on drop.
#[derive(Debug)]
pub struct AppProcess {
    leader: Pid,
    exit: watch::Receiver<Option<AppExit>>,
}

impl AppProcess {
    /// Takes over the child with this id, which leads a process group.
    pub(super) fn watch(id: u32, on_exit: impl FnOnce(AppExit) + Send + 'static) -> io::Result<Self> {
        let leader = Pid::from_raw(id.cast_signed()).ok_or_else(|| io::Error::other("no process has the id 0"))?;
        let (ended, exit) = watch::channel(None);
        let process = Self { leader, exit };
        thread::Builder::new().name("reaper".to_owned()).spawn(move || reap(leader, &ended, on_exit))?;
        Ok(process)
    }

    /// Returns its process id, which is that of its group.
    pub fn id(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Completes once its process has ended. Others of its group may live on.
    pub async fn exited(&self) -> AppExit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match ended {
            Some(exit) => exit,
            // The thread that waits has panicked, which has been reported.
            None => std::future::pending().await,
        }
    }

    /// Ends the group: SIGTERM, and SIGKILL to what is left after `grace` or once `insisted` completes. Returns the end of
    /// the app's process.
    pub async fn stop(&self, grace: Duration, insisted: impl Future<Output = ()>) -> AppExit {
        self.signal(Signal::TERM);
        // A stopped process takes no other signal.
        self.signal(Signal::CONT);
        tokio::select! {
            biased;
            exit = self.gone() => return exit,
            () = insisted => tracing::warn!(target: "pulsegate::child", reason = "a second signal", "app.killed"),
            () = sleep(grace) => tracing::warn!(target: "pulsegate::child", reason = "its grace is over", grace_s = grace.as_secs_f64(), "app.killed"),
        }
        self.signal(Signal::KILL);
        timeout(KILLED, self.gone()).await.unwrap_or(AppExit::Signal(9))
    }

    /// Completes once no process of the group is left.
    async fn gone(&self) -> AppExit {
        let exit = self.exited().await;
        while self.has_processes() {
            sleep(LOOK).await;
        }
        exit
    }

    fn has_processes(&self) -> bool {
        // A group whose processes run as another user exists as well.
        test_kill_process_group(self.leader) != Err(Errno::SRCH)
    }

    fn signal(&self, signal: Signal) {
        // The group may have ended in the meantime.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for AppProcess {
    fn drop(&mut self) {
        if self.has_processes() {
            self.signal(Signal::KILL);
        }
    }
}

/// Waits for the app. The first process of a container or of a PID namespace inherits every orphan there, and waits for
/// these too.
fn reap(leader: Pid, ended: &watch::Sender<Option<AppExit>>, on_exit: impl FnOnce(AppExit)) {
    let is_init = getpid().is_init();
    let mut on_exit = Some(on_exit);
    loop {
        let waited = if is_init { wait(WaitOptions::empty()) } else { waitpid(Some(leader), WaitOptions::empty()) };
        match waited {
            Ok(Some((pid, status))) if pid == leader => {
                let exit = AppExit::of(status);
                ended.send_replace(Some(exit));
                if let Some(on_exit) = on_exit.take() {
                    on_exit(exit);
                }
                if !is_init {
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            // No child is left.
            Err(_) => return,
        }
    }
}
