//! What pebble has not: rate limits with `Retry-After`, and renewal windows (ARI, RFC 9773).

use std::fs;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SerialNumber};
use serde_json::json;

use super::fake::{Answer, Authority};
use super::rig::{NAME, Ports, Site};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_rate_limit_is_kept_as_long_as_the_authority_asks() {
    let authority = Authority::start(|_, path| {
        let limit = || Answer::problem(429, "rateLimited", "too many certificates for acme.test");
        (path == "/order").then(|| limit().with("Retry-After", "5400"))
    })
    .await;
    let running = Site::at(&authority.directory, authority.ca(), Ports::free()).start().await;
    let failed = running.logged("acme.failed").await;
    assert_eq!((&failed["reason"], &failed["retry_in_s"]), (&"rate_limited".into(), &5400.into()));
    assert_eq!(
        failed["error"], "the authority refuses: too many certificates for acme.test (rateLimited)",
        "in its own words"
    );
    assert_eq!(running.metric("pulsegate_acme_orders_total{result=\"rate_limited\"}").await, Some(1.0));
    let identifiers = &authority.was_asked("/order").await["identifiers"];
    assert_eq!(*identifiers, json!([{ "type": "dns", "value": NAME }]));
    let account = authority.was_asked("/account").await;
    assert_eq!(account["contact"], json!(["mailto:ops@acme.test"]));
    assert_eq!(account["termsOfServiceAgreed"], true);
    running.end().await;
    assert_eq!(authority.asked("/order").len(), 1, "no second attempt");
}

#[tokio::test]
async fn a_wait_longer_than_numbers_go_is_a_day() {
    const DAY_S: u64 = 86_400;
    for wait in ["99999999999999999999", "18446744073709551615"] {
        let authority = Authority::start(move |_, path| {
            let limit = || Answer::problem(429, "rateLimited", "too many certificates");
            (path == "/order").then(|| limit().with("Retry-After", wait))
        })
        .await;
        let running = Site::at(&authority.directory, authority.ca(), Ports::free()).start().await;
        assert_eq!(running.logged("acme.failed").await["retry_in_s"], DAY_S, "{wait}");
        running.end().await;
    }
}

/// Puts a certificate of an authority into the storage folder, fresh, and an account. Returns its identifier for the
/// authority (RFC 9773 §4.1).
fn put(site: &Site) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    leaf.use_authority_key_identifier_extension = true;
    // Its highest bit is set, so that DER puts a zero in front.
    leaf.serial_number = Some(SerialNumber::from_slice(&[0x87, 0x65, 0x43, 0x21]));
    (leaf.not_before, leaf.not_after) = (SystemTime::now().into(), (SystemTime::now() + 90 * DAY).into());
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let authority = site.directory.trim_start_matches("https://").replace([':', '/'], "-");
    let folder = site.folder.path().join("storage").join(authority);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{NAME}.pem")), leaf.pem() + &key.serialize_pem()).expect("written");
    let account = json!({
        "id": format!("{}/account/1", site.directory.trim_end_matches("/dir")),
        "key_pkcs8": BASE64URL_NOPAD.encode(&KeyPair::generate().expect("a key").serialize_der()),
        "directory": site.directory,
    });
    fs::write(folder.join("account.json"), account.to_string()).expect("written");
    let key_id = pulsegate::tls::Identity::from_der(vec![leaf.der().to_vec()], key.serialize_der())
        .expect("a pair")
        .renewal_id()
        .expect("it names its authority's key")
        .0;
    format!("{}.AIdlQyE", BASE64URL_NOPAD.encode(&key_id))
}

fn window(start: &str, end: &str) -> Answer {
    window_for("21600", start, end)
}

/// Returns a window that holds for `wait` seconds.
fn window_for(wait: &str, start: &str, end: &str) -> Answer {
    let window = json!({ "suggestedWindow": { "start": start, "end": end } });
    Answer::of(200, window.to_string()).with("Retry-After", wait).with("Content-Type", "application/json")
}

#[tokio::test]
async fn the_authority_may_want_a_fresh_certificate_replaced_at_once() {
    let authority = Authority::start(|_, path| match path {
        path if path.starts_with("/renewal/") => Some(window("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")),
        "/order" => Some(Answer::problem(403, "unauthorized", "not today")),
        _ => None,
    })
    .await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    let id = put(&site);
    let running = site.start().await;
    assert_eq!(running.logged("acme.ordering").await["reason"], "renewal");
    let order = authority.was_asked("/order").await;
    assert_eq!(order["replaces"], id.as_str(), "as the authority knows it");
    assert_eq!(authority.asked(&format!("/renewal/{id}")).len(), 1);
    let failed = running.logged("acme.failed").await;
    assert_eq!((&failed["reason"], &failed["certificate"]), (&"refused".into(), &"valid".into()));
    assert!(running.presents().await.is_some());
    running.end().await;
}

#[tokio::test]
async fn a_window_ahead_or_none_at_all_leaves_a_fresh_certificate_alone() {
    for answer in [
        window("2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"),
        // A number of seconds that no point in time can be later by.
        window_for("18446744073709551615", "2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"),
        Answer::of(200, "<html>"),
        Answer::problem(404, "malformed", "no such certificate"),
    ] {
        let shown = answer.clone();
        let authority = Authority::start(move |_, path| path.starts_with("/renewal/").then(|| answer.clone())).await;
        let site = Site::at(&authority.directory, authority.ca(), Ports::free());
        put(&site);
        let running = site.start().await;
        authority.was_asked("/renewal/").await;
        let renewal = "pulsegate_acme_next_order_timestamp_seconds";
        let at = pulsegate_test_kit::wait::wait_until_async(
            "the time of the renewal",
            async || running.metric(renewal).await.unwrap_or(0.0),
            |at| *at > 0.0,
        )
        .await;
        let days =
            (at - SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs_f64()) / 86_400.0;
        assert!((59.0..64.0).contains(&days), "{days} days from now, after {shown:?}");
        let log = running.end().await;
        assert!(!log.contains("acme.ordering"), "{log}");
    }
}
