//! The WebSocket upgrade: validation of the client's handshake (RFC 6455 §4.2.1; RFC 8441 §5 over HTTP/2) and of the
//! app's response (RFC 6455 §4.1), and the start of the session.

mod offer;
mod refusal;
mod session;

pub use offer::{Agreement, Offer, is_websocket_request};
pub use refusal::UpgradeRefusal;
pub use session::{PreparedSession, Sessions, take_upgraded_stream};
