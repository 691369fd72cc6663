//! Authorities that get as far as a challenge or a chain, and answer nonsense there.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::fake::{Answer, Authority};
use super::rig::{NAME, Ports, Site};

/// Returns the order in this state.
fn order(base: &str, status: &str) -> Answer {
    let order = json!({
        "status": status, "identifiers": [{ "type": "dns", "value": NAME }],
        "authorizations": [format!("{base}/authz")], "finalize": format!("{base}/finalize"),
        "certificate": format!("{base}/certificate"),
    });
    Answer::of(200, order.to_string()).with("Location", &format!("{base}/order/1"))
}

/// Returns a challenge of this kind that waits for its response.
fn challenge(base: &str, kind: &str) -> Value {
    json!({ "type": kind, "url": format!("{base}/challenge"), "token": "abc", "status": "pending" })
}

/// Returns the authorization in this state, with these challenges.
fn authorization(status: &str, challenges: &[Value]) -> Answer {
    let identifier = json!({ "type": "dns", "value": NAME });
    Answer::of(200, json!({ "status": status, "identifier": identifier, "challenges": challenges }).to_string())
}

#[tokio::test]
async fn a_challenge_that_has_failed_when_its_response_comes_is_reported_with_the_way_out() {
    // An authority that looks at once has the result in its response to the request that says "ready".
    let failed = |base: &str| {
        let mut challenge = challenge(base, "tls-alpn-01");
        challenge["status"] = "invalid".into();
        challenge["error"] =
            json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": "nothing listens there" });
        challenge
    };
    let is_over = AtomicBool::new(false);
    let authority = Authority::start(move |base, path| match path {
        "/order" => Some(order(base, "pending")),
        "/authz" if is_over.load(Ordering::Relaxed) => Some(authorization("invalid", &[failed(base)])),
        "/authz" => Some(authorization("pending", &[challenge(base, "tls-alpn-01")])),
        "/challenge" => {
            is_over.store(true, Ordering::Relaxed);
            Some(Answer::of(200, failed(base).to_string()))
        }
        _ => None,
    })
    .await;
    let running = Site::at(&authority.directory, authority.ca(), Ports::free()).start().await;
    let failed = running.logged("acme.failed").await;
    let error = failed["error"].as_str().expect("an error");
    let words = format!("the authority cannot verify {NAME} by tls-alpn-01: nothing listens there");
    assert!(error.starts_with(&words) && error.ends_with("lead port 443 of it to listen.address"), "{error}");
    assert_eq!(failed["reason"], "challenge_failed");
    running.end().await;
}

#[tokio::test]
async fn a_chain_that_is_none_is_reported_without_a_file_that_does_not_exist() {
    for (chain, words) in [
        ("", "the response holds no certificate"),
        ("garbage", "the response holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "damaged PEM: "),
    ] {
        let is_final = AtomicBool::new(false);
        let authority = Authority::start(move |base, path| match path {
            "/order" | "/order/1" | "/finalize" => {
                let is_final = is_final.fetch_or(path == "/finalize", Ordering::Relaxed);
                Some(order(base, if is_final { "valid" } else { "ready" }))
            }
            "/authz" => Some(authorization("valid", &[challenge(base, "tls-alpn-01")])),
            "/certificate" => Some(Answer::of(200, chain)),
            _ => None,
        })
        .await;
        let site = Site::at(&authority.directory, authority.ca(), Ports::free());
        let running = site.start().await;
        let failed = running.logged("acme.failed").await;
        let error = failed["error"].as_str().expect("an error");
        assert!(error.starts_with(&format!("the issued certificate cannot be used: {words}")), "{chain:?}: {error}");
        assert!(!error.contains(".pem") && error.ends_with("; report it to the authority"), "{chain:?}: {error}");
        assert_eq!(failed["reason"], "invalid_response");
        running.end().await;
        assert_eq!(site.pem_files(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn other_challenges_are_named_and_so_is_their_absence() {
    for (offered, words) in [
        (&[][..], "and none else; use an authority that offers tls-alpn-01 or http-01 for it"),
        (&["dns-01", "http-01"], "but dns-01, http-01; set challenge = \"http-01\""),
        (&["dns-01"], "but dns-01; use an authority that offers tls-alpn-01 or http-01 for it"),
    ] {
        let authority = Authority::start(move |base, path| match path {
            "/order" => Some(order(base, "pending")),
            "/authz" => {
                let challenges: Vec<_> = offered.iter().map(|kind| challenge(base, kind)).collect();
                Some(authorization("pending", &challenges))
            }
            _ => None,
        })
        .await;
        let running = Site::at(&authority.directory, authority.ca(), Ports::free()).start().await;
        let failed = running.logged("acme.failed").await;
        assert_eq!(
            failed["error"],
            format!("the authority offers no tls-alpn-01 for {NAME} (tls.acme.challenge), {words}").as_str()
        );
        running.end().await;
    }
}

#[tokio::test]
async fn an_authority_that_hangs_up_is_reported_in_words_of_our_own() {
    let authority = Authority::start(|_, path| (path == "/order").then(Answer::hang_up)).await;
    let running = Site::at(&authority.directory, authority.ca(), Ports::free()).start().await;
    let failed = running.logged("acme.failed").await;
    let error = failed["error"].as_str().expect("an error");
    assert!(error.starts_with("cannot reach the authority: the connection ended without a response"), "{error}");
    assert!(error.ends_with("; let this host connect to it, and check tls.acme.directory"), "{error}");
    assert!(!error.contains("http://") && !error.contains("https://"), "{error}");
    assert_eq!(failed["reason"], "unreachable");
    running.end().await;
}
