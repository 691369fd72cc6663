//! The inspect page in headless Chromium: with the built binary behind it, and with a made-up crowd of sessions.
//!
//! `picture.js` makes the picture of it in `deploy/OPERATIONS.md`.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other end-to-end tests")]
mod support;

mod crowd;
mod dev;
mod like_the_program;
mod page;
mod sessions;
mod sources;
