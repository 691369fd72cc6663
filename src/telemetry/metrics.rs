//! What is counted, under the names that a Prometheus server sees.
//!
//! Labels take their values from small closed sets; never an address, a path or a connection's name.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::relay::Memory;

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    totals: Sums,
    memory: Arc<Memory>,
}

/// Totals over all labels since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections closed before their handshake.
    pub connections_refused: u64,
    /// Handshakes that failed, whatever the outcome.
    pub handshakes_failed: u64,
    /// Plain requests answered.
    pub requests: u64,
    /// Upgrades refused.
    pub rejections: u64,
    /// WebSocket sessions opened.
    pub websockets: u64,
    /// Connects to the app that failed.
    pub upstream_errors: u64,
    /// Probes of the app's own liveness that went unanswered.
    pub upstream_missed: u64,
}

#[derive(Debug, Default)]
struct Families {
    connections_refused: Family<Reason, Counter>,
    upgrade_rejections: Family<Reason, Counter>,
    tls_handshakes: Family<Outcome, Counter>,
    websockets_closed: Family<Closed, Counter>,
    http_requests: Family<Code, Counter>,
    http2_goaways: Family<Reason, Counter>,
    upstream_connect_errors: Family<Reason, Counter>,
    upstream_missed: Counter,
    connections_active: Gauge,
    websockets_active: Gauge,
    config_reloads: Family<ReloadResult, Counter>,
    config_last_reload_successful: Gauge,
    config_last_reload_success_timestamp: Gauge,
    tls_certificate_not_after: Family<Cert, Gauge>,
}

