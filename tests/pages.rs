//! Pages, libraries and frameworks of others with the built binary between their two ends, in Node and in Chromium.
//!
//! They are apart from `program`, whose windows are short: a browser keeps all cores busy when it starts.

mod inspect;
mod libraries;
mod npm;
mod works_with;

/// The path of the program under test.
const PULSEGATE: &str = env!("CARGO_BIN_EXE_pulsegate");
