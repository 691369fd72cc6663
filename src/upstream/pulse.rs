//! Keeps an eye on the app itself: drives the watch that probes it through one session at a time.

use std::convert::Infallible;
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use crate::config::Upstream;
use crate::generation::Current;
use crate::heartbeat::{Tick, UpstreamPulse, Watch};
use crate::registry::{ConnId, Registry};
use crate::relay::Order;
use crate::telemetry::metrics::Metrics;

/// Watches every app of every generation, each once, as [`watch`].
pub async fn watch_all(current: &Current, registry: &Registry, metrics: &Metrics) -> Infallible {
    let mut changes = current.changes();
    let mut known: Vec<Weak<UpstreamPulse>> = Vec::new();
    let mut watches = FuturesUnordered::new();
    loop {
        known.retain(|pulse| pulse.strong_count() > 0);
        for app in &current.load().apps {
            let pulse = Arc::downgrade(app.pulse());
            if !known.iter().any(|other| other.ptr_eq(&pulse)) {
                known.push(Weak::clone(&pulse));
                watches.push(watch(Arc::clone(app.settings()), pulse, registry, metrics));
            }
        }
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => break,
                Some(()) = watches.next() => {}
            }
        }
    }
}

/// Watches the app with these `settings` through its sessions among those of `registry`, for as long as anybody else has
/// its `pulse`: no generation in force has the app any more then, and no session is left. Ends at once where the policy
/// turns the watch off.
pub async fn watch(settings: Arc<Upstream>, pulse: Weak<UpstreamPulse>, registry: &Registry, metrics: &Metrics) {
    let settings = &settings;
    let mut watch = Watch::new(settings.heartbeat, now());
    let Some(period) = watch.period() else { return };
    let mut last: Option<ConnId> = None;
    loop {
        sleep(period).await;
        let Some(pulse) = pulse.upgrade() else { return };
        let pulse = &*pulse;
        match watch.tick(now(), pulse, registry.after(None, pulse).is_some()) {
            Tick::Wait => {}
            Tick::Probe => {
                if let Some((id, session)) = registry.after(last, pulse) {
                    session.give(Order::ProbeUpstream);
                    last = Some(id);
                }
            }
            Tick::Missed { silent } => {
                metrics.upstream_missed();
                let sessions = registry.of(pulse).len();
                tracing::warn!(upstream = %settings, silent_s = silent.as_secs_f64(), sessions, "upstream.unresponsive");
            }
            Tick::Recovered => tracing::info!(upstream = %settings, "upstream.recovered"),
            Tick::GiveUp { silent } => {
                let sessions = registry.of(pulse);
                let silent_s = silent.as_secs_f64();
                tracing::error!(upstream = %settings, silent_s, sessions = sessions.len(), "upstream.given_up");
                for session in sessions {
                    session.give(Order::UpstreamUnresponsive);
                }
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::App;
    use super::*;
    use crate::config::Target;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_app_is_probed_through_its_sessions_in_turn_and_given_up() {
        let registry = Arc::new(Registry::new(1));
        let settings = Arc::new(Upstream::at(Target::Unix("/app.sock".into())));
        let [app, other] = [(); 2].map(|()| App::open(&settings, now()).expect("there is nothing to read"));
        let pulse = app.pulse();
        let controls: Vec<_> = (0..3).map(|_| Arc::new(crate::relay::Control::default())).collect();
        let entries: Vec<_> =
            controls.iter().map(|control| registry.enter(registry.next_id(), Arc::clone(control), pulse)).collect();
        let of_another_app = Arc::new(crate::relay::Control::default());
        let _entry = registry.enter(registry.next_id(), Arc::clone(&of_another_app), other.pulse());
        let metrics = Metrics::new();
        let mut watching = std::pin::pin!(watch(Arc::clone(&settings), Arc::downgrade(pulse), &registry, &metrics));
        let began = Instant::now();
        let mut orders = Vec::new();
        while began.elapsed() < 90 * SECOND {
            let _ = tokio::time::timeout(SECOND, &mut watching).await;
            for (session, control) in controls.iter().enumerate() {
                if let Some(order) = control.take() {
                    if order == Order::ProbeUpstream {
                        pulse.probe_left(now());
                    }
                    orders.push((session, order));
                }
            }
        }
        drop(entries);
        assert_eq!(of_another_app.take(), None, "another app is another matter");
        let probed: Vec<_> =
            orders.iter().filter(|(_, order)| *order == Order::ProbeUpstream).map(|(s, _)| *s).collect();
        assert!(probed.starts_with(&[0, 1, 2, 0]), "one at a time, in turn: {orders:?}");
        let given_up = orders.iter().filter(|(_, order)| *order == Order::UpstreamUnresponsive).count();
        assert_eq!(given_up, 3, "every session is told once: {orders:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_watched_until_nobody_has_it_any_more() {
        let registry = Arc::new(Registry::new(1));
        let app = App::open(&Arc::new(Upstream::at(Target::Unix("/app.sock".into()))), now()).expect("nothing to read");
        let entry = registry.enter(registry.next_id(), Arc::default(), app.pulse());
        let (settings, pulse) = (Arc::clone(app.settings()), Arc::downgrade(app.pulse()));
        let metrics = Metrics::new();
        let mut watching = std::pin::pin!(watch(settings, pulse, &registry, &metrics));
        drop(app);
        let left = tokio::time::timeout(600 * SECOND, &mut watching).await;
        left.expect_err("a session is open still");
        drop(entry);
        tokio::time::timeout(600 * SECOND, watching).await.expect("the last session has ended");
    }
}
