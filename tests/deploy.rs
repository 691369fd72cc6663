//! What `deploy/` makes and shows: packages, Docker Compose.

mod bare_root;
mod compose;
mod deb;
mod made;
mod rpm_apk;
