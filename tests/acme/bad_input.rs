//! Domains that lead elsewhere, authorities that answer nonsense, storage that cannot be written, ports without the right.

use std::fs;
use std::os::unix::fs::symlink;

use pulsegate_test_kit::process::Process;
use tokio::process::Command;

use super::fake::{Answer, Authority};
use super::pebble::{Pebble, Terms};
use super::rig::{NAME, Ports, Site};
use crate::PULSEGATE;

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_reported_with_the_way_out() {
    for (challenge, port, key) in [("tls-alpn-01", 443, "listen.address"), ("http-01", 80, "listen.redirect")] {
        // The authority finds nothing at the ports that it knows.
        let pebble = Pebble::start(Ports::free(), Terms::default()).await;
        let site = pebble.site(Ports::free()).with(&format!("challenge = \"{challenge}\""));
        let running = site.start().await;
        let failed = running.logged("acme.failed").await;
        let error = failed["error"].as_str().expect("an error");
        assert!(error.starts_with(&format!("the authority cannot verify {NAME} by {challenge}: ")), "{error}");
        assert!(error.ends_with(&format!("lead port {port} of it to {key}")), "{error}");
        assert_eq!(failed["reason"], "challenge_failed");
        running.end().await;
        assert_eq!(site.files(), ["account.json", "lock"], "no challenge is left");
    }
}

#[tokio::test]
async fn an_authority_that_answers_nonsense_changes_nothing() {
    for (path, answer, reason, words) in [
        ("/dir", Answer::of(200, "<html>welcome</html>"), "invalid_response", "is not ACME"),
        ("/dir", Answer::of(200, "{}"), "invalid_response", "is not ACME"),
        (
            "/dir",
            Answer::of(404, "nothing"),
            "invalid_response",
            "; check the URL of the directory (tls.acme.directory)",
        ),
        (
            "/dir",
            Answer::of(302, "").with("Location", "https://acme.example/directory"),
            "invalid_response",
            "302 Found and leads to https://acme.example/directory; set the URL that it leads to (tls.acme.directory)",
        ),
        (
            "/order",
            Answer::problem(403, "userActionRequired", "new terms")
                .with("Link", "<https://ca.example/terms>;rel=\"terms-of-service\""),
            "refused",
            "new terms (userActionRequired); do what the authority asks for on https://ca.example/terms",
        ),
        ("/dir", Answer::of(503, "<h1>busy</h1>").with("Retry-After", "7"), "unreachable", "503"),
        ("/dir", Answer::of(200, "x".repeat(2 << 20)), "invalid_response", "too large"),
        ("/account", Answer::of(201, "{}"), "invalid_response", "account"),
        ("/order", Answer::of(201, "[]").with("Location", "x"), "invalid_response", "is not ACME"),
        ("/order", Answer::problem(400, "malformed", "a\u{1b}[31mb\r\nc"), "refused", "a[31mb c (malformed)"),
    ] {
        let shown = answer.clone();
        let authority = Authority::start(move |_, at| (at == path).then(|| answer.clone())).await;
        let site = Site::at(&authority.directory, authority.ca(), Ports::free());
        let running = site.start().await;
        let failed = running.logged("acme.failed").await;
        let error = failed["error"].as_str().expect("an error");
        assert!(failed["reason"] == reason && error.contains(words), "{path} {shown:?}: {failed}");
        assert!(error.len() < 1000 && !error.contains(['\u{1b}', '\r', '\n']), "{error}");
        assert!(failed["retry_in_s"].as_u64().is_some_and(|pause| (3..=80).contains(&pause)), "{failed}");
        running.end().await;
        assert!(!site.files().contains(&format!("{NAME}.pem")), "{:?}", site.files());
    }
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_gets_nothing() {
    let authority = Authority::start(|_, _| None).await;
    let folder = tempfile::TempDir::new().expect("a folder");
    let other = pulsegate_test_kit::pki::Pki::make(folder.path());
    let running = Site::at(&authority.directory, &other.ca, Ports::free()).start().await;
    let failed = running.logged("acme.failed").await;
    let error = failed["error"].as_str().expect("an error");
    // Both authorities have one name, so that it is the signature that does not fit.
    assert!(error.starts_with("cannot reach the authority: 127.0.0.1: its certificate is not acceptable"), "{error}");
    assert_eq!(authority.asked("/"), Vec::<serde_json::Value>::new());
    running.end().await;
}

#[tokio::test]
async fn storage_that_cannot_be_written_ends_the_start_with_a_sentence() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    let storage = site.folder.path().join("storage");
    let both = async |words: &[&str]| {
        let (check, run) = (site.check().await, site.run().await);
        assert_eq!((check.code, run.code), (Some(78), Some(78)), "{check:#?}{run:#?}");
        for words in [&["tls.acme.storage` cannot be used: "], words].concat() {
            assert!(check.out.contains(words) && run.err.contains(words), "no {words:?} in {check:#?}{run:#?}");
        }
    };
    // A file system that no user can write, root neither.
    symlink("/proc/self", &storage).expect("a link");
    both(&["cannot be written: ", "set it to"]).await;
    fs::remove_file(&storage).expect("removed");
    symlink("/nowhere/at/all", &storage).expect("a link");
    both(&["is in the way: remove it"]).await;
    fs::remove_file(&storage).expect("removed");
    fs::write(&storage, "").expect("written");
    both(&["a file is in the way: remove it"]).await;
    fs::remove_file(&storage).expect("removed");
    // A name that is too long for a file shows only when it is made.
    let site = Site::at(&format!("{}{}", authority.directory, "x".repeat(300)), authority.ca(), Ports::free());
    site.run().await.failed(78, &["cannot create ", "(tls.acme.storage); ", "set it to"]);
}

