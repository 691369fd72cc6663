//! Configuration: defaults < file < environment < flags.

mod settings;

pub use settings::*;
