//! Configuration: defaults < file < environment < flags.
//!
//! ```text
//! document ─┐
//! beside   ─┴→ layers (figment) → reader → sections → Settings
//!                                    ↓
//!                                  Report
//! ```
//!
//! `document` is the file with the place of each value, `beside` the environment and the flags, `layers` all of them
//! merged. `sections` asks the `reader` for every key by name, form and default (`edge` for those of the client's side,
//! `app` for the app's, `spoken` and `custom` for which heartbeat is spoken, `operate` for those who run it); they stand nowhere else, and a key that
//! nobody asks for is unknown. Nothing is refused alone: a [`Report`] holds everything that is wrong.
//! [`Shown`] is the way back: from settings to keys, each with its origin.

mod app;
mod beside;
mod cidr;
mod custom;
mod document;
mod edge;
mod form;
mod forwarded;
mod host;
mod layers;
mod names;
mod operate;
mod origins;
mod path;
mod pin;
mod reader;
mod report;
mod running;
mod sections;
mod settings;
mod shown;
mod spoken;
mod strangers;
mod suggest;
mod value;
pub mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use beside::{Environment, Overrides};
pub use cidr::{Cidr, CidrError};
pub use forwarded::Forwarded;
pub(crate) use forwarded::IDENTITY_FIELDS;
pub use host::{HostPattern, bare as bare_host};
pub use origins::{AllowedOrigin, OriginPolicy};
pub use pin::Pin;
pub use report::{Finding, Place, Report};
pub use settings::*;
pub use shown::Shown;
pub(crate) use suggest::nearest;

use document::Document;
use layers::Layers;
use reader::Reader;
use sections::Sections;

/// Loads the file at exactly `path`, lays the process's environment and `overrides` over it and validates all of it.
///
/// Relative paths in the file start from the file's folder; in variables and flags from the working directory.
/// Whether the TLS files exist and fit each other is not looked at.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Settings, Report> {
    load_with(path, overrides, |_| Ok(()), |_| Ok(()))
}

/// [`load`], with the TLS files put before `certificates`, and those for an app behind TLS before `app`; their refusals
/// are among the findings.
pub fn load_with(
    path: &Path,
    overrides: &Overrides,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
) -> Result<Settings, Report> {
    let document = Document::read(path)?;
    resolve(document, &Environment::of_process(), overrides, certificates, app).map(|(sections, _)| sections.settings)
}

/// [`load_with`], and beside the settings all keys that led to them, for people to look at.
pub fn load_shown(
    path: &Path,
    overrides: &Overrides,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
) -> Result<(Settings, Shown), Report> {
    let document = Document::read(path)?;
    resolve(document, &Environment::of_process(), overrides, certificates, app).map(shown)
}

/// Reads `text` as the file at `path`, which need not exist, with `environment` and `overrides` laid over it.
pub fn from_str(path: &Path, text: &str, environment: &Environment, overrides: &Overrides) -> Result<Settings, Report> {
    let document = Document::parse(path, text.to_owned())?;
    resolve(document, environment, overrides, |_| Ok(()), |_| Ok(())).map(|(sections, _)| sections.settings)
}

/// [`from_str`] without anything beside the file, and beside the settings all keys that led to them.
#[doc(hidden)]
pub fn from_str_shown(path: &Path, text: &str) -> Result<(Settings, Shown), Report> {
    let document = Document::parse(path, text.to_owned())?;
    resolve(document, &Environment::default(), &Overrides::default(), |_| Ok(()), |_| Ok(())).map(shown)
}

/// [`load_shown`], but for the process's environment.
#[cfg(test)]
pub(crate) fn load_alone(path: &Path) -> Result<(Settings, Shown), Report> {
    let document = Document::read(path)?;
    resolve(document, &Environment::default(), &Overrides::default(), |_| Ok(()), |_| Ok(())).map(shown)
}

fn shown((sections, layers): (Sections, Layers)) -> (Settings, Shown) {
    let shown = Shown::new(&layers, &sections);
    (sections.settings, shown)
}

/// The section `[admin]` alone, of the file at exactly `path` or of none, with the process's environment over it; for
/// those who look for a running proxy, to whom it does not matter what else is wrong. What is wrong with the section,
/// or keeps the file from being read, is in the report; defaults stand in for it.
pub fn admin(path: Option<&Path>) -> (Admin, Option<Report>) {
    let (document, unread) = match path.map(Document::read) {
        Some(Ok(document)) => (document, None),
        Some(Err(report)) => (Document::default(), Some(report)),
        None => (Document::default(), None),
    };
    let (layers, _) = Layers::new(document, &Environment::of_process(), &Overrides::default());
    let reader = Reader::new(&layers, Vec::new());
    let listen = reader.root().table("listen");
    let admin = operate::admin(&reader.root().table("admin"), &listen, &edge::listen(&listen));
    let findings = reader.finish::<()>(None).err().and_then(|report| report.within("admin"));
    (admin, unread.or(findings))
}

fn resolve(
    document: Document,
    environment: &Environment,
    overrides: &Overrides,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
) -> Result<(Sections, Layers), Report> {
    let (layers, findings) = Layers::new(document, environment, overrides);
    let reader = Reader::new(&layers, findings);
    let read = sections::read(&reader.root(), certificates, app);
    let sections = reader.finish(read)?;
    Ok((sections, layers))
}
