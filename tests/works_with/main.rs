//! Frameworks and development servers behind the built binary, unchanged and with their real clients, over wss.
//! The table of README.md in this folder is made of the rows that are tried here.
//!
//! An app is a folder with `app.js`. Its client is a `page.js`, or a page in headless Chromium.

#[expect(dead_code, reason = "shared with the other end-to-end tests")]
#[path = "../support/mod.rs"]
mod support;

mod apps;
mod client;
mod row;
mod scenario;
mod table;
