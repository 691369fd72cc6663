//! An authority that is away: at the start, and when a renewal is due.

use std::fs;
use std::time::{Duration, SystemTime};

use pulsegate_test_kit::wait::wait_until_async;
use rcgen::{CertificateParams, KeyPair};

use super::pebble::{Pebble, Terms};
use super::rig::{NAME, Ports, Site, free_ports};

/// Puts a certificate into the storage folder whose validity began `age` ago and ends in `left` (or ended, if `past`).
fn put(site: &Site, age: Duration, end: SystemTime) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    (params.not_before, params.not_after) = ((SystemTime::now() - age).into(), end.into());
    let certificate = params.self_signed(&key).expect("a certificate");
    let authority = site.directory.trim_start_matches("https://").replace([':', '/'], "-");
    let folder = site.folder.path().join("storage").join(authority);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{NAME}.pem")), certificate.pem() + &key.serialize_pem()).expect("written");
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn without_the_authority_and_without_a_certificate_it_says_so_and_keeps_trying() {
    let ports = Ports::free();
    let [acme] = free_ports();
    // Its CA is made with it; the folder is known before.
    let pebble = Pebble::start_at(acme, ports, Terms::default()).await;
    let site = pebble.site(ports);
    let kept = site.folder.path().join("ca.pem");
    fs::copy(&pebble.ca, &kept).expect("copied");
    let mut site = site;
    site.ca = kept.clone();
    drop(pebble);
    let running = site.start().await;
    running.logged("acme.no_certificate_yet").await;
    let failed = running.logged("acme.failed").await;
    assert_eq!((&failed["reason"], &failed["certificate"]), (&"unreachable".into(), &"none".into()));
    assert!(failed["retry_in_s"].as_u64().is_some_and(|pause| pause < 10), "{failed}");
    let error = failed["error"].as_str().expect("an error");
    assert!(error.starts_with(&format!("cannot reach the authority: cannot connect to 127.0.0.1:{acme}: ")), "{error}");
    assert_eq!(running.presents().await, None, "no other certificate stands in");
    assert!(running.plain("/").await.starts_with("HTTP/1.1 308 "), "the rest works");

    // It comes back with another CA of its own, which the operator puts in the place of the former.
    let pebble = Pebble::start_at(acme, ports, Terms::default()).await;
    fs::copy(&pebble.ca, &kept).expect("copied");
    running.logged("acme.issued").await;
    wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
    running.end().await;
}

#[tokio::test]
async fn a_certificate_outlives_the_authority_and_is_renewed_when_it_is_due() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    put(&site, 70 * DAY, SystemTime::now() + 20 * DAY);
    let running = site.start().await;
    let ordering = running.logged("acme.ordering").await;
    assert_eq!(ordering["reason"], "renewal");
    let old = fs::read(site.certificate());
    running.logged("acme.issued").await;
    assert_ne!(fs::read(site.certificate()).expect("there"), old.unwrap_or_default());
    running.end().await;

    // Away: what is there is presented.
    let [nobody] = free_ports();
    let site = Site::at(&format!("https://127.0.0.1:{nobody}/dir"), &pebble.ca, Ports::free());
    put(&site, 70 * DAY, SystemTime::now() + 20 * DAY);
    let running = site.start().await;
    assert!(running.presents().await.is_some(), "from the start");
    let failed = running.logged("acme.failed").await;
    assert_eq!((&failed["reason"], &failed["certificate"]), (&"unreachable".into(), &"valid".into()));
    assert!(running.presents().await.is_some(), "after the failure");
    assert_eq!(running.metric("pulsegate_acme_orders_total{result=\"unreachable\"}").await, Some(1.0));
    running.end().await;
}

#[tokio::test]
async fn an_expired_certificate_is_never_presented_silently() {
    let [nobody] = free_ports();
    let folder = tempfile::TempDir::new().expect("a folder");
    let pki = pulsegate_test_kit::pki::Pki::make(folder.path());
    let site = Site::at(&format!("https://127.0.0.1:{nobody}/dir"), &pki.ca, Ports::free());
    // It expires while the proxy runs.
    put(&site, 90 * DAY, SystemTime::now() + Duration::from_secs(4));
    let running = site.start().await;
    let expired = running.logged("acme.certificate_expired").await;
    assert_eq!((&expired["level"], &expired["names"]), (&"WARN".into(), &NAME.into()));
    let cert = format!("pulsegate_tls_certificate_not_after_timestamp_seconds{{cert=\"{NAME}.pem\"}}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!(running.metric(&cert).await.is_some_and(|end| end <= now), "an alert can see it");
    running.end().await;
}
