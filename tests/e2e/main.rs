//! The built binary in front of a real Express app, real clients and fakes that misbehave; all of it on loopback.

mod abuse;
mod answer;
mod app_liveness;
mod app_mode;
mod bad_frames;
mod bad_requests;
mod bad_upstream;
mod bare;
mod browser;
mod classic;
mod deflate;
mod departed;
mod drain;
mod early_answer;
mod edge;
mod frames;
mod hidden_tab;
mod hung_page;
mod kept;
mod like_direct;
mod listener;
mod open_files;
mod operate;
mod origins;
mod own_apps;
mod passthrough;
mod pinned;
mod proxy_protocol;
mod recipe;
mod reload;
mod reload_refused;
mod reload_under_load;
mod sessions;
mod shutdown;
mod spoken;
mod stopped;
mod streaming;
mod suspended;
mod tls;
mod told_by_header;
mod upgrade;
mod uploading;
mod upstream_tls;
mod without_tls;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
