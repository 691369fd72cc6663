//! The layers over the file: environment variables and command line flags.

use std::ffi::{OsStr, OsString};

use super::path::KeyPath;
use super::report::{Finding, Location, Spot};

/// The variables that set keys: those whose name begins with `PULSEGATE__`, in any case.
///
/// The two underscores matter: a Kubernetes Service called `pulsegate` puts `PULSEGATE_PORT=tcp://…` into every pod.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, OsString)>,
}

/// The values of command line flags, as text in the form of the file; they win over every other layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Overrides {
    /// Address of the TLS port (`listen.address`)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address of the app: `http://host:port` or `unix:/path` (`upstream.url`)
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// PEM file of the certificate chain (`tls.certificate`)
    #[arg(long, value_name = "FILE", conflicts_with = "domain")]
    pub certificate: Option<String>,
    /// PEM file of the private key (`tls.private_key`)
    #[arg(long, value_name = "FILE", conflicts_with = "domain")]
    pub private_key: Option<String>,
    /// Name of a public site: its certificate is ordered from an authority, Let's Encrypt by default, whose terms you accept
    /// with it; may be repeated (`tls.acme.domains`)
    #[arg(long, value_name = "NAME")]
    pub domain: Vec<String>,
    /// E-mail address that the authority gets with --domain; may be repeated (`tls.acme.contact`)
    #[arg(long, value_name = "ADDRESS")]
    pub email: Vec<String>,
    /// Least severe log level that is written (`log.level`)
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Format of the log lines: auto, human or json (`log.format`)
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// A key that a variable or flag sets.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    /// The variable or flag.
    pub(super) place: Location,
    /// The key.
    pub(super) path: KeyPath,
    /// The value as it was written.
    pub(super) text: String,
}

impl Assignment {
    /// Returns the name of the variable or flag.
    pub(super) fn name(&self) -> &str {
        match &self.place {
            Location::Variable { variable } => variable,
            Location::Flag { flag } => flag,
            Location::File { file } | Location::Line { file, .. } => file,
        }
    }
}

const PREFIX: &str = "PULSEGATE__";
const SEPARATOR: &str = "__";
const DEPTH: usize = 8;

impl Environment {
    /// Returns the environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// Returns the assignments in the order of their names, and a finding for each value that is no text.
    pub(super) fn assignments(&self) -> (Vec<Assignment>, Vec<Finding>) {
        let mut assignments = Vec::new();
        let mut findings = Vec::new();
        for (name, value) in &self.variables {
            let place = Location::Variable { variable: name.clone() };
            let Some(text) = value.to_str() else {
                let spot = Spot::whole(place, &value.to_string_lossy());
                findings.push(Finding::new(spot, format!("the value of {name} is not UTF-8 text"), None));
                continue;
            };
            let path = name[PREFIX.len()..].to_lowercase();
            // No key lies deeper; the rest stays one key, an unknown one.
            let path = path.splitn(DEPTH, SEPARATOR).collect();
            assignments.push(Assignment { place, path, text: text.trim().to_owned() });
        }
        (assignments, findings)
    }
}

impl<N: AsRef<OsStr>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    /// Keeps the variables that set keys.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let name = name.as_ref().to_string_lossy().into_owned();
            let prefix = name.get(..PREFIX.len())?;
            prefix.eq_ignore_ascii_case(PREFIX).then(|| (name, value.into()))
        });
        let mut variables: Vec<(String, OsString)> = ours.collect();
        variables.sort();
        Self { variables }
    }
}

/// The flags, and the keys that they set.
const FLAGS: [(&str, &[&str]); 8] = [
    ("--listen", &["listen", "address"]),
    ("--upstream", &["upstream", "url"]),
    ("--certificate", &["tls", "certificate"]),
    ("--private-key", &["tls", "private_key"]),
    ("--domain", &["tls", "acme", "domains"]),
    ("--email", &["tls", "acme", "contact"]),
    ("--log-level", &["log", "level"]),
    ("--log-format", &["log", "format"]),
];

impl Overrides {
    pub(super) fn assignments(&self) -> Vec<Assignment> {
        let Self { listen, upstream, certificate, private_key, domain, email, log_level, log_format } = self.clone();
        let texts = [listen, upstream, certificate, private_key, list(&domain), list(&email), log_level, log_format];
        let given = FLAGS.into_iter().zip(texts).filter_map(|((flag, path), text)| {
            let path = path.iter().copied().collect();
            Some(Assignment { place: Location::Flag { flag }, path, text: text? })
        });
        given.collect()
    }
}

/// Returns the values of a repeated flag in the form of the file; `None` where there is none.
fn list(values: &[String]) -> Option<String> {
    let values: toml_edit::Array = values.iter().map(String::as_str).collect();
    (!values.is_empty()).then(|| values.to_string())
}

/// Returns whether a flag or a variable sets any key.
pub(super) fn overrides_or_environment_set(overrides: &Overrides, environment: &Environment) -> bool {
    *overrides != Overrides::default() || !environment.variables.is_empty()
}

/// Returns the flag that sets the key at `path`.
pub(super) fn flag(path: &KeyPath) -> Option<&'static str> {
    let found = FLAGS.iter().find(|(_, key)| !path.in_list() && path.keys().eq(key.iter().copied()));
    found.map(|(flag, _)| *flag)
}

/// Returns the variable that sets the key at `path`; none can reach into a list.
pub(super) fn variable(path: &KeyPath) -> String {
    let keys: Vec<String> = path.keys().map(str::to_uppercase).collect();
    format!("{PREFIX}{}", keys.join(SEPARATOR))
}
