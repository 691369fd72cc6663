//! Certificates by ACME (RFC 8555): the program against pebble, an authority for tests, and against authorities that are
//! down or answer nonsense.

mod bad_input;
mod challenges;
mod child;
mod fake;
mod issuer;
mod outages;
mod pebble;
mod rig;
mod storage;
mod without_pebble;
