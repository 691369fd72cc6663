//! Keeps an eye on the app itself: drives the watch that probes it through one session at a time.

use tokio::time::{Instant, sleep};

use crate::heartbeat::{Tick, UpstreamPolicy, UpstreamPulse, Watch};
use crate::registry::{ConnId, Registry};
use crate::relay::Order;
use crate::telemetry::metrics::Metrics;

/// Watches the app for as long as the future is polled; ends at once where the policy turns the watch off.
pub async fn watch(policy: UpstreamPolicy, pulse: &UpstreamPulse, registry: &Registry, metrics: &Metrics) {
    let mut watch = Watch::new(policy, now());
    let Some(period) = watch.period() else { return };
    let mut last: Option<ConnId> = None;
    loop {
        sleep(period).await;
        match watch.tick(now(), pulse, !registry.is_empty()) {
            Tick::Wait => {}
            Tick::Probe => {
                if let Some((id, session)) = registry.after(last) {
                    session.give(Order::ProbeUpstream);
                    last = Some(id);
                }
            }
            Tick::Missed { silent } => {
                metrics.upstream_missed();
                tracing::warn!(silent_s = silent.as_secs_f64(), sessions = registry.len(), "upstream.unresponsive");
            }
            Tick::Recovered => tracing::info!("upstream.recovered"),
            Tick::GiveUp { silent } => {
                let sessions = registry.all();
                tracing::error!(silent_s = silent.as_secs_f64(), sessions = sessions.len(), "upstream.given_up");
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_app_is_probed_through_its_sessions_in_turn_and_given_up() {
        let registry = Arc::new(Registry::new(1));
        let controls: Vec<_> = (0..3).map(|_| Arc::new(crate::relay::Control::default())).collect();
        let entries: Vec<_> =
            controls.iter().map(|control| registry.enter(registry.next_id(), Arc::clone(control))).collect();
        let (pulse, metrics) = (UpstreamPulse::new(now()), Metrics::new());
        let mut watching = std::pin::pin!(watch(UpstreamPolicy::default(), &pulse, &registry, &metrics));
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
        let probed: Vec<_> =
            orders.iter().filter(|(_, order)| *order == Order::ProbeUpstream).map(|(s, _)| *s).collect();
        assert!(probed.starts_with(&[0, 1, 2, 0]), "one at a time, in turn: {orders:?}");
        let given_up = orders.iter().filter(|(_, order)| *order == Order::UpstreamUnresponsive).count();
        assert_eq!(given_up, 3, "every session is told once: {orders:?}");
    }
}
