//! Frameworks and development servers behind the built binary, unchanged and with their real clients, over wss.
//! README's table "Works with" is made of the rows that are tried here.
//!
//! An app is a folder with `app.js`. Its client is a `page.js`, or a page in headless Chromium.

mod apps;
mod client;
mod row;
mod scenario;
mod table;
