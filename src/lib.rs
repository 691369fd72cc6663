//! pulsegate: a TLS-terminating reverse proxy that takes WebSocket heartbeats off an app's hands.

#![warn(clippy::unwrap_used)]

pub mod cli;
pub mod config;
pub mod heartbeat;
pub mod http;
pub mod registry;
pub mod relay;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
pub mod ws;
