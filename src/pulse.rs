//! The app's own heartbeat, driven: asks the watch what to do, and one session in turn to do it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::heartbeat::{Tick, UpstreamPolicy, UpstreamPulse, Watch};
use crate::registry::{ConnId, Registry};
use crate::relay::Order;

/// Keeps one upstream process under watch, for all workers. A miss is told and the sessions are held; only an app that
/// has been silent for `give_up` costs its clients their connections.
pub(crate) async fn keep(policy: UpstreamPolicy, pulse: &UpstreamPulse, registry: &Registry) -> Infallible {
    let mut watch = Watch::new(policy, now());
    let Some(period) = watch.period() else { return std::future::pending().await };
    // A timer counts in milliseconds, and not below one.
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        perform(watch.tick(now(), pulse, !registry.is_empty()), registry, &mut last);
    }
}

/// Does what `tick` asks for; `last` is the session that was asked last.
fn perform(tick: Tick, registry: &Registry, last: &mut Option<ConnId>) {
    match tick {
        Tick::Wait => {}
        Tick::Probe => {
            if let Some((id, control)) = registry.after(*last) {
                *last = Some(id);
                control.give(Order::ProbeUpstream);
            }
        }
        Tick::Missed { silent } => {
            tracing::warn!(silent_s = silent.as_secs_f64(), sessions = registry.len(), "upstream.unresponsive");
        }
        Tick::Recovered => tracing::info!("upstream.recovered"),
        Tick::GiveUp { silent } => {
            let sessions = registry.all();
            tracing::error!(silent_s = silent.as_secs_f64(), sessions = sessions.len(), "upstream.given_up");
            for control in sessions {
                control.give(Order::UpstreamUnresponsive);
            }
        }
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::Entry;
    use crate::relay::Control;

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: UpstreamPolicy =
        UpstreamPolicy { interval: Some(Duration::from_secs(4)), timeout: SECOND, give_up: Duration::from_secs(10) };

    /// Some sessions of one upstream; the relay alone may take an order, from outside one can only look.
    struct Scene {
        registry: Arc<Registry>,
        pulse: UpstreamPulse,
        sessions: Vec<(Arc<Control>, Entry)>,
    }

    impl Scene {
        fn new(count: usize) -> Self {
            let registry = Arc::new(Registry::new(1));
            let enter = |_| {
                let control = Arc::new(Control::default());
                let entry = registry.enter(registry.next_id(), Arc::clone(&control));
                (control, entry)
            };
            let sessions = (0..count).map(enter).collect();
            Self { registry, pulse: UpstreamPulse::new(now()), sessions }
        }

        fn with(&self, order: Order) -> Vec<bool> {
            let order = format!("Some({order:?})");
            self.sessions.iter().map(|(control, _)| format!("{control:?}").contains(&order)).collect()
        }

        /// Watches while `story` is told.
        async fn watched(&self, policy: UpstreamPolicy, story: impl Future<Output = ()>) {
            tokio::select! {
                never = keep(policy, &self.pulse, &self.registry) => match never {},
                () = story => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_app_is_asked_on_one_session_and_then_on_the_next() {
        let scene = Scene::new(3);
        let story = async {
            tokio::time::sleep(SECOND * 7 / 2).await;
            assert_eq!(scene.with(Order::ProbeUpstream), [false; 3], "not yet quiet for long enough");
            tokio::time::sleep(SECOND).await;
            assert_eq!(scene.with(Order::ProbeUpstream), [true, false, false]);
            // That session did not get round to it.
            tokio::time::sleep(SECOND * 5 / 4).await;
            assert_eq!(scene.with(Order::ProbeUpstream), [true, true, false]);
        };
        scene.watched(POLICY, story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_app_holds_its_sessions_until_it_is_given_up() {
        let scene = Scene::new(2);
        let story = async {
            tokio::time::sleep(SECOND * 9 / 2).await;
            scene.pulse.probe_left(now());
            tokio::time::sleep(SECOND * 5).await;
            assert_eq!(scene.with(Order::UpstreamUnresponsive), [false; 2], "silent for 9.5 s of 10");
            tokio::time::sleep(SECOND).await;
            assert_eq!(scene.with(Order::UpstreamUnresponsive), [true; 2]);
        };
        scene.watched(POLICY, story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_when_it_is_off() {
        let scene = Scene::new(1);
        let off = UpstreamPolicy { interval: None, ..POLICY };
        scene.watched(off, tokio::time::sleep(SECOND * 100)).await;
        assert_eq!(scene.with(Order::ProbeUpstream), [false]);
    }
}
