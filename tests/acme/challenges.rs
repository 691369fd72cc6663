//! Orders from pebble: by both challenges, renewed, shared by two replicas, revoked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use pulsegate_test_kit::process::{OutputLine, Process};
use pulsegate_test_kit::wait::{wait_until, wait_until_async};
use tokio::process::Command;

use super::pebble::{Pebble, Terms};
use super::rig::{NAME, ORDER, Ports};
use crate::PULSEGATE;

#[tokio::test]
async fn a_certificate_is_ordered_by_tls_alpn_01_and_kept_for_the_next_start() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let running = site.start().await;
    running.logged("acme.no_certificate_yet").await;
    let issued = running.logged("acme.issued").await;
    assert_eq!(issued["names"], NAME);
    wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
    assert_eq!(running.metric("pulsegate_acme_orders_total{result=\"issued\"}").await, Some(1.0));
    wait_until_async(
        "the time of the renewal",
        async || running.metric("pulsegate_acme_next_order_timestamp_seconds").await.unwrap_or(0.0),
        |at| *at > 1e9,
    )
    .await;
    let cert = format!("pulsegate_tls_certificate_not_after_timestamp_seconds{{cert=\"{NAME}.pem\"}}");
    assert!(running.metric(&cert).await.is_some_and(|end| end > 1e9));
    let challenged = "pulsegate_tls_handshakes_total{outcome=\"acme_challenge\",version=\"none\",group=\"none\"}";
    assert!(running.metric(challenged).await.is_some_and(|count| count >= 1.0), "{}", pebble.transcript());
    let pin = running.presents().await;
    running.end().await;

    assert_eq!(site.files(), ["account.json", &format!("{NAME}.pem"), "lock"], "challenges are removed");
    for file in site.files() {
        let mode = fs::metadata(site.storage().join(&file)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    let again = site.start().await;
    assert_eq!(again.presents().await, pin, "at once, and the same");
    let log = again.end().await;
    assert!(!log.contains("acme.ordering") && !log.contains("acme.no_certificate_yet"), "{log}");
}

#[tokio::test]
async fn flags_alone_make_a_public_site() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut command = Command::new(PULSEGATE);
    command.args(["run", "--domain", NAME, "--email", "ops@acme.test", "--upstream", "http://127.0.0.1:9"]);
    for (key, value) in [
        ("LISTEN__ADDRESS", format!("127.0.0.1:{}", ports.tls)),
        ("TLS__ACME__DIRECTORY", pebble.directory.clone()),
        ("TLS__ACME__CA", pebble.ca.display().to_string()),
        ("TLS__ACME__STORAGE", folder.path().join("acme").display().to_string()),
        ("ADMIN__HEALTH", "off".to_owned()),
        ("ADMIN__SOCKET", "off".to_owned()),
        ("LOG__FORMAT", "json".to_owned()),
    ] {
        command.env(format!("PULSEGATE__{key}"), value);
    }
    let process = Process::start_without_input("pulsegate", command.current_dir(folder.path()));
    process.line_within(ORDER, "acme.issued", |line| line.json["message"] == "acme.issued").await;
    process.terminate();
    assert_eq!(process.finish().await.code, Some(0));
}

