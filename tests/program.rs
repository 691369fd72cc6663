//! The tests of the built binary, as one test binary: they wait for most of their time, and wait together.
//!
//! A family of tests is a module with a folder: `cargo test --test program wire::` runs one. Pages and libraries are in
//! `pages`. Tests that need a fixed port, network namespaces or a cargo feature are test binaries of their own.

mod acme;
mod admin;
mod child;
mod deploy;
mod dev;
mod e2e;
mod generated;
mod h2;
mod image;
mod inject;
mod kubelet;
mod kubernetes;
mod metrics;
mod monitoring;
mod operate;
mod ping;
mod runbook;
mod wire;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
