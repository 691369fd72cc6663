//! The relay over in-memory streams and paused time: what goes over each wire, byte for byte.

mod alive;
mod answer;
mod deflate;
mod framing;
mod held;
mod identity;
mod messages;
mod model;
mod passive;
mod rig;
mod teardown;
mod upstream;
