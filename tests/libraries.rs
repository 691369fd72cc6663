//! Real libraries, a real app and a real page of each, with the built binary between them: which heartbeat the proxy
//! speaks to which library, what it finds out, and what the library does then. The README's table is made of it.
//!
//! A library is a module, which states the expectations, and a folder: `app.js` and `page.js` are its two ends (`page.js`
//! of `tests/libraries` has what they share). The scenarios of `matrix.rs` run with each library.

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
