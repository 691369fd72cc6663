//! The export of spans by the binary that is built with the feature `otel`, to a collector that the test plays.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other end-to-end tests")]
mod support;

mod collector;
mod outages;
mod protobuf;
mod spans;
