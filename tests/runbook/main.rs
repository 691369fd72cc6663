//! The runbook of `deploy/OPERATIONS.md` is true: each of its symptoms is brought about on the built binary, the command that stands below
//! it is run as it stands, and prints what the paper shows.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other end-to-end tests")]
mod support;

mod paper;
mod scene;
mod symptoms;
