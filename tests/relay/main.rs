//! The relay over in-memory streams and paused time: the bytes on each wire.

mod alive;
mod answer;
mod deflate;
mod framing;
mod held;
mod identity;
mod limits;
mod messages;
mod model;
mod observed;
mod operator;
mod passive;
mod rig;
mod teardown;
mod unwritable;
mod upstream;
mod vitals;
