//! The container image: what is in it, how it is built, and how it runs without a root that it can write to and without
//! capabilities. It holds the program under test, linked statically.

pub(crate) mod built;

mod files;
mod runs;
