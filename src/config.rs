//! Configuration: defaults < file < environment < flags.
//!
//! ```text
//! document ─┐
//! beside   ─┴→ layers (figment) → reader → sections → Settings
//!                                    ↓
//!                                  Report
//! ```
//!
//! `document` is the file with the place of each value, `overrides` the environment and the flags, `layers` all of them
//! merged. Each key is declared once, in the function that visits its section: `listener` has the client's side, `app` the
//! app's, `sections`, `heartbeat_mode` and `custom_profile` the heartbeat and the routes, `operations` the process. `schema` says what
//! follows from a declaration and how to add one, `codec` holds the types of values. A [`Report`] holds every finding
//! of a load at once. [`EffectiveConfig`] is the way back, from settings to keys with their origins; `json_schema` describes the
//! keys to editors.

mod acme;
mod app_start;
mod cidr;
mod codec;
mod custom_profile;
mod descriptions;
mod document;
mod effective;
mod file_cache;
mod forwarded;
mod heartbeat_mode;
mod host;
mod hot_reload;
mod input;
mod json_schema;
mod layers;
mod listener;
mod listing;
mod operations;
mod origins;
mod overrides;
mod parse;
mod parse_names;
mod path;
mod pin;
mod reader;
mod report;
mod schema;
mod sections;
mod settings;
mod suggestion;
mod syntax;
mod tls_files;
mod unknown_keys;
mod unread_variables;
mod upstream;
mod user_environment;
mod value_types;
pub mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use app_start::with_app_addresses;
pub use cidr::{Cidr, CidrError};
pub use effective::EffectiveConfig;
pub use file_cache::FileCache;
pub use forwarded::Forwarded;
pub(crate) use forwarded::IDENTITY_FIELDS;
pub use host::{HostPattern, bare as bare_host};
pub use input::Input;
pub use origins::{AllowedOrigin, OriginPolicy};
pub use overrides::{Environment, Overrides};
pub use pin::Pin;
pub use report::{Finding, Location, Report};
pub use settings::*;
pub(crate) use suggestion::nearest;
pub use tls_files::{TlsFault, TlsRole};
pub use unread_variables::UnreadVariable;
pub use user_environment::{UserEnvironment, find_program};

use document::Document;
use layers::Layers;
use reader::TreeReader;
use sections::Sections;

/// Loads `input`, lays the process's environment and `overrides` over it and validates all of it.
///
/// Relative paths in a file start from the file's folder; in variables, flags and standard input from the working
/// directory. The TLS files are put before `certificates`, and those for an app behind TLS before `app`; their faults
/// are among the findings.
pub fn load_with(
    input: &Input,
    overrides: &Overrides,
    certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>,
    app: impl Fn(&UpstreamSettings) -> Vec<TlsFault>,
) -> Result<Settings, Report> {
    let document = input.document()?;
    resolve(document, &Environment::of_process(), overrides, certificates, app).map(|(sections, _)| sections.settings)
}

/// [`load_with`], and beside the settings all keys that led to them, for people to look at.
pub fn load_shown(
    input: &Input,
    overrides: &Overrides,
    certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>,
    app: impl Fn(&UpstreamSettings) -> Vec<TlsFault>,
) -> Result<(Settings, EffectiveConfig), Report> {
    let document = input.document()?;
    resolve(document, &Environment::of_process(), overrides, certificates, app).map(shown)
}

/// Reads `text` as the file at `path`, which need not exist, with `environment` and `overrides` laid over it.
pub fn from_str(path: &Path, text: &str, environment: &Environment, overrides: &Overrides) -> Result<Settings, Report> {
    let document = Document::parse(path, text.to_owned())?;
    resolve(document, environment, overrides, |_| Vec::new(), |_| Vec::new()).map(|(sections, _)| sections.settings)
}

/// [`from_str`] without anything beside the file, and beside the settings all keys that led to them.
#[doc(hidden)]
pub fn from_str_shown(path: &Path, text: &str) -> Result<(Settings, EffectiveConfig), Report> {
    let document = Document::parse(path, text.to_owned())?;
    resolve(document, &Environment::default(), &Overrides::default(), |_| Vec::new(), |_| Vec::new()).map(shown)
}

/// [`load_shown`], but for the process's environment.
#[cfg(test)]
pub(crate) fn load_alone(path: &Path) -> Result<(Settings, EffectiveConfig), Report> {
    let document = Document::read(path)?;
    resolve(document, &Environment::default(), &Overrides::default(), |_| Vec::new(), |_| Vec::new()).map(shown)
}

fn shown((sections, layers): (Sections, Layers)) -> (Settings, EffectiveConfig) {
    let shown = EffectiveConfig::new(&layers, &sections);
    (sections.settings, shown)
}

/// The section `[admin]` alone, of the file at exactly `path` or of none, with the process's environment over it; for
/// clients of a running proxy, which other errors do not concern. What is wrong with the section,
/// or keeps the file from being read, is in the report; defaults stand in for it.
pub fn admin(path: Option<&Path>) -> (Admin, Option<Report>) {
    let read = |path| Input::named(path).and_then(|input| input.document());
    let (document, unread) = match path.map(read) {
        Some(Ok(document)) => (document, None),
        Some(Err(report)) => (Document::default(), Some(report)),
        None => (Document::default(), None),
    };
    let (layers, _) = Layers::new(document, &Environment::of_process(), &Overrides::default());
    let reader = TreeReader::new(&layers, Vec::new());
    let root = reader.root();
    let admin = operations::admin(&root.table("admin"), &root.table("listen"), &listener::listen(&root));
    let findings = reader.finish::<()>(None).err().and_then(|report| report.within("admin"));
    (admin, unread.or(findings))
}

/// Returns the format of log lines that `input` with environment and `overrides` asks for, whatever else is wrong with
/// it; the default where that cannot be read.
pub fn log_format(input: &Input, overrides: &Overrides) -> LogFormat {
    let document = input.document().unwrap_or_default();
    let (layers, _) = Layers::new(document, &Environment::of_process(), overrides);
    let reader = TreeReader::new(&layers, Vec::new());
    operations::log(&reader.root().table("log")).format
}

/// Returns the JSON Schema (draft 2020-12) of a configuration file, for editors.
pub fn json_schema() -> serde_json::Value {
    sections::json_schema()
}

/// The variables of this process's environment that look as if they set a key, and are not read.
pub fn unread_variables() -> Vec<UnreadVariable> {
    let (layers, _) = Layers::new(Document::default(), &Environment::default(), &Overrides::default());
    let reader = TreeReader::new(&layers, Vec::new());
    // The required keys are missing; they are known all the same.
    let _ = sections::read(&reader.root(), |_| Vec::new(), |_| Vec::new());
    unread_variables::unread(std::env::vars_os(), &reader.keys())
}

fn resolve(
    document: Document,
    environment: &Environment,
    overrides: &Overrides,
    certificates: impl Fn(&TlsSettings) -> Vec<TlsFault>,
    app: impl Fn(&UpstreamSettings) -> Vec<TlsFault>,
) -> Result<(Sections, Layers), Report> {
    let (layers, findings) = Layers::new(document, environment, overrides);
    let reader = TreeReader::new(&layers, findings);
    let read = sections::read(&reader.root(), certificates, app);
    let sections = reader.finish(read)?;
    Ok((sections, layers))
}
