//! The liveness monitor of each app: pings on one session at a time, and health checks while its state is in doubt.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::App;
use super::app::Reports;
use super::check::{Check, Ended, describe};
use super::dial::Dialer;
use crate::config::{UpstreamProbe, UpstreamSettings};
use crate::generation::CurrentGeneration;
use crate::heartbeat::{HealthCheck, HealthCheckResult, LivenessMonitor, ProbeSessions, Tick, UpstreamLiveness};
use crate::registry::Registry;
use crate::relay::SessionOrder;
use crate::session::ConnId;
use crate::telemetry::metrics::Metrics;

/// The target of this module's log lines, which `log.level` names.
const TARGET: &str = "pulsegate::upstream::pulse";

/// Monitors every app of every generation, each once, while the current generation or a session holds its
/// [`UpstreamLiveness`].
pub async fn watch_all(current: &CurrentGeneration, registry: &Registry, metrics: &Metrics) -> Infallible {
    let mut changes = current.changes();
    let mut known: Vec<Weak<UpstreamLiveness>> = Vec::new();
    let mut watches = FuturesUnordered::new();
    // A reload may have changed the TLS client of an app.
    let dialer = |liveness: &Arc<UpstreamLiveness>| {
        let generation = current.load();
        let app = generation.apps.iter().find(|app| Arc::ptr_eq(app.liveness(), liveness));
        app.map(|app| app.dialer())
    };
    loop {
        known.retain(|liveness| liveness.strong_count() > 0);
        for app in &current.load().apps {
            let liveness = Arc::downgrade(app.liveness());
            if !known.iter().any(|other| other.ptr_eq(&liveness)) {
                known.push(liveness);
                watches.push(Monitor::new(app, registry, metrics).run(dialer));
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

/// The monitor of one app, with its means.
struct Monitor<'a> {
    settings: Arc<UpstreamSettings>,
    liveness: Weak<UpstreamLiveness>,
    reports: Arc<Reports>,
    dialer: Arc<Dialer>,
    registry: &'a Registry,
    metrics: &'a Metrics,
    /// The session that was pinged last.
    pinged: Option<ConnId>,
    check: Option<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// The fault of the last missed probe.
    fault: Option<String>,
    /// The time since which the app is unready; `None` while it is ready.
    outage: Option<Instant>,
}

impl<'a> Monitor<'a> {
    fn new(app: &App, registry: &'a Registry, metrics: &'a Metrics) -> Self {
        Self {
            settings: Arc::clone(app.settings()),
            liveness: Arc::downgrade(app.liveness()),
            reports: Arc::clone(&app.reports),
            dialer: Arc::new(app.dialer()),
            registry,
            metrics,
            pinged: None,
            check: None,
            fault: None,
            outage: None,
        }
    }

    /// Monitors the app while another owner holds its [`UpstreamLiveness`]. `dialer` returns the app's current dialer, or
    /// `None` if the app is not in force. If the policy turns monitoring off, nothing is sent, and outages are logged
    /// as connects fail.
    async fn run(mut self, dialer: impl Fn(&Arc<UpstreamLiveness>) -> Option<Dialer>) {
        let Some(liveness) = self.liveness.upgrade() else { return };
        let mut watch = LivenessMonitor::new(self.settings.heartbeat, now(), &liveness);
        if self.settings.probe == UpstreamProbe::Off {
            watch = watch.without_requests();
        }
        drop(liveness);
        loop {
            let Some(liveness) = self.liveness.upgrade() else { return };
            loop {
                match watch.tick(now(), &liveness, self.sessions(&liveness)) {
                    Tick::Wait => break,
                    Tick::Check(kind) => {
                        let (dialer, sessions) = (dialer(&liveness), self.sessions(&liveness));
                        if dialer.is_none() && !sessions.any {
                            // Only a worker without a request since the reload still holds it; no client is sent to
                            // this app.
                            watch.checked(HealthCheckResult::Skipped, now(), &liveness, sessions);
                            continue;
                        }
                        if let Some(dialer) = dialer {
                            self.dialer = Arc::new(dialer);
                        }
                        self.check(kind, &liveness);
                    }
                    tick => self.perform(tick, None, &liveness),
                }
            }
            let next = watch.next_tick(now(), &liveness, self.sessions(&liveness));
            if !watch.is_checking() {
                self.check = None;
            }
            drop(liveness);
            let reports = Arc::clone(&self.reports);
            let ended = async {
                match &mut self.check {
                    Some(check) => check.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // A response that has arrived is read before its deadline is checked.
                biased;
                Ended { result, fault } = ended => {
                    self.check = None;
                    let Some(liveness) = self.liveness.upgrade() else { return };
                    let tick = watch.checked(result, now(), &liveness, self.sessions(&liveness));
                    self.perform(tick, fault, &liveness);
                }
                () = reports.news.notified() => {}
                () = sleep_until(Instant::from_std(next)) => {}
            }
        }
    }

    fn sessions(&self, liveness: &UpstreamLiveness) -> ProbeSessions {
        ProbeSessions {
            any: self.registry.after(None, liveness).is_some(),
            pinged: self.pinged.is_some_and(|id| self.registry.is_open(id)),
        }
    }

    fn check(&mut self, kind: HealthCheck, liveness: &Arc<UpstreamLiveness>) {
        let (dialer, reports) = (Arc::clone(&self.dialer), Arc::clone(&self.reports));
        self.check = Some(Box::pin(Check { dialer, liveness: Arc::clone(liveness), reports, kind }.run()));
    }

    /// Performs `tick`; `fault` is the one of a check that has just ended.
    fn perform(&mut self, tick: Tick, fault: Option<String>, liveness: &UpstreamLiveness) {
        let upstream = &*self.settings;
        match tick {
            Tick::Wait | Tick::Check(_) => {}
            Tick::Probe => {
                if let Some((id, session)) = self.registry.after(self.pinged, liveness) {
                    session.give(SessionOrder::ProbeUpstream);
                    self.pinged = Some(id);
                }
            }
            Tick::Missed { by_check } => {
                self.metrics.upstream_missed();
                self.fault = Some(fault.unwrap_or_else(|| self.no_answer(by_check)));
            }
            Tick::Unready { refused: true, .. } => {
                self.outage = Some(Instant::now());
                let error = self.reports.refusal();
                tracing::warn!(target: TARGET, %upstream, error, "upstream.unreachable");
            }
            Tick::Unready { refused: false, silent } => {
                self.outage = Some(Instant::now());
                let (silent_s, sessions) = (silent.as_secs_f64(), self.registry.of(liveness).len());
                let error = self.fault.as_deref();
                tracing::warn!(target: TARGET, %upstream, silent_s, sessions, error, "upstream.unresponsive");
            }
            Tick::Recovered => {
                let outage_s = self.outage.take().map(|since| since.elapsed().as_secs_f64());
                // Also a warning, so that the end of an outage appears at the log level of its beginning.
                tracing::warn!(target: TARGET, %upstream, outage_s, "upstream.recovered");
            }
            Tick::GiveUp { silent } => {
                let sessions = self.registry.of(liveness);
                let silent_s = silent.as_secs_f64();
                tracing::error!(target: TARGET, %upstream, silent_s, sessions = sessions.len(), "upstream.given_up");
                for session in sessions {
                    session.give(SessionOrder::UpstreamUnresponsive);
                }
            }
        }
    }

    /// Returns the fault of a probe whose time has passed.
    fn no_answer(&self, by_check: bool) -> String {
        let timeout = humantime::format_duration(self.settings.heartbeat.timeout);
        match &self.settings.probe {
            _ if !by_check => format!("no pong within {timeout}"),
            probe @ UpstreamProbe::Auto => format!(
                "no response to {} within {timeout}; if the app answers no such request, name a path in upstream.probe",
                describe(probe)
            ),
            probe => format!("no response to {} within {timeout}", describe(probe)),
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::UpstreamTarget;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_app_is_probed_through_its_sessions_in_turn_and_given_up() {
        let registry = Arc::new(Registry::new(1));
        let settings = Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into())));
        let [app, other] = [(); 2].map(|()| App::open(&settings, now()).expect("there is nothing to read"));
        app.liveness().assume_ready();
        let liveness = app.liveness();
        let controls: Vec<_> = (0..3).map(|_| Arc::new(crate::relay::Control::default())).collect();
        let entries: Vec<_> =
            controls.iter().map(|control| registry.enter(registry.next_id(), Arc::clone(control), liveness)).collect();
        let of_another_app = Arc::new(crate::relay::Control::default());
        let _entry = registry.enter(registry.next_id(), Arc::clone(&of_another_app), other.liveness());
        let metrics = Metrics::new();
        let mut watching = std::pin::pin!(Monitor::new(&app, &registry, &metrics).run(|_| None));
        let began = Instant::now();
        let mut orders = Vec::new();
        while began.elapsed() < 90 * SECOND {
            let _ = tokio::time::timeout(SECOND, &mut watching).await;
            for (session, control) in controls.iter().enumerate() {
                if let Some(order) = control.take() {
                    if order == SessionOrder::ProbeUpstream {
                        liveness.probe_written(now());
                    }
                    orders.push((session, order));
                }
            }
        }
        drop(entries);
        assert_eq!(of_another_app.take(), None, "another app is another matter");
        let probed: Vec<_> =
            orders.iter().filter(|(_, order)| *order == SessionOrder::ProbeUpstream).map(|(s, _)| *s).collect();
        assert!(probed.starts_with(&[0, 1, 2, 0]), "one at a time, in turn: {orders:?}");
        let given_up = orders.iter().filter(|(_, order)| *order == SessionOrder::UpstreamUnresponsive).count();
        assert_eq!(given_up, 3, "every session is told once: {orders:?}");
    }

    #[tokio::test]
    async fn s58_an_app_that_is_not_in_force_and_has_no_sessions_is_not_checked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let settings = Arc::new(UpstreamSettings::at(UpstreamTarget::Tcp { host: "127.0.0.1".into(), port }));
        for in_force in [false, true] {
            let app = App::open(&settings, now()).expect("there is nothing to read");
            let (registry, metrics) = (Registry::new(1), Metrics::new());
            let watching = Monitor::new(&app, &registry, &metrics).run(|_| in_force.then(|| app.dialer()));
            let limit = if in_force { 20 * SECOND } else { SECOND / 4 };
            let connected = tokio::select! {
                connected = tokio::time::timeout(limit, listener.accept()) => connected.is_ok(),
                () = watching => panic!("it is watched"),
            };
            assert_eq!(connected, in_force);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_is_monitored_until_its_last_owner_is_gone() {
        let registry = Arc::new(Registry::new(1));
        let app = App::open(&Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into()))), now())
            .expect("nothing to read");
        let entry = registry.enter(registry.next_id(), Arc::default(), app.liveness());
        app.liveness().assume_ready();
        let metrics = Metrics::new();
        let mut watching = std::pin::pin!(Monitor::new(&app, &registry, &metrics).run(|_| None));
        drop(app);
        let left = tokio::time::timeout(600 * SECOND, &mut watching).await;
        left.expect_err("a session is open still");
        drop(entry);
        tokio::time::timeout(600 * SECOND, watching).await.expect("the last session has ended");
    }
}
