//! The storage folder as others leave it: read-only, exposed, damaged, with what a kill left behind, from an earlier version.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use pulsegate_test_kit::process::{Finished, Process};
use pulsegate_test_kit::wait::wait_until_async;
use tokio::process::Command;

use super::fake::{Answer, Authority};
use super::pebble::{Pebble, Terms};
use super::rig::{NAME, Ports, Site};
use crate::PULSEGATE;

/// Returns a command of the program as a user without rights.
fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(PULSEGATE);
    command
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("run the tests as root");
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(65_534), Some(65_534)).expect("run the tests as root");
}

#[tokio::test]
async fn run_refuses_a_folder_as_check_does() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    let (file, storage) = (site.write(), site.folder.path().join("storage"));
    for path in [site.folder.path(), authority.ca().parent().expect("a folder")] {
        set_mode(path, 0o755);
    }
    let both = async || {
        let one = async |word| Process::run(word, as_nobody().args([word, "-c"]).arg(&file)).await;
        [one("check").await, one("run").await]
    };
    let refused = |results: [Finished; 2], words: &str| {
        for result in results {
            let text = format!("{}{}", result.out, result.err);
            assert_eq!(result.code, Some(78), "{result:#?}");
            assert!(text.contains("tls.acme.storage") || text.contains("tls.acme.domains"), "{result:#?}");
            assert!(text.contains(words), "no {words:?} in {result:#?}");
        }
    };
    // Another user's folder above it, which it cannot be made in.
    refused(both().await, "let the user that pulsegate runs as write there");
    // Read-only, and empty.
    fs::create_dir(&storage).expect("a folder");
    set_mode(&storage, 0o555);
    refused(both().await, "let the user that pulsegate runs as write there");
    fs::remove_dir(&storage).expect("removed");
    // The folder of the authority is read-only.
    set_mode(&site.make_storage(), 0o555);
    set_mode(&storage, 0o755);
    refused(both().await, "let the user that pulsegate runs as write there");
    // Another user has the lock file.
    let folder = site.make_storage();
    give_to_nobody(&folder);
    set_mode(&storage, 0o755);
    fs::write(folder.join("lock"), "").expect("written");
    set_mode(&folder.join("lock"), 0o600);
    refused(both().await, "lock: cannot be written");
}

#[tokio::test]
async fn a_read_only_folder_with_a_certificate_is_a_warning() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    let file = site.write();
    site.put_certificate(&format!("{NAME}.pem"));
    let folder = site.storage();
    for path in [site.folder.path(), authority.ca().parent().expect("a folder"), folder.parent().expect("a folder")] {
        set_mode(path, 0o755);
    }
    give_to_nobody(&site.certificate());
    set_mode(&folder, 0o555);
    let check = Process::run("check", as_nobody().args(["check", "-c"]).arg(&file)).await;
    let text = &check.succeeded().out;
    for words in
        ["warning: ", " cannot be written: ", "the certificate there is presented, and not renewed; let the user"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let process = Process::start_without_input("pulsegate", as_nobody().args(["run", "-c"]).arg(&file));
    process.line("the warning", |line| line.json["message"] == "acme.storage_unusable").await;
    process.line("its ports", |line| line.json["message"] == "listening").await;
    process.terminate();
    assert_eq!(process.finish().await.code, Some(0));
}

#[tokio::test]
async fn a_key_that_others_can_read_is_warned_of() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    site.put_certificate(&format!("{NAME}.pem"));
    set_mode(&site.certificate(), 0o644);
    set_mode(&site.folder.path().join("storage"), 0o777);
    let check = site.check().await;
    let text = &check.succeeded().out;
    for words in
        ["warning: every user of this machine can read the private key in ", "storage (mode 0777): run `chmod o= "]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let running = site.start().await;
    let warnings = running.lines("acme.storage_exposed");
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings.iter().all(|line| line["level"] == "WARN"), "{warnings:#?}");
    running.end().await;
    set_mode(&site.certificate(), 0o600);
    set_mode(&site.folder.path().join("storage"), 0o700);
    let check = site.check().await;
    assert!(!check.succeeded().out.contains("every user of this machine can re"), "{check:#?}");
}

