//! The relay over in-memory streams and paused time: what goes over each wire, byte for byte.

mod framing;
mod identity;
mod limits;
mod rig;
mod teardown;
mod upstream;