#[tokio::test]
async fn check_says_what_would_be_asked_for_and_asks_nothing() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    let check = site.check().await;
    assert_eq!(check.code, Some(0), "{check:#?}");
    for words in [
        format!("orders       a certificate for {NAME}\n"),
        format!("from {}, contact mailto:ops@acme.test\n", authority.directory),
        "by tls-alpn-01: port 443 of each name must lead here\n".to_owned(),
        "presents     no certificate before the first order is done\n".to_owned(),
    ] {
        assert!(check.out.contains(&words), "no {words:?} in {check:#?}");
    }
    assert_eq!(authority.asked("/"), Vec::<serde_json::Value>::new());
    assert!(!site.folder.path().join("storage").exists(), "nothing is written");
}

#[tokio::test]
async fn flags_for_a_site_that_contradict_are_refused() {
    for (flags, code, words) in [
        (&["--domain", NAME, "--certificate", "tls.crt"][..], 2, "cannot be used with"),
        (&["--domain", "*.acme.test", "--upstream", "http://127.0.0.1:9"], 78, "1 error in the configuration"),
        (&["--domain", "https://app.acme.test/", "--", "node", "server.js"], 78, "write \"app.acme.test\""),
    ] {
        let folder = tempfile::TempDir::new().expect("a folder");
        let run = Process::run("run", Command::new(PULSEGATE).arg("run").args(flags).current_dir(folder.path())).await;
        run.failed(code, &[words]);
    }
}

#[tokio::test]
async fn port_443_without_the_right_is_a_sentence_and_nothing_is_ordered() {
    let folder = tempfile::TempDir::new().expect("a folder");
    // As a user without rights; the folder is its own.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.args([PULSEGATE, "run", "--domain", NAME, "--email", "ops@acme.test", "--upstream", "http://127.0.0.1:9"]);
    command.env("PULSEGATE__TLS__ACME__STORAGE", folder.path().join("acme")).current_dir(folder.path());
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).expect("run the tests as root");
    let finished = Process::run("pulsegate run", &mut command).await;
    finished.failed(1, &["cannot listen on 0.0.0.0:443 (listen.address): Permission denied"]);
    assert!(!finished.err.contains("acme.ordering"), "{finished:#?}");
}
