//! The npm packages of `deploy/npm`: packed from the program under test, and installed by package managers from a registry
//! on loopback.
//!
//! Each test has a project, a home and caches of its own, empty at first.

mod launcher;
mod managers;
mod npx;
mod pack;
mod packed;
mod running;
mod sandbox;
