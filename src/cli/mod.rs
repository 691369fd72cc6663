//! One file per command family.

pub mod check;
