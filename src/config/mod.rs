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

mod app;
mod beside;
mod cidr;
mod custom;
mod document;
mod edge;
mod form;
mod host;
mod layers;
mod names;
mod operate;
mod origins;
mod path;
mod reader;
mod report;
mod running;
mod sections;
mod settings;
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
pub use host::{HostPattern, bare as bare_host};
pub use origins::{AllowedOrigin, OriginPolicy};
pub use report::{Finding, Place, Report};
pub use settings::*;

use document::Document;
use layers::Layers;
use reader::Reader;

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
    resolve(document, &Environment::of_process(), overrides, certificates, app)
}

/// Stand-in: what a configuration looks like to people.
#[derive(Clone, Debug, Default)]
pub struct Shown;

/// Stand-in: [`load_with`], and the same for people.
pub fn load_shown(
    path: &Path,
    overrides: &Overrides,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
) -> Result<(Settings, Shown), Report> {
    load_with(path, overrides, certificates, app).map(|settings| (settings, Shown))
}

/// Reads `text` as the file at `path`, which need not exist, with `environment` and `overrides` laid over it.
pub fn from_str(path: &Path, text: &str, environment: &Environment, overrides: &Overrides) -> Result<Settings, Report> {
    let document = Document::parse(path, text.to_owned())?;
    resolve(document, environment, overrides, |_| Ok(()), |_| Ok(()))
}

fn resolve(
    document: Document,
    environment: &Environment,
    overrides: &Overrides,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
) -> Result<Settings, Report> {
    let (layers, findings) = Layers::new(document, environment, overrides);
    let reader = Reader::new(&layers, findings);
    let settings = sections::settings(&reader.root(), certificates, app);
    reader.finish(settings)
}
