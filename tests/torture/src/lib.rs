//! A judge of WebSocket proxies that shares no code with pulsegate.
//!
//! ```text
//! seed ──draw──▶ plan ──run──▶ client ═ link ═ proxy ═ link ═ app     what each end saw
//!                        └───▶ client ═ link ═══════════════ app     the same without a proxy
//!                                                                      └──judge──▶ faults
//! ```
//!
//! [`draw`] turns a seed into a [`plan`], [`run`] runs a batch of plans through one [`proxy`] process, and [`judge`]
//! compares the records with the promises. [`shrink`] makes a failing plan smaller.

pub mod against;
pub mod app;
pub mod built;
pub mod client;
pub mod clock;
pub mod draw;
pub mod endpoint;
pub mod frame;
pub mod gate;
pub mod judge;
pub mod link;
pub mod plan;
pub mod proxy;
pub mod run;
pub mod sabotage;
pub mod session;
pub mod shrink;
pub mod trace;
pub mod tunnel;
