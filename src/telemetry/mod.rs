//! What the program says about itself: log lines, and numbers in [`metrics`].

pub mod lines;
pub mod metrics;
