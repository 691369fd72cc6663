//! The WebSocket upgrade over HTTP/1.1: what the client must offer (RFC 6455 §4.2.1), what the app must answer
//! (§4.1), and the session that both lead to.

mod offer;
mod refusal;
mod session;

pub use offer::{Agreement, Offer, wanted};
pub use refusal::Refusal;
pub use session::{Prepared, Sessions, regain};
