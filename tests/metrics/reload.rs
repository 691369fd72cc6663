//! The metrics of reloads, and of the certificates that they add and remove.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::proxy::Proxy;
use rcgen::CertificateParams;
use tempfile::TempDir;

use crate::metrics::exposition::Exposition;
use crate::metrics::scrape::{assert_as_documented, metrics, observed, until};

const NOT_AFTER: &str = "pulsegate_tls_certificate_not_after_timestamp_seconds";
const SUCCESSFUL: &str = "pulsegate_config_last_reload_successful";
const SUCCESS_AT: &str = "pulsegate_config_last_reload_success_timestamp_seconds";

/// Returns the attempts with each result, in the order ok, partial, failed, unchanged.
fn attempts(metrics: &Exposition) -> [u64; 4] {
    ["ok", "partial", "failed", "unchanged"]
        .map(|result| metrics.count("pulsegate_config_reloads_total", &[("result", result)]))
}

/// Returns the certificates whose end has a metric.
fn certificates(metrics: &Exposition) -> Vec<String> {
    let of_ends = metrics.samples().filter(|sample| sample.name == NOT_AFTER);
    of_ends.map(|sample| sample.labels["cert"].clone()).collect()
}

/// Replaces a file atomically: half of it is never read.
fn put(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("write");
    fs::rename(beside, file).expect("rename");
}

#[tokio::test]
async fn reloads_are_counted_and_certificates_forgotten_when_they_are_replaced() {
    let app = FakeApp::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (dir, others) = (TempDir::with_prefix("pulsegate-").expect("a folder"), TempDir::new().expect("a folder"));
    let (pki, mut renewed) = (Pki::make(dir.path()), Pki::make(others.path()));
    for (path, name) in [(&mut renewed.certificate, "renewed.pem"), (&mut renewed.private_key, "renewed.key")] {
        fs::rename(&*path, dir.path().join(name)).expect("rename");
        *path = dir.path().join(name);
    }
    let (config, file) = (observed(&app.url), dir.path().join("proxy.toml"));
    let text = |pki: &Pki| config.toml(SocketAddr::from(([127, 0, 0, 1], 0)), pki);
    put(&file, &text(&pki));
    let proxy = Proxy::follow(&file, config.clone(), pki.clone(), dir).await;
    let ends = u64::try_from(CertificateParams::default().not_after.unix_timestamp()).expect("after 1970");

    let first = metrics(&proxy).await;
    assert_eq!(attempts(&first), [0; 4], "the start is none");
    assert_eq!(first.count(SUCCESSFUL, &[]), 1);
    assert_eq!(first.count(NOT_AFTER, &[("cert", "server.pem")]), ends);
    assert_eq!(certificates(&first), ["server.pem"]);

    put(&file, &text(&renewed));
    let is_told = |metrics: &Exposition| attempts(metrics)[0] == 1 && certificates(metrics) == ["renewed.pem"];
    let second = until(&proxy, "the new certificate in place of the old one", is_told).await;
    assert_eq!(second.count(NOT_AFTER, &[("cert", "renewed.pem")]), ends);
    assert!(second.count(SUCCESS_AT, &[]) >= first.count(SUCCESS_AT, &[]));

    put(&file, &text(&renewed).replace("level =", "levle ="));
    let third = until(&proxy, "the failure", |metrics| attempts(metrics)[2] == 1).await;
    assert_eq!(third.count(SUCCESSFUL, &[]), 0);
    assert_eq!(third.count(SUCCESS_AT, &[]), second.count(SUCCESS_AT, &[]), "when it last succeeded");
    assert_eq!(certificates(&third), ["renewed.pem"], "the last good configuration stays");

    put(&file, &text(&renewed).replace("127.0.0.1:0\"\n\n[tls]", "127.0.0.1:1\"\n\n[tls]"));
    let fourth = until(&proxy, "what waits for a restart", |metrics| attempts(metrics)[1] == 1).await;
    assert_eq!(fourth.count(SUCCESSFUL, &[]), 1, "the rest is in force");

    put(&file, &text(&renewed));
    let last = until(&proxy, "nothing new", |metrics| attempts(metrics)[3] == 1).await;
    assert_eq!(attempts(&last), [1; 4]);
    assert_as_documented(&last, &["/"]);
    proxy.finish().await;
}