/// A family cannot be summed over its labels; these count beside it.
#[derive(Debug, Default)]
struct Sums {
    connections: Counter,
    connections_refused: Counter,
    handshakes_failed: Counter,
    requests: Counter,
    rejections: Counter,
    websockets: Counter,
    upstream_errors: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    initiator: &'static str,
    reason: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cert {
    cert: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// What sessions hold, asked for at each scrape: `in` on the way from clients, `out` on the way to them.
#[derive(Debug)]
struct Buffered(Arc<Memory>);

impl Collector for Buffered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Bytes that sessions hold because a peer does not take them";
        let mut family = encoder.encode_descriptor("buffered_bytes", help, None, MetricType::Gauge)?;
        for (direction, bytes) in [("in", self.0.to_app()), ("out", self.0.to_client())] {
            family.encode_family(&Direction { direction })?.encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

/// One place in a gauge, given back when dropped.
#[derive(Debug)]
pub struct Active(Gauge<i64, AtomicI64>);

impl Active {
    fn enter(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let families = Families::default();
        // Whoever counts has been configured.
        families.config_last_reload_successful.set(1);
        families.config_last_reload_success_timestamp.set(seconds(SystemTime::now()));
        let memory = Arc::<Memory>::default();
        let mut registry = families.registry();
        registry.register_collector(Box::new(Buffered(Arc::clone(&memory))));
        Self { registry, families, totals: Sums::default(), memory }
    }

    /// An upgrade was refused by the proxy itself; `reason` is one word.
    pub fn rejected(&self, reason: &'static str) {
        self.families.upgrade_rejections.get_or_create(&Reason { reason }).inc();
        self.totals.rejections.inc();
    }

    /// A TLS handshake ended: `ok` or what went wrong, one word.
    pub fn handshake(&self, outcome: &'static str) {
        self.families.tls_handshakes.get_or_create(&Outcome { outcome }).inc();
        if outcome != "ok" {
            self.totals.handshakes_failed.inc();
        }
    }

    /// A session ended; `code` is the one on the client leg.
    pub fn closed(&self, initiator: &'static str, reason: &'static str, code: u16) {
        self.families.websockets_closed.get_or_create(&Closed { initiator, reason, code }).inc();
    }

    /// The configuration was loaded anew: `ok`, `partial`, `unchanged` or `failed`.
    pub fn reloaded(&self, result: &'static str, success: bool) {
        self.families.config_reloads.get_or_create(&ReloadResult { result }).inc();
        self.families.config_last_reload_successful.set(i64::from(success));
        if success {
            self.families.config_last_reload_success_timestamp.set(seconds(SystemTime::now()));
        }
    }

    /// The certificate called `name` is shown, and worth nothing after `not_after`.
    pub fn certificate(&self, name: &str, not_after: SystemTime) {
        self.families.tls_certificate_not_after.get_or_create(&Cert { cert: name.to_owned() }).set(seconds(not_after));
    }

    /// No certificate is shown until the next is told.
    pub fn forget_certificates(&self) {
        self.families.tls_certificate_not_after.clear();
    }

    /// A plain request was answered.
    pub fn request(&self, code: u16) {
        self.families.http_requests.get_or_create(&Code { code }).inc();
        self.totals.requests.inc();
    }

    /// An HTTP/2 connection was ended for what its client did; `reason` is one word.
    pub fn goaway(&self, reason: &'static str) {
        self.families.http2_goaways.get_or_create(&Reason { reason }).inc();
    }

    /// A connect to the app failed; `reason` is one word.
    pub fn upstream_error(&self, reason: &'static str) {
        self.families.upstream_connect_errors.get_or_create(&Reason { reason }).inc();
        self.totals.upstream_errors.inc();
    }

    /// A probe of the app's own liveness went unanswered.
    pub fn upstream_missed(&self) {
        self.families.upstream_missed.inc();
    }

    /// A client connection was accepted; it counts as active until the place is dropped.
    #[must_use = "the connection counts as closed when this is dropped"]
    pub fn connection(&self) -> Active {
        self.totals.connections.inc();
        Active::enter(&self.families.connections_active)
    }

    /// A connection was closed before its handshake; `reason` is one word.
    pub fn connection_refused(&self, reason: &'static str) {
        self.families.connections_refused.get_or_create(&Reason { reason }).inc();
        self.totals.connections_refused.inc();
    }

    /// A session opened; it counts as active until the place is dropped.
    #[must_use = "the session counts as closed when this is dropped"]
    pub fn websocket(&self) -> Active {
        self.totals.websockets.inc();
        Active::enter(&self.families.websockets_active)
    }

    /// Where sessions count what they hold for slow peers.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Totals over all labels since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.totals.connections.get(),
            connections_refused: self.totals.connections_refused.get(),
            handshakes_failed: self.totals.handshakes_failed.get(),
            requests: self.totals.requests.get(),
            rejections: self.totals.rejections.get(),
            websockets: self.totals.websockets.get(),
            upstream_errors: self.totals.upstream_errors.get(),
            upstream_missed: self.families.upstream_missed.get(),
        }
    }

    /// All of them in the `OpenMetrics` text format.
    #[expect(clippy::missing_panics_doc, reason = "a String takes whatever is written to it")]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

impl Families {
    /// A registry of all families under their public names; counters gain `_total` when they are written.
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("pulsegate");
        registry.register(
            "upgrade_rejections",
            "WebSocket upgrades that the proxy refused",
            self.upgrade_rejections.clone(),
        );
        registry.register(
            "connections_refused",
            "Client connections that were closed before their handshake",
            self.connections_refused.clone(),
        );
        registry.register("tls_handshakes", "TLS handshakes by how they ended", self.tls_handshakes.clone());
        registry.register(
            "websockets_closed",
            "WebSocket sessions that ended, by who ended them, why, and the client's close code",
            self.websockets_closed.clone(),
        );
        registry.register("http_requests", "Plain HTTP requests by status code", self.http_requests.clone());
        registry.register(
            "http2_goaways",
            "HTTP/2 connections that were ended for what their clients did",
            self.http2_goaways.clone(),
        );
        registry.register(
            "upstream_connect_errors",
            "Connects to the app that failed",
            self.upstream_connect_errors.clone(),
        );
        registry.register(
            "upstream_missed",
            "Probes of the app's own liveness that went unanswered",
            self.upstream_missed.clone(),
        );
        registry.register("connections_active", "Open client connections", self.connections_active.clone());
        registry.register("websockets_active", "Live WebSocket sessions", self.websockets_active.clone());
        registry.register("config_reloads", "Reloads of the configuration by result", self.config_reloads.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the last load of the configuration succeeded",
            self.config_last_reload_successful.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When a load of the configuration last succeeded",
            self.config_last_reload_success_timestamp.clone(),
        );
        registry.register(
            "tls_certificate_not_after_timestamp_seconds",
            "When a certificate that the proxy shows expires",
            self.tls_certificate_not_after.clone(),
        );
        registry
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_what_a_scraper_reads() {
        let metrics = Metrics::new();
        metrics.rejected("bad_request");
        metrics.handshake("ok");
        metrics.handshake("timeout");
        metrics.closed("proxy", "heartbeat_timeout", 1001);
        metrics.request(200);
        metrics.request(200);
        metrics.upstream_error("refused");
        metrics.reloaded("partial", true);
        metrics.reloaded("failed", false);
        metrics.certificate("old.crt", SystemTime::UNIX_EPOCH);
        metrics.forget_certificates();
        metrics.certificate("tls.crt", SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_102_444_800));
        let text = metrics.encode();
        for line in [
            r#"pulsegate_upgrade_rejections_total{reason="bad_request"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="ok"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="timeout"} 1"#,
            r#"pulsegate_websockets_closed_total{initiator="proxy",reason="heartbeat_timeout",code="1001"} 1"#,
            r#"pulsegate_http_requests_total{code="200"} 2"#,
            r#"pulsegate_upstream_connect_errors_total{reason="refused"} 1"#,
            r#"pulsegate_config_reloads_total{result="partial"} 1"#,
            r#"pulsegate_config_reloads_total{result="failed"} 1"#,
            "pulsegate_config_last_reload_successful 0",
            r#"pulsegate_tls_certificate_not_after_timestamp_seconds{cert="tls.crt"} 4102444800"#,
            "pulsegate_connections_active 0",
            r#"pulsegate_buffered_bytes{direction="in"} 0"#,
            r#"pulsegate_buffered_bytes{direction="out"} 0"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in:\n{text}");
        }
        let totals = metrics.totals();
        assert_eq!((totals.handshakes_failed, totals.requests, totals.rejections), (1, 2, 1));
    }

    #[test]
    fn a_place_in_a_gauge_is_given_back() {
        let metrics = Metrics::new();
        let places = [metrics.websocket(), metrics.websocket()];
        assert!(metrics.encode().contains("pulsegate_websockets_active 2\n"));
        drop(places);
        assert!(metrics.encode().contains("pulsegate_websockets_active 0\n"));
        assert_eq!(metrics.totals().websockets, 2, "the total does not go back");
    }
}
