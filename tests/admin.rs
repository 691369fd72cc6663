//! The admin API and the health listener of the built binary: real WebSockets behind it, raw bytes in front of it.

mod abuse;
mod api;
mod bad_input;
mod closing;
mod diagnosis;
mod events;
mod health;
mod paging;
mod paper;
mod reasons;
mod rig;
mod sockets;
