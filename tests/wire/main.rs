//! The built binary between raw sockets: a scripted TLS client and a scripted app that write and read every byte
//! themselves. Frames, the TLS client and the HTTP upgrade are implemented here; no code is shared with the proxy.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other tests of the built binary")]
mod support;

mod app;
mod frames;
mod link;
mod peer;
mod record;
mod rig;
mod socket;

mod after_close;
mod answer_mode;
mod autobahn;
mod client_pings;
mod closing;
mod flood;
mod half_close;
mod interrupted;
mod kill;
mod lengths;
mod orderly_down;
mod orderly_up;
mod override_close;
mod scripts;
mod slow_session;
mod trickle;
mod violation;
mod waking;
mod write_failure;
