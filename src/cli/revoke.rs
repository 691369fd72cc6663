//! `pulsegate revoke`: revokes the certificate that was ordered from an authority.

use std::process::ExitCode;

use anyhow::Context;

use super::remote::block_on;
use super::source::ConfigArgs;
use super::text;
use crate::acme::{self, RevocationReason};
use crate::config::{self, Report};

/// The arguments of `pulsegate revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file of the certificate is removed with it: a running proxy orders another at once, with a new key.

Exit codes: 0 revoked, 1 not revoked, 2 wrong usage, 78 wrong configuration")]
pub struct RevokeArgs {
    #[command(flatten)]
    source: ConfigArgs,
    /// The private key is known to others
    #[arg(long)]
    key_compromise: bool,
}

/// Revokes the certificate of `[tls.acme]`, and prints its names.
///
/// # Errors
///
/// There is no certificate of an authority, the authority refuses, or printing fails.
pub fn run(args: &RevokeArgs) -> anyhow::Result<ExitCode> {
    let RevokeArgs { source, key_compromise } = args;
    let loaded =
        source.input().and_then(|input| config::load_with(&input, &source.overrides, |_| Vec::new(), |_| Vec::new()));
    let settings = match loaded {
        Ok(settings) => settings,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::from(Report::EXIT_CODE));
        }
    };
    let acme = settings.tls.terminate().and_then(|tls| tls.acme.as_deref());
    let acme = acme.context("no certificate is ordered (tls.acme.domains); name the configuration with -c")?;
    let reason = if *key_compromise { RevocationReason::KeyCompromise } else { RevocationReason::Superseded };
    let revocation = block_on(async { Ok(acme::revoke(acme, reason).await?) })?;
    let mut said = format!("revoked the certificate for {}\n", revocation.names.join(", "));
    if let Some(lost) = revocation.without_account {
        said += &text::escaped(&format!("by its own key: {lost}"));
        said += "\n";
    }
    text::print(&said).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}
