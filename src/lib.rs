//! pulsegate: a TLS-terminating reverse proxy that takes WebSocket heartbeats off an app's hands.

#![warn(clippy::unwrap_used)]

pub mod accept;
pub mod cli;
pub mod config;
pub mod drain;
pub mod heartbeat;
pub mod http;
mod pulse;
pub mod registry;
pub mod relay;
pub mod server;
pub mod tcp_info;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod ws;
