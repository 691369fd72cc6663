//! pulsegate: a TLS-terminating reverse proxy that takes WebSocket heartbeats off an app's hands.
//!
//! The stages are ordered along the path of a connection; each is handed the next one and imports none before it:
//!
//! ```text
//! accept → tls → http → upgrade → relay ⇄ (ws scanner, heartbeat engine)
//!                  ↘ forward (plain requests)      ↓
//!                     upstream (dial, pool)     registry, telemetry
//! ```

#![warn(clippy::unwrap_used)]

pub mod accept;
pub mod acme;
pub mod admin;
pub mod child;
pub mod cli;
pub mod config;
pub mod connection_limits;
pub mod descriptors;
pub mod drain;
pub mod generation;
pub mod heartbeat;
pub mod http;
pub mod inject;
mod platform;
pub mod proxy_protocol;
pub mod redirect;
pub mod registry;
pub mod relay;
pub mod reload;
pub mod server;
pub mod session;
pub mod suspension;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod ws;

/// Returns the current instant, for tests that derive all later instants from it.
#[cfg(test)]
fn any_instant() -> std::time::Instant {
    std::time::Instant::now()
}
