//! Real libraries, a real app and a real page of each, with the built binary between them: which heartbeat the proxy
//! speaks to which library, what it finds out, and what the library does then. The README's table is made of it.
//!
//! A library is a folder: `mod.rs` says what is expected of it, `app.js` and `page.js` are its two ends (`page.js` of
//! this folder says what they have in common). It is tried by the scenarios of `matrix.rs`.

mod actioncable;
mod graphql_ws;
mod jupyterlab;
mod library;
mod matrix;
mod mqtt;
mod phoenix;
mod pusher;
mod reconnecting;
mod returns;
mod signalr;
mod socket_io;
mod stomp;
mod stopped;
mod subscriptions_transport_ws;
mod table;
mod ws;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
