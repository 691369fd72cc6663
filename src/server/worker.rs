//! One worker: a thread with a runtime and listeners of its own.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::{ABORT_GRACE, Listeners, Shared, runtime};
use crate::accept::{Accept, ListenerLimits};
use crate::http::Peer;
use crate::redirect::Redirect;
use crate::relay::SessionOrder;
use crate::session::Abort;
use crate::suspension::with_pause_record;
use crate::tls::ClientLeg;

/// Starts one worker thread; the receiver returns its result.
pub(super) fn start<S, N, F>(
    index: usize,
    listeners: Listeners,
    shared: &Arc<Shared>,
    stage: S,
) -> Result<oneshot::Receiver<Result<(), io::Error>>, io::Error>
where
    S: Fn(&Shared, TaskTracker, CancellationToken) -> N + Send + 'static,
    N: Fn(ClientLeg, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (ended, end) = oneshot::channel();
    let shared = Arc::clone(shared);
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A panic drops `ended` unsent, which the receiver reports as a lost worker.
        let _ = ended.send(work(listeners, &shared, stage));
    })?;
    Ok(end)
}

/// Runs one worker: accepts, drains, and releases its sessions.
fn work<S, N, F>(listeners: Listeners, shared: &Shared, stage: S) -> Result<(), io::Error>
where
    S: FnOnce(&Shared, TaskTracker, CancellationToken) -> N,
    N: Fn(ClientLeg, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime()?;
    let result = runtime.block_on(with_pause_record(async {
        let listener = TcpListener::from_std(listeners.tls)?;
        let plain = listeners.redirect.map(TcpListener::from_std).transpose()?;
        let tracker = TaskTracker::new();
        let draining = shared.shutdown.draining().clone();
        let next = stage(shared, tracker.clone(), draining.clone());
        let accept = accept_stage(shared, &tracker);
        shared.startup.worker_ready();
        let redirect = async {
            if let Some(plain) = plain {
                redirect_stage(shared, &tracker).run(plain, draining.clone()).await;
            }
        };
        tokio::join!(accept.run(listener, draining.clone(), next), redirect);
        tracker.close();
        tokio::select! {
            () = tracker.wait() => {}
            () = shared.shutdown.aborting().cancelled() => {
                // Each remaining session is reset and logs its end; remaining requests are dropped.
                for session in shared.registry.all() {
                    session.give(SessionOrder::Abort(Abort::Drain));
                }
                let _ = tokio::time::timeout(ABORT_GRACE / 2, tracker.wait()).await;
            }
        }
        Ok(())
    }));
    // Name resolution may still run on a thread of its own; its result is no longer needed.
    runtime.shutdown_background();
    result
}

fn accept_stage(shared: &Shared, tracker: &TaskTracker) -> Accept {
    Accept {
        limits: listener_limits(shared, shared.current.load().terminator.is_some()),
        current: Arc::clone(&shared.current),
        metrics: Arc::clone(&shared.metrics),
        tracker: tracker.clone(),
    }
}

fn redirect_stage(shared: &Shared, tracker: &TaskTracker) -> Redirect {
    Redirect {
        limits: listener_limits(shared, false),
        current: Arc::clone(&shared.current),
        ports: shared.ports,
        metrics: Arc::clone(&shared.metrics),
        tracker: tracker.clone(),
    }
}

fn listener_limits(shared: &Shared, handshakes: bool) -> ListenerLimits {
    ListenerLimits { gate: Arc::clone(&shared.gate), current: Arc::clone(&shared.current), handshakes }
}
