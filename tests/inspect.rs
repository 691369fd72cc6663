//! The inspect page in headless Chromium: with the built binary behind it, and with a made-up crowd of sessions.
//!
//! `picture.js` makes the picture of it in `deploy/OPERATIONS.md`.

mod crowd;
mod dev;
mod like_the_program;
mod page;
mod sessions;
mod sources;
