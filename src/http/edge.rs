//! The state that all client connections of one worker share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::worker_config::WorkerConfig;
use crate::generation::CurrentGeneration;
use crate::registry::Registry;
use crate::suspension::Expiry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otel::Spans;
use crate::upgrade::Sessions;

/// The time for which a draining proxy keeps a connection that has nothing to do, or that is still shaking hands, if the
/// window is that long. What its client has sent before it could know is answered rather than reset, and the answer
/// announces the end.
pub(crate) const KEPT: Duration = Duration::from_secs(3);

/// The shared state of all client connections of one worker.
#[derive(Debug)]
pub struct Edge {
    current: Arc<CurrentGeneration>,
    /// The rules of the generation that was in force at the last look.
    rules: ArcSwap<WorkerConfig>,
    pub(super) sessions: Sessions,
    pub(super) metrics: Arc<Metrics>,
    pub(super) spans: Spans,
    pub(super) tracker: TaskTracker,
    pub(super) draining: CancellationToken,
}

impl Edge {
    /// The edge of one worker, under the settings in force. Its tasks run in `tracker`, from now on; once `draining` is
    /// cancelled, connections end after the request in hand, or the next one if that comes soon, upgrades are refused
    /// and idle upstream connections are closed.
    pub fn new(
        current: &Arc<CurrentGeneration>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        spans: Spans,
        tracker: TaskTracker,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let rules = WorkerConfig::new(&current.load(), None, &metrics, &tracker, &draining);
        let edge = Arc::new(Self {
            current: Arc::clone(current),
            rules: ArcSwap::from_pointee(rules),
            sessions: Sessions::new(registry, Arc::clone(&metrics), tracker.clone()),
            metrics,
            spans,
            tracker,
            draining,
        });
        edge.tracker.spawn(Arc::clone(&edge).follow_generations());
        edge
    }

    /// Returns the rules in force.
    pub(super) fn rules(&self) -> Arc<WorkerConfig> {
        let (rules, generation) = (self.rules.load(), self.current.load());
        if rules.generation == generation.number {
            return Guard::into_inner(rules);
        }
        let renewed =
            Arc::new(WorkerConfig::new(&generation, Some(&rules), &self.metrics, &self.tracker, &self.draining));
        self.rules.store(Arc::clone(&renewed));
        rules.retire(&renewed);
        renewed
    }

    /// Replaces the rules of earlier generations, and closes the pools of apps that are gone, also on a worker without
    /// requests.
    async fn follow_generations(self: Arc<Self>) {
        let mut changes = self.current.changes();
        loop {
            tokio::select! {
                () = self.draining.cancelled() => return,
                Ok(()) = changes.changed() => drop(self.rules()),
            }
        }
    }

    /// Completes when a connection of HTTP/1.1 is to end as soon as it has nothing to do.
    pub(super) async fn closing(&self) {
        self.draining.cancelled().await;
        let window = self.current.load().settings.drain.window;
        Expiry::after(window.min(KEPT)).await;
    }
}
