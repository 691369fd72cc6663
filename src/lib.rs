//! pulsegate: a TLS-terminating reverse proxy that takes WebSocket heartbeats off an app's hands.
//!
//! The path of a connection is the order of the stages; each is handed the next and knows none before it:
//!
//! ```text
//! accept → tls → http → upgrade → relay ⇄ (ws scanner, heartbeat engine)
//!                  ↘ forward (plain requests)      ↓
//!                     upstream (dial, pool)     registry, telemetry
//! ```

#![warn(clippy::unwrap_used)]

pub mod accept;
pub mod admin;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod drain;
pub mod gate;
pub mod generation;
pub mod heartbeat;
pub mod http;
mod platform;
pub mod proxy_protocol;
pub mod redirect;
pub mod registry;
pub mod relay;
pub mod reload;
pub mod server;
pub mod suspension;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod ws;

/// Any instant, for tests that invent the ones after it.
#[cfg(test)]
fn any_instant() -> std::time::Instant {
    std::time::Instant::now()
}
