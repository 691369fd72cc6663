//! What `deploy/` makes and shows: packages, the artifacts of a release, Docker Compose.

mod artifacts;
mod bare_root;
mod compose;
mod deb;
pub(crate) mod made;
mod rpm_apk;
