//! The built binary between raw sockets: a scripted TLS client and a scripted app that write and read every byte
//! themselves. The TLS client and the HTTP upgrade are implemented here, the frames in the kit; no code is shared with
//! the proxy.

mod app;
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
