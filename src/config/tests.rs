//! Compiled under `#[cfg(test)]` only.
//!
//! The configuration as a whole: what is refused and how it is said, which layer wins, and that the documented file
//! and the code agree.

mod acme;
mod documented;
mod effective;
mod errors;
mod heartbeat_mode;
mod hostile;
mod layers;
mod listener;
mod operations;
mod remedies;

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Environment, Overrides, Report, Settings, from_str};

/// The required keys and nothing else.
const REQUIRED: &str = r#"
[tls]
certificate = "tls.crt"
private_key = "tls.key"

[upstream]
url = "http://127.0.0.1:3000"
"#;

fn read(text: &str) -> Result<Settings, Report> {
    read_with(text, &[])
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Report> {
    let environment: Environment = variables.iter().copied().collect();
    from_str(Path::new("config/proxy.toml"), text, &environment, &Overrides::default())
}

/// The settings of the required keys and `text`.
fn settings(text: &str) -> Settings {
    read(&format!("{REQUIRED}\n{text}")).unwrap_or_else(|report| panic!("refused:\n{report}"))
}

/// The messages about `text`, one a line, without their drawings.
fn messages(text: &str) -> Vec<String> {
    let report = read(&format!("{text}\n{REQUIRED}")).expect_err(text);
    let said = |finding: &super::Finding| match &finding.help {
        Some(help) => format!("{} ({help})", finding.message),
        None => finding.message.clone(),
    };
    report.findings().iter().map(said).collect()
}

/// Returns the report on the required keys and `text`, which begins at line 1.
fn refusal(text: &str) -> String {
    match read(&format!("{text}\n{REQUIRED}")) {
        Ok(settings) => panic!("accepted as {settings:#?}"),
        Err(report) => report.to_string(),
    }
}

/// A file with this text.
fn token_file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::with_prefix("pulsegate-token-").expect("make a temporary file");
    file.write_all(text.as_bytes()).expect("write it");
    file
}
