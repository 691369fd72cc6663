//! The wait until the app listens, with a line of progress and a diagnosis.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::address::leads_to_another;
use super::diagnosis::{Diagnosis, Sight, StoppedProcess, Turnover, diagnose};
use super::exit::AppExit;
use super::process::AppProcess;
use crate::config::UpstreamTarget;
use crate::platform::process_family::{self, FamilySnapshot, ListeningSocket};

/// The time after which a line reports that the app is waited for.
const PROGRESS: Duration = Duration::from_secs(2);

/// The time after which the app is diagnosed, and then each time that the diagnosis changes. One that is stopped is
/// diagnosed at once.
const DIAGNOSIS: Duration = Duration::from_secs(10);

/// The interval of attempts to connect.
const ATTEMPTS: Duration = Duration::from_millis(50);

/// The time limit of one attempt.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The interval of looking at the app's processes.
const LOOKS: Duration = Duration::from_millis(250);

/// The target of log lines about the app.
const LOG: &str = "pulsegate::child";

/// The result of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The app accepts connections.
    Listening,
    /// The app has ended.
    Exited(AppExit),
    /// The wait was cancelled.
    Cancelled,
}

/// The subject of a wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// The app.
    pub app: &'a AppProcess,
    /// The address at which it should listen.
    pub address: &'a UpstreamTarget,
    /// The flag that names another address.
    pub flag: &'a str,
}

/// Waits until the app accepts connections, however long that takes, until it ends, or until `cancelled` completes.
pub async fn until_listening(wait: Wait<'_>, cancelled: impl Future<Output = ()>) -> Readiness {
    tokio::select! {
        biased;
        exit = wait.app.exited() => Readiness::Exited(exit),
        () = cancelled => Readiness::Cancelled,
        () = connected(wait.address) => {
            warn_if_exposed(wait);
            Readiness::Listening
        }
        never = report(wait) => match never {},
    }
}

/// Completes once `address` accepts a connection.
async fn connected(address: &UpstreamTarget) {
    loop {
        let is_accepted = match address {
            UpstreamTarget::Tcp { host, port } => accepts(host, *port).await,
            UpstreamTarget::Unix(path) => UnixStream::connect(path).await.is_ok(),
        };
        if is_accepted {
            return;
        }
        sleep(ATTEMPTS).await;
    }
}

async fn accepts(host: &str, port: u16) -> bool {
    let attempt = timeout(ATTEMPT, TcpStream::connect((host, port))).await;
    let Ok(Ok(stream)) = attempt else { return false };
    leads_to_another(stream.local_addr(), stream.peer_addr())
}

/// Logs the progress, and a diagnosis whenever it changes.
async fn report(wait: Wait<'_>) -> Infallible {
    let began = Instant::now();
    sleep_until(began + PROGRESS).await;
    tracing::info!(target: LOG, upstream = %wait.address, waited_s = PROGRESS.as_secs(), "app.starting");
    let mut turnover = Turnover::default();
    let mut last: Option<Diagnosis> = None;
    loop {
        let family = process_family::read(wait.app.id());
        if let Some(family) = &family {
            turnover.see(family);
        }
        let stopped = StoppedProcess::of(family.as_ref(), wait.app.id(), wait.app.stopped_by());
        if began.elapsed() >= DIAGNOSIS || stopped.is_some() {
            let seen = family.map(|family| Sight { listening: process_family::listening(&family), family });
            let diagnosis = diagnose(wait.address, seen.as_ref(), stopped.as_ref(), &turnover, wait.flag);
            if last.as_ref().is_none_or(|last| last.mend != diagnosis.mend) {
                let Diagnosis { reason, mend } = &diagnosis;
                tracing::warn!(target: LOG, reason, mend, waited_s = began.elapsed().as_secs(), "app.not_listening");
                last = Some(diagnosis);
            }
        }
        sleep(LOOKS).await;
    }
}

/// Logs a warning if other machines can reach the app without the proxy.
fn warn_if_exposed(wait: Wait<'_>) {
    let UpstreamTarget::Tcp { port: wanted, .. } = wait.address else { return };
    let listening = process_family::read(wait.app.id()).map(|family| process_family::listening(&family));
    let exposed = listening.iter().flatten().find_map(|socket| match socket {
        ListeningSocket::Tcp(address) if is_exposed(*address, *wanted) => Some(address),
        _ => None,
    });
    if let Some(address) = exposed {
        let reason = "it listens on all addresses, by which clients can bypass the proxy";
        tracing::warn!(target: LOG, %address, reason, mend = "make it listen on process.env.HOST", "app.exposed");
    }
}

fn is_exposed(address: SocketAddr, wanted: u16) -> bool {
    address.port() == wanted && address.ip().is_unspecified()
}

/// Logs the end of the app.
pub fn report_exit(exit: AppExit) {
    tracing::info!(target: LOG, exit = exit.code(), "app.exited");
}

/// Logs that the app has ended before it listened at `address`.
pub fn report_early_exit(exit: AppExit, address: &UpstreamTarget, mend: &str) {
    let reason = format!("it {exit} before it listened on {address}");
    tracing::error!(target: LOG, reason, mend, "app.not_started");
}

/// Logs that the app's first process has ended as asked by nobody, and has left others running, which are ended now.
pub fn report_left_behind(exit: AppExit, left: &FamilySnapshot) {
    let names: Vec<String> = left.iter().map(|(id, process)| format!("{} ({id})", process.name)).collect();
    let reason = format!("its first process {exit} and left {} running in the background", names.join(", "));
    let mend = "start it in the foreground, without `&`, `--daemon` or `pm2 start`: pulsegate ends together with it";
    tracing::warn!(target: LOG, reason, mend, "app.in_background");
}
