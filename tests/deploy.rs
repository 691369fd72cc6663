//! What `deploy/` makes and shows: packages.

mod bare_root;
mod deb;
mod made;
mod rpm_apk;
