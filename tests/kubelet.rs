//! Manifests on a replayed kubelet: `tests/kubelet` starts the pods of a manifest with real processes, probes, updates and ends
//! them as the kubelet does. Each output that puts pulsegate beside an app passes the same rolling update under a thousand
//! clients.

use std::fs;

use pulsegate_test_kit::pki::Pki;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::deploy::made::{command, succeed};
use crate::image::built::{image, isolated};

/// The clients of a rolling update.
const CLIENTS: &str = "1000";

/// The rolling updates at the same time: more of them would compete for the window of their drains.
static UPDATES: Semaphore = Semaphore::const_new(2);

/// The manifests: a name, and the command that prints one, from the root of the repository.
macro_rules! rolling_updates_of {
    ($($name:ident: $command:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let _turn = UPDATES.acquire().await.expect("the semaphore is never closed");
            prove("rolling_update", $command, &["--clients", CLIENTS]).await;
        })*
    };
}

mod rolling_update {
    use super::{CLIENTS, UPDATES, prove};

    rolling_updates_of! {
        a_plain_manifest: &["cat", "tests/kubelet/pod.yaml"];
        kustomize: &["tests/kubelet/rendered", "kustomize"];
        helm: &["tests/kubelet/rendered", "helm"];
        inject: &["tests/kubelet/rendered", "inject", crate::PULSEGATE];
    }
}

/// The manifest of the proofs below.
const MANIFEST: &[&str] = &["cat", "tests/kubelet/pod.yaml"];

/// Plays the manifest that a command prints, and proves the sentence of this name in `proofs.py`.
async fn prove(proof: &str, manifest: &'static [&str], arguments: &[&str]) {
    let folder = TempDir::with_prefix("pulsegate-kubelet-").expect("make a temporary directory");
    let (tls, yaml) = (folder.path().join("tls"), folder.path().join("manifest.yaml"));
    // The second authority and certificate are those of a renewal.
    for certificates in [tls.clone(), tls.join("next")] {
        fs::create_dir(&certificates).expect("make a folder");
        Pki::make(&certificates);
    }
    let (proof, arguments): (_, Vec<_>) = (proof.to_owned(), arguments.iter().map(ToString::to_string).collect());
    let printed = tokio::task::spawn_blocking(move || {
        fs::write(&yaml, succeed(command(manifest[0]).args(&manifest[1..]))).expect("write a file");
        let mut play = isolated("kubelet/proofs.py");
        play.arg(&proof).arg("--manifest").arg(&yaml).arg("--image").arg(&image().folder).arg("--tls").arg(&tls);
        let printed = succeed(play.args(arguments));
        assert!(printed.ends_with(&format!("ok: {proof}\n")), "{printed}");
        printed
    });
    println!("{}", printed.await.expect("the replay ends well"));
}

#[tokio::test]
async fn without_a_folder_and_a_hook_the_clients_are_thrown_out_at_once() {
    prove("loses_clients", MANIFEST, &["--clients", "300"]).await;
}

#[tokio::test]
async fn without_a_folder_the_hook_fails() {
    prove("drain_without_folder", MANIFEST, &[]).await;
}

#[tokio::test]
async fn changed_secrets_and_config_maps_are_taken_up_and_broken_ones_kept_out() {
    prove("takes_up_changes", MANIFEST, &[]).await;
}

#[tokio::test]
async fn an_app_that_crashes_is_started_again_behind_the_same_proxy() {
    prove("app_crashes", MANIFEST, &[]).await;
}

#[tokio::test]
async fn an_app_that_hangs_is_started_again_behind_the_same_proxy() {
    prove("app_hangs", MANIFEST, &[]).await;
}

#[tokio::test]
async fn a_proxy_that_is_killed_is_started_again_and_still_drains() {
    prove("proxy_crashes", MANIFEST, &[]).await;
}

#[tokio::test]
async fn a_client_that_never_closes_does_not_hold_the_drain() {
    prove("client_never_closes", MANIFEST, &[]).await;
}

#[tokio::test]
async fn an_app_that_never_exits_is_killed_after_its_clients_have_left() {
    prove("app_never_exits", MANIFEST, &[]).await;
}