#[tokio::test]
async fn a_damaged_certificate_is_replaced_by_an_order() {
    for text in ["", "half a fi"] {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Terms::default()).await;
        let site = pebble.site(ports);
        let file = site.make_storage().join(format!("{NAME}.pem"));
        fs::write(&file, text).expect("written");
        let check = site.check().await;
        let said = &check.succeeded().out;
        assert!(said.contains("warning: ") && said.contains("another certificate is ordered"), "{said}");
        let running = site.start().await;
        running.logged("acme.certificate_damaged").await;
        running.logged("acme.issued").await;
        wait_until_async("the certificate", async || running.presents().await, Option::is_some).await;
        assert_eq!(running.lines("acme.ordering")[0]["reason"], "missing");
        running.end().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_damaged_later_stays_in_force() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    site.put_certificate(&format!("{NAME}.pem"));
    let running = site.start().await;
    let before = running.presents().await;
    fs::write(site.certificate(), "half a fi").expect("written");
    running.process.hang_up();
    let failed = |line: &pulsegate_test_kit::process::OutputLine| {
        line.json["message"] == "config.reload_failed"
            && line.json["error"].as_str().is_some_and(|error| error.contains(NAME))
    };
    running.process.line("a refused reload", failed).await;
    assert!(before.is_some() && running.presents().await == before, "{}", running.process.transcript());
    running.end().await;
}

#[tokio::test]
async fn a_damaged_account_is_kept_and_another_is_made() {
    for text in ["", "{\"id\":", "{\"id\":\"a\",\"key_pkcs8\":\"AAAA\",\"directory\":\"no url at all\"}"] {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Terms::default()).await;
        let site = pebble.site(ports);
        let folder = site.make_storage();
        fs::write(folder.join("account.json"), text).expect("written");
        let running = site.start().await;
        let damaged = running.logged("acme.account_damaged").await;
        assert_eq!(damaged["level"], "WARN");
        running.logged("acme.account_created").await;
        running.logged("acme.issued").await;
        running.end().await;
        assert_eq!(fs::read_to_string(folder.join("account.json.damaged")).expect("kept"), text);
        assert!(fs::read_to_string(folder.join("account.json")).expect("another").contains("/my-account/"));
    }
}

#[tokio::test]
async fn a_certificate_is_revoked_by_its_own_key_where_the_account_is_lost() {
    for (damage, words) in [(Some("half"), "account.json is damaged"), (None, "account.json is missing")] {
        let ports = Ports::free();
        let pebble = Pebble::start(ports, Terms { nonces_refused: 20, ..Terms::default() }).await;
        let site = pebble.site(ports);
        let running = site.start().await;
        running.logged("acme.issued").await;
        running.end().await;
        let account = site.storage().join("account.json");
        match damage {
            Some(text) => fs::write(&account, text).expect("written"),
            None => fs::remove_file(&account).expect("removed"),
        }
        let mut command = Command::new(PULSEGATE);
        let command = command.args(["revoke", "--key-compromise", "-c"]).arg(site.write());
        let revoked = Process::run("pulsegate revoke", command).await;
        let said = &revoked.succeeded().out;
        assert!(said.starts_with(&format!("revoked the certificate for {NAME}\nby its own key: ")), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(
            !site.certificate().exists() && pebble.transcript().contains("/revoke-cert"),
            "{}",
            pebble.transcript()
        );
    }
}

#[tokio::test]
async fn a_refused_revocation_by_the_own_key_names_the_lost_account() {
    let authority =
        Authority::start(|_, path| (path == "/revoke").then(|| Answer::problem(403, "unauthorized", "not yours")))
            .await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free());
    site.put_certificate(&format!("{NAME}.pem"));
    let mut command = Command::new(PULSEGATE);
    let revoked = Process::run("pulsegate revoke", command.args(["revoke", "-c"]).arg(site.write())).await;
    revoked.failed(1, &["account.json is missing", "the authority refuses: not yours (unauthorized)"]);
    assert!(site.certificate().exists(), "nothing is removed");
}