#[tokio::test]
async fn a_certificate_is_ordered_by_http_01_past_refused_nonces() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms { nonces_refused: 30, ..Terms::default() }).await;
    let running = pebble.site(ports).with("challenge = \"http-01\"").start().await;
    running.logged("acme.issued").await;
    wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
    // Any other path is redirected still, and so is a challenge that is not ours.
    for path in ["/", "/.well-known/security.txt", "/.well-known/acme-challenge/unknown"] {
        let response = running.plain(path).await;
        assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
        assert!(response.contains(&format!("{path}\r\n")), "{response}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_challenge_is_answered_from_the_folder_and_nothing_else_is() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let running = site.start().await;
    running.logged("acme.issued").await;
    // As another replica of this host writes it.
    fs::write(site.storage().join("http-01.some_Token-1"), "some_Token-1.thumbprint").expect("written");
    let response = running.plain("/.well-known/acme-challenge/some_Token-1").await;
    assert!(
        response.starts_with("HTTP/1.1 200 ") && response.ends_with("\r\n\r\nsome_Token-1.thumbprint"),
        "{response}"
    );
    for path in ["../account.json", "..%2faccount.json", "", "account.json", "some_Token-1/", "some_Token-1/../lock"] {
        let response = running.plain(&format!("/.well-known/acme-challenge/{path}")).await;
        assert!(response.starts_with("HTTP/1.1 308 "), "{path}: {response}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_certificate_that_does_not_name_a_new_domain_is_presented_until_the_new_one_is_there() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let mut site = pebble.site(ports);
    let running = site.start().await;
    running.logged("acme.issued").await;
    wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
    let first = running.presents().await;
    site.domains.push("www.acme.test");
    site.write();
    running.process.hang_up();
    let is_second = |line: &OutputLine| {
        line.json["message"] == "acme.issued" && line.json["names"].as_str().is_some_and(|names| names.contains("www."))
    };
    running.process.line_within(ORDER, "a certificate for both", is_second).await;
    wait_until_async("the next certificate", async || running.presents().await, |pin| *pin != first).await;
    assert_eq!(running.lines("acme.ordering")[1]["reason"], "names");
    running.end().await;
}

#[tokio::test]
async fn replicas_of_one_host_order_once() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let mut other = site.clone();
    // Another port, the same folder.
    other.ports = Ports::free();
    let first = site.start().await;
    let second = other.start().await;
    for replica in [&first, &second] {
        wait_until_async("the certificate", async || replica.presents().await, Option::is_some).await;
    }
    assert_eq!(first.presents().await, second.presents().await);
    let orders = first.lines("acme.issued").len() + second.lines("acme.issued").len();
    assert_eq!(orders, 1, "{}{}", first.process.transcript(), second.process.transcript());
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn sites_with_one_name_in_common_keep_their_certificates_apart() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    // The authority asks the first site for the tokens of both, which lie in one folder.
    let mut first = pebble.site(ports).with("challenge = \"http-01\"");
    first.domains.push("www.acme.test");
    let mut second = pebble.site(Ports::free()).with("challenge = \"http-01\"");
    second.domains.push("api.acme.test");
    let running = first.start().await;
    running.logged("acme.issued").await;
    symlink(first.folder.path().join("storage"), second.folder.path().join("storage")).expect("one storage");
    let other = second.start().await;
    assert!(other.presents().await.is_some(), "the certificate of the other site stands in at once");
    other.logged("acme.issued").await;
    assert_eq!(other.lines("acme.ordering")[0]["reason"], "names");
    let pems: Vec<_> = first.files().into_iter().filter(|file| file.contains(".pem")).collect();
    assert_eq!(pems.len(), 2, "{pems:?}");
    let before = pems.iter().map(|file| fs::read(first.storage().join(file)).expect("there")).collect::<Vec<_>>();
    running.end().await;
    other.end().await;

    // A start with the wrong certificate would order at once.
    for (site, name) in [(&first, "www.acme.test"), (&second, "api.acme.test")] {
        let running = site.start().await;
        wait_until_async(
            "the time of the renewal",
            async || running.metric("pulsegate_acme_next_order_timestamp_seconds").await.unwrap_or(0.0),
            |at| *at > 1e9,
        )
        .await;
        assert!(running.lines("acme.ordering").is_empty(), "{name}: {}", running.process.transcript());
        let after = pems.iter().map(|file| fs::read(site.storage().join(file)).expect("there")).collect::<Vec<_>>();
        assert!(after == before, "{name}: a certificate was replaced");
        running.end().await;
    }
}

#[tokio::test]
async fn an_external_account_is_bound() {
    let ports = Ports::free();
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(ports, Terms { external: Some(("kid-1", key)), ..Terms::default() }).await;
    let site = pebble.site(ports);
    fs::write(site.folder.path().join("eab.key"), format!("{key}\n")).expect("written");
    let with = site.clone().with("external_account = { key_id = \"kid-1\", key_file = \"eab.key\" }");
    let running = with.start().await;
    running.logged("acme.account_created").await;
    running.logged("acme.issued").await;
    running.end().await;

    // Without it the authority refuses, and the log says why.
    fs::remove_file(site.storage().join("account.json")).expect("removed");
    fs::remove_file(site.certificate()).expect("removed");
    let running = site.start().await;
    let failed = running.logged("acme.failed").await;
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("externalAccountRequired")), "{failed}");
    assert_eq!((&failed["reason"], &failed["certificate"]), (&"refused".into(), &"none".into()));
    running.end().await;
}

#[tokio::test]
async fn an_account_that_the_authority_lost_is_made_anew() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let running = site.start().await;
    running.logged("acme.issued").await;
    running.end().await;
    let port = pebble.directory.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port");
    let port = port.parse().expect("a port");
    drop(pebble);
    // Its memory is all that it has.
    let mut site = site;
    let pebble = wait_for_port(port, ports).await;
    site.ca.clone_from(&pebble.ca);
    fs::remove_file(site.certificate()).expect("removed");
    let running = site.start().await;
    let failed = running.logged("acme.failed").await;
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("accountDoesNotExist")), "{failed}");
    let lost = site.storage().join("account.json");
    wait_until("the account is gone", || lost.exists(), |exists| !exists).await;
    running.end().await;
    let running = site.start().await;
    running.logged("acme.issued").await;
    running.end().await;
}

async fn wait_for_port(port: u16, ports: Ports) -> Pebble {
    let bind = || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    wait_until("the port is free", bind, |is_free| *is_free).await;
    Pebble::start_at(port, ports, Terms::default()).await
}

#[tokio::test]
async fn a_revoked_certificate_is_replaced_by_a_running_proxy() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let file = site.write();
    let revoke = async |words: &[&str]| {
        let mut command = Command::new(PULSEGATE);
        Process::run("pulsegate revoke", command.args(["revoke", "-c"]).arg(&file).args(words)).await
    };
    revoke(&[]).await.failed(1, &["there is no certificate in ", "; nothing is revoked"]);
    let running = site.start().await;
    running.logged("acme.issued").await;
    wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
    let first = running.presents().await;
    let revoked = revoke(&["--key-compromise"]).await;
    assert_eq!(revoked.succeeded().out, format!("revoked the certificate for {NAME}\n"));
    wait_until_async("another", async || running.presents().await, |pin| pin.is_some() && *pin != first).await;
    assert_eq!(running.lines("acme.ordering")[1]["reason"], "missing");
    assert!(pebble.transcript().contains("/revoke-cert"), "{}", pebble.transcript());
    running.end().await;
}
