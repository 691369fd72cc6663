//! Frameworks and development servers behind the built binary, unchanged and with their own clients, over wss.
//! The table "Works with" comes from these tests.
//!
//! An app is a folder with `app.js`. Its client is a `page.js`, or a page in headless Chromium.

mod apps;
mod client;
mod row;
mod scenario;
mod table;
