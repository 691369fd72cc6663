//! The export of spans by the binary that is built with the feature `otel`, to a collector that the test plays.

mod collector;
mod outages;
mod protobuf;
mod spans;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