#[tokio::test]
async fn what_a_killed_order_left_is_removed_by_the_next() {
    let ports = Ports::free();
    let pebble = Pebble::start(ports, Terms::default()).await;
    let site = pebble.site(ports);
    let folder = site.make_storage();
    for file in ["http-01.some_Token-1", &format!("tls-alpn-01.{NAME}"), ".account.json.17.new", "notes.txt"] {
        fs::write(folder.join(file), "text").expect("written");
    }
    let running = site.start().await;
    running.logged("acme.issued").await;
    running.end().await;
    assert_eq!(site.files(), ["account.json", &format!("{NAME}.pem"), "lock", "notes.txt"]);
}

#[tokio::test]
async fn a_certificate_of_an_earlier_version_gets_its_name_and_none_is_ordered() {
    let authority = Authority::start(|_, _| None).await;
    let mut site = Site::at(&authority.directory, authority.ca(), Ports::free());
    site.domains = vec!["www.acme.test", NAME];
    site.put_certificate("www.acme.test.pem");
    let text = fs::read(site.storage().join("www.acme.test.pem")).expect("there");
    let running = site.start().await;
    let before = running.presents().await;
    assert!(before.is_some(), "from the start");
    running.logged("acme.certificate_renamed").await;
    let scheduled = async || running.metric("pulsegate_acme_next_order_timestamp_seconds").await.unwrap_or(0.0);
    wait_until_async("the time of the renewal", scheduled, |at| *at > 1e9).await;
    assert_eq!(running.presents().await, before);
    running.end().await;
    let pems = site.pem_files();
    assert!(pems.len() == 1 && pems[0].starts_with(&format!("{NAME}+")), "{pems:?}");
    assert!(fs::read(site.storage().join(&pems[0])).expect("there") == text, "the same certificate");

    // The order in which the names stand says nothing.
    site.domains.reverse();
    let running = site.start().await;
    let scheduled = async || running.metric("pulsegate_acme_next_order_timestamp_seconds").await.unwrap_or(0.0);
    wait_until_async("the time of the renewal", scheduled, |at| *at > 1e9).await;
    assert_eq!(running.presents().await, before);
    running.end().await;
    assert!(authority.asked("/order").is_empty(), "nothing is ordered");
}

#[tokio::test]
async fn a_key_of_an_external_account_is_checked_before_it_is_needed() {
    let authority = Authority::start(|_, _| None).await;
    let site = Site::at(&authority.directory, authority.ca(), Ports::free())
        .with("external_account = { key_id = \"kid-1\", key_file = \"eab.key\" }");
    let key = site.folder.path().join("eab.key");
    for words in ["eab.key: cannot be read: ", "eab.key: no MAC key in this file"] {
        let (check, run) = (site.check().await, site.run().await);
        for text in [&check.out, &run.err] {
            assert!(text.contains("tls.acme.external_account.key_file") && text.contains(words), "{check:#?}{run:#?}");
        }
        assert_eq!((check.code, run.code), (Some(78), Some(78)));
        fs::write(&key, "no key!").expect("written");
    }
    fs::write(&key, "YWJj\n").expect("written");
    set_mode(&key, 0o600);
    site.check().await.succeeded();
    let running = site.start().await;
    // Lost before the order, which needs it.
    running.logged("acme.failed").await;
    running.end().await;
    // With an account it is needed no more.
    site.make_storage();
    fs::remove_file(&key).expect("removed");
    fs::write(site.storage().join("account.json"), "{}").expect("written");
    site.check().await.succeeded();
}

#[tokio::test]
async fn replicas_that_start_at_once_do_not_stand_in_each_others_way() {
    let authority = Authority::start(|_, _| None).await;
    let sites: Vec<_> = (0..6).map(|_| Site::at(&authority.directory, authority.ca(), Ports::free())).collect();
    let storage = sites[0].folder.path().join("storage");
    fs::create_dir(&storage).expect("a folder");
    for site in &sites[1..] {
        symlink(&storage, site.folder.path().join("storage")).expect("a link");
    }
    let started = futures_util::future::join_all(sites.iter().map(Site::start)).await;
    for running in started {
        running.end().await;
    }
}
