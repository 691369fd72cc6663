//! Real-time libraries, each with an app and a page, and the built binary between them: the heartbeat that the proxy
//! uses with each library, how it detects it, and how the library reacts to a close. The tables of the documents come
//! from here.
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
