//! The image runs by runc, the runtime below Docker and Kubernetes, as it is hardened there.

use std::fs;

use pulsegate_test_kit::pki::Pki;

use super::built::{image, isolated, work};
use crate::deploy::made::succeed;

/// Runs one scenario of `runs.py`.
fn run(scenario: &str) {
    let tls = work().join(format!("tls-{scenario}"));
    fs::create_dir(&tls).expect("make a folder");
    Pki::make(&tls);
    let printed = succeed(isolated("image/runs.py").arg(scenario).arg(&image().folder).arg(&tls));
    assert!(printed.ends_with(&format!("ok: {scenario}\n")), "{printed}");
}

#[test]
fn it_runs_on_a_read_only_root_without_capabilities() {
    run("read_only");
}

#[test]
fn it_drains_by_a_command_with_a_volume_for_the_socket() {
    run("with_volume");
}

#[test]
fn it_drains_by_a_command_on_a_root_that_it_can_write_to() {
    run("writable_root");
}
