//! Tests of the metrics and their exposition.

use std::collections::BTreeSet;

use super::*;
use crate::config::{HostPattern, UpstreamSettings, UpstreamTarget};
use crate::heartbeat::HeartbeatStats;
use crate::session::{CloseCause, EndReason, Ending};
use crate::ws::Sender;

fn ending(cause: CloseCause, client_code: u16, duration: Duration) -> Ending {
    Ending {
        cause,
        client_code,
        upstream_code: client_code,
        close_reason: Box::default(),
        upstream_close_reason: Box::default(),
        from_client: Traffic::default(),
        from_upstream: Traffic::default(),
        heartbeat: HeartbeatStats::default(),
        duration,
        last_seen_ago: Duration::ZERO,
        last_pong_ago: None,
    }
}

fn route(host: Option<&str>, path: &str) -> Route {
    let upstream = Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into())));
    Route { host: host.map(|host| HostPattern::Exact(host.into())), path: path.into(), ..Route::to(upstream) }
}

fn assert_written(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.encode();
    for line in lines {
        assert!(text.lines().any(|written| written == *line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn what_was_counted_is_what_a_scraper_reads() {
    let metrics = Metrics::new();
    metrics.rejected("bad_request");
    metrics.handshake("1.3", Some("X25519"), Duration::from_millis(3));
    metrics.handshake("1.2", None, Duration::from_millis(3));
    metrics.handshake_failed("timeout");
    let requests = metrics.route(&route(None, "/"));
    requests.request("GET", 200, Duration::from_millis(2));
    requests.request("GET", 200, Duration::from_secs(2));
    requests.responded(Duration::from_millis(20));
    metrics.answered("", 400);
    metrics.upstream_connect(Duration::from_millis(1));
    metrics.upstream_connect_error("refused");
    metrics.upstream_error("closed");
    metrics.backpressure(TrafficDirection::Out);
    metrics.reloaded("failed", false);
    metrics.draining(true);
    assert_written(
        &metrics,
        &[
            concat!(r#"pulsegate_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
            r#"pulsegate_upgrade_rejections_total{reason="bad_request"} 1"#,
            r#"pulsegate_upgrade_rejections_total{reason="origin"} 0"#,
            r#"pulsegate_tls_handshakes_total{outcome="ok",version="1.3",group="X25519"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="ok",version="1.2",group="none"} 1"#,
            r#"pulsegate_tls_handshakes_total{outcome="timeout",version="none",group="none"} 1"#,
            "pulsegate_tls_handshake_duration_seconds_count 2",
            r#"pulsegate_http_requests_total{route="/",method="GET",code="200"} 2"#,
            r#"pulsegate_http_requests_total{route="none",method="other",code="400"} 1"#,
            r#"pulsegate_http_request_duration_seconds_bucket{le="0.0025",route="/"} 1"#,
            r#"pulsegate_http_request_duration_seconds_count{route="/"} 2"#,
            r#"pulsegate_upstream_response_duration_seconds_bucket{le="0.01",route="/"} 0"#,
            r#"pulsegate_upstream_response_duration_seconds_bucket{le="0.025",route="/"} 1"#,
            "pulsegate_upstream_connect_duration_seconds_count 1",
            r#"pulsegate_upstream_connect_errors_total{reason="refused"} 1"#,
            r#"pulsegate_upstream_errors_total{reason="closed"} 1"#,
            r#"pulsegate_backpressure_pauses_total{direction="in"} 0"#,
            r#"pulsegate_backpressure_pauses_total{direction="out"} 1"#,
            "pulsegate_connections_active 0",
            r#"pulsegate_buffered_bytes{direction="in"} 0"#,
            r#"pulsegate_buffered_bytes{direction="out"} 0"#,
            r#"pulsegate_config_reloads_total{result="failed"} 1"#,
            "pulsegate_config_last_reload_successful 0",
            "pulsegate_draining 1",
            "# EOF",
        ],
    );
    let totals = metrics.totals();
    assert_eq!((totals.handshakes_failed, totals.requests, totals.rejections, totals.upstream_errors), (1, 3, 1, 1));
}

#[test]
fn a_route_counts_under_its_host_and_path() {
    let metrics = Metrics::new();
    let (all, admin) = (metrics.route(&route(None, "/")), metrics.route(&route(Some("admin.example"), "/x\"")));
    let active = all.attempt().opened();
    admin.attempt().ended(UpgradeOutcome::Rejected);
    drop(admin.attempt());
    all.ping();
    all.pong(Some(Duration::from_millis(40)));
    all.pong(None);
    all.upstream_ponged(Duration::from_millis(3));
    all.reconnected();
    all.missed();
    all.timeout();
    all.closed(&ending(CloseCause::HeartbeatTimeout, 1012, Duration::from_secs(7)));
    assert_written(
        &metrics,
        &[
            r#"pulsegate_websockets_active{route="/"} 1"#,
            r#"pulsegate_websockets_active{route="admin.example/x\""} 0"#,
            r#"pulsegate_upgrades_total{route="/",outcome="opened"} 1"#,
            r#"pulsegate_upgrades_total{route="/",outcome="abandoned"} 0"#,
            r#"pulsegate_upgrades_total{route="admin.example/x\"",outcome="rejected"} 1"#,
            r#"pulsegate_upgrades_total{route="admin.example/x\"",outcome="abandoned"} 1"#,
            r#"pulsegate_upgrade_duration_seconds_count{route="/"} 1"#,
            r#"pulsegate_heartbeat_pings_total{route="/"} 1"#,
            r#"pulsegate_heartbeat_pongs_total{route="/"} 2"#,
            r#"pulsegate_heartbeat_missed_total{route="/"} 1"#,
            r#"pulsegate_heartbeat_timeouts_total{route="/"} 1"#,
            r#"pulsegate_heartbeat_rtt_seconds_bucket{le="0.025",route="/"} 0"#,
            r#"pulsegate_heartbeat_rtt_seconds_bucket{le="0.05",route="/"} 1"#,
            r#"pulsegate_heartbeat_rtt_seconds_count{route="/"} 1"#,
            r#"pulsegate_upstream_rtt_seconds_bucket{le="0.0025",route="/"} 0"#,
            r#"pulsegate_upstream_rtt_seconds_bucket{le="0.005",route="/"} 1"#,
            r#"pulsegate_reconnects_total{route="/"} 1"#,
            r#"pulsegate_reconnects_total{route="admin.example/x\""} 0"#,
            r#"pulsegate_websockets_closed_total{route="/",initiator="proxy",reason="heartbeat_timeout",code="1012"} 1"#,
            r#"pulsegate_websocket_duration_seconds_bucket{le="5.0",route="/"} 0"#,
            r#"pulsegate_websocket_duration_seconds_bucket{le="15.0",route="/"} 1"#,
        ],
    );
    drop(active);
    assert_written(&metrics, &[r#"pulsegate_websockets_active{route="/"} 0"#]);
    assert_eq!(metrics.totals().websockets, 1, "the total does not go back");
    assert!(Arc::ptr_eq(&all, &metrics.route(&route(None, "/"))), "a reload goes on where it was");
}

#[test]
fn the_first_event_of_a_sort_is_an_increase() {
    let metrics = Metrics::new();
    metrics.route(&route(None, "/"));
    assert_written(
        &metrics,
        &[
            r#"pulsegate_websockets_closed_total{route="/",initiator="client",reason="client_lost",code="1006"} 0"#,
            r#"pulsegate_websockets_closed_total{route="/",initiator="proxy",reason="slow_reader",code="1006"} 0"#,
            r#"pulsegate_websockets_closed_total{route="/",initiator="upstream",reason="upstream_lost",code="1012"} 0"#,
            r#"pulsegate_tls_handshakes_total{outcome="alert",version="none",group="none"} 0"#,
        ],
    );
    let text = metrics.encode();
    for reason in EndReason::WORDS {
        let is_of = |line: &&str| line.starts_with("pulsegate_websockets_closed_total{") && line.contains(reason);
        assert!(text.lines().any(|line| is_of(&line)), "no end of the sort {reason} in\n{text}");
    }
    assert!(!text.contains(r#"outcome="ok""#), "the version and group of a success are not known before:\n{text}");
}

#[test]
fn codes_that_peers_make_up_share_their_series() {
    let metrics = Metrics::new();
    let all = metrics.route(&route(None, "/"));
    for code in 3000..5000 {
        all.closed(&ending(CloseCause::Closed { by: Sender::Client }, code, Duration::ZERO));
    }
    for code in 0..1000 {
        all.request(&format!("M{code}"), code, Duration::ZERO);
    }
    let text = metrics.encode();
    let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    let closed = text.lines().filter(|line| line.starts_with("pulsegate_websockets_closed_total{"));
    assert_eq!(closed.filter(|line| !line.ends_with(" 0")).count(), 2, "{text}");
    assert!(series("pulsegate_http_requests_total{") <= labels::STATUSES.len(), "{text}");
}

#[test]
fn traffic_is_asked_for_when_it_is_read() {
    let metrics = Metrics::new();
    let zero = r#"pulsegate_payload_bytes_total{direction="out"} 0"#;
    assert_written(&metrics, &[zero, r#"pulsegate_messages_total{direction="in"} 0"#]);
    metrics.observe_traffic(|| {
        let clients = Traffic { bytes: 21, payload: 9, messages: 2 };
        (clients, Traffic { bytes: 5, payload: 1, messages: 1 })
    });
    assert_written(
        &metrics,
        &[
            r#"pulsegate_payload_bytes_total{direction="in"} 9"#,
            r#"pulsegate_payload_bytes_total{direction="out"} 1"#,
            r#"pulsegate_messages_total{direction="in"} 2"#,
            r#"pulsegate_messages_total{direction="out"} 1"#,
        ],
    );
}

#[test]
fn certificates_that_are_no_longer_presented_are_gone() {
    let metrics = Metrics::new();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    metrics.certificate("/tls/old.pem", at(100));
    metrics.certificate("/tls/new.pem", at(200));
    assert_written(&metrics, &[r#"pulsegate_tls_certificate_not_after_timestamp_seconds{cert="/tls/old.pem"} 100"#]);
    metrics.clear_certificates();
    metrics.certificate("/tls/new.pem", at(300));
    assert_written(&metrics, &[r#"pulsegate_tls_certificate_not_after_timestamp_seconds{cert="/tls/new.pem"} 300"#]);
    assert!(!metrics.encode().contains("old.pem"));
}

/// Checks the one list that is not derived from an enum: the outcomes in the catalogue.
#[test]
fn outcomes_are_the_words_of_the_catalogue() {
    let outcomes = [
        UpgradeOutcome::Opened,
        UpgradeOutcome::Rejected,
        UpgradeOutcome::UpstreamRefused,
        UpgradeOutcome::UpstreamFailed,
        UpgradeOutcome::Abandoned,
    ];
    assert_eq!(
        outcomes.map(UpgradeOutcome::as_str),
        ["opened", "rejected", "upstream_refused", "upstream_failed", "abandoned"]
    );
}

#[test]
fn the_table_has_every_metric_that_is_registered() {
    let metrics = Metrics::new();
    let _ = metrics.route(&route(None, "/"));
    metrics.handshake_failed("timeout");
    metrics.answered("GET", 200);
    metrics.certificate("a.pem", SystemTime::now());
    let left = ending(CloseCause::Closed { by: Sender::Client }, 1000, Duration::ZERO);
    metrics.route(&route(None, "/")).closed(&left);
    let text = metrics.encode();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let written: BTreeSet<String> = types.map(ToOwned::to_owned).collect();
    let unknown: &[_] = if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        &[]
    } else {
        &[catalogue::PROCESS_MEMORY.name, catalogue::PROCESS_VIRTUAL_MEMORY.name, catalogue::PROCESS_THREADS.name]
    };
    let reported = || ALL.iter().filter(|metric| !unknown.contains(&metric.name));
    let described: BTreeSet<String> =
        reported().map(|metric| format!("{} {}", metric.family(), metric.kind.as_str())).collect();
    assert_eq!(written, described);
    for metric in reported() {
        assert!(text.contains(&format!("# HELP {} {}.\n", metric.family(), metric.help)), "{}", metric.name);
    }
    let table = markdown();
    for metric in ALL {
        assert!(table.contains(&format!("| `{}` | {} |", metric.full_name(), metric.kind.as_str())), "{table}");
    }
}
