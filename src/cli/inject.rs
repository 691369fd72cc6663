//! `pulsegate inject`: adds the sidecar to the workloads of a Kubernetes manifest, or removes it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::text;
use crate::config::{Cidr, Report};
use crate::inject::{self, ChangedManifest, DEFAULT_IMAGE, InjectOptions, ProxyFile, ProxyFileError};

/// The path that stands for standard input.
const STDIN: &str = "-";
/// The largest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 16 * 1024 * 1024;

/// The arguments of `pulsegate inject`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController and Pod gets the sidecar, its volumes and a \
ConfigMap; its containers get a preStop sleep that outlives the drain, and its grace period is extended by that. Services \
that lead to the app lead to the sidecar instead. All other objects, Jobs among them, pass unchanged, and so do comments, \
order and indentation. The file itself is not changed: the manifest is printed once all of it is understood.

    pulsegate inject -f deployment.yaml | kubectl apply -f -
    helm template shop ./chart | pulsegate inject -f - | kubectl apply -f -

Injecting again replaces what was injected. --uninject gives back the original bytes. Both read the annotations \
pulsegate/injected. Needs Kubernetes 1.30 or later.

Exit codes: 0 printed, 1 the manifest cannot be read or injected, 2 wrong usage, 78 wrong configuration")]
pub struct InjectArgs {
    /// The manifest; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Remove what was injected
    #[arg(long, conflicts_with_all = ["image", "tls_secret", "config", "plain", "port", "only", "keep_pre_stop"])]
    uninject: bool,
    /// The image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE, value_parser = image)]
    image: String,
    /// The Secret with tls.crt and tls.key [default: pulsegate-tls]
    #[arg(long, value_name = "NAME", conflicts_with = "plain", value_parser = secret_name)]
    tls_secret: Option<String>,
    /// The configuration of the sidecar [default: one that is made for the app's port]
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["plain", "trusted_proxies", "port"])]
    config: Option<PathBuf>,
    /// Behind an ingress that terminates TLS: no certificate, and connections from --trusted-proxies only
    #[arg(long, requires = "trusted_proxies")]
    plain: bool,
    /// The networks of the ingress, such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR", requires = "plain", value_delimiter = ',', num_args = 1..)]
    trusted_proxies: Vec<Cidr>,
    /// The app's port [default: its containerPort]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Inject these workloads only, such as shop or deployment/shop
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Keep a preStop hook of the app; it must take as long as the drain
    #[arg(long)]
    keep_pre_stop: bool,
}

/// Prints the manifest with the sidecar or without it; remarks go to standard error.
///
/// # Errors
///
/// The manifest cannot be read or injected, or printing fails.
pub fn run(args: &InjectArgs) -> anyhow::Result<ExitCode> {
    let config = match args.config.as_deref().map(read_config) {
        Some(Ok(file)) => Some(file),
        Some(Err(fault)) => {
            eprintln!("{}", fault.to_string().trim_end());
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
        None => None,
    };
    let name = if args.file == Path::new(STDIN) { "standard input".into() } else { args.file.display().to_string() };
    let manifest = read_manifest(&args.file).with_context(|| format!("cannot read {name}"))?;
    let options = InjectOptions {
        image: args.image.clone(),
        tls_secret: args.tls_secret.clone(),
        config,
        plain: args.plain.then(|| args.trusted_proxies.clone()),
        port: args.port,
        only: args.only.clone(),
        keep_pre_stop: args.keep_pre_stop,
    };
    let done = if args.uninject { inject::uninject(&manifest) } else { inject::inject(&manifest, &options) };
    let ChangedManifest { text, changed, notes } = match done {
        Ok(done) => done,
        Err(fault) => bail!("{name}:{fault}"),
    };
    text::print(&text).context("cannot print")?;
    let verb = if args.uninject { "removed from" } else { "injected into" };
    for line in &changed {
        eprintln!("{verb} {}", text::printable(line));
    }
    if changed.is_empty() {
        eprintln!("nothing was injected here: the manifest is printed as it is");
    }
    for note in &notes {
        eprintln!("note: {}", text::printable(note));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_manifest(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new(STDIN) {
        io::stdin().lock().take(MANIFEST_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        if path.is_dir() {
            bail!("it is a folder; pass one file, or join several: cat *.yaml | pulsegate inject -f -");
        }
        fs::File::open(path)?.take(MANIFEST_MAX + 1).read_to_end(&mut bytes)?;
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MANIFEST_MAX) {
        bail!("it is longer than {MANIFEST_MAX} bytes; pass the workloads and their Services alone");
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        anyhow::anyhow!("line {line} is not UTF-8 text; save the file as UTF-8")
    })
}

/// Reads a configuration for the sidecar; the error is the text that `check` prints.
fn read_config(path: &Path) -> anyhow::Result<ProxyFile> {
    let text = fs::read_to_string(path).with_context(|| format!("pulsegate: cannot read {}", path.display()));
    let text = text.map_err(|error| anyhow::anyhow!("{}", text::in_full(error.chain())))?;
    ProxyFile::read(path, &text).map_err(|fault| match fault {
        ProxyFileError::Invalid(report) => anyhow::anyhow!("{report}"),
        ProxyFileError::Unfit(fault) => anyhow::anyhow!("pulsegate: {fault}"),
    })
}

fn image(text: &str) -> Result<String, String> {
    let is_reference = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/:@".contains(c));
    if is_reference {
        Ok(text.to_owned())
    } else {
        Err("an image is written as registry.example.com/pulsegate:0.1.0".to_owned())
    }
}

fn secret_name(text: &str) -> Result<String, String> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("the name of a Secret has lower-case letters, digits, - and .".to_owned())
    }
}
