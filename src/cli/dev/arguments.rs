//! The flags of `pulsegate dev`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::app::AppArgs;
use crate::cli::duration;

/// The default address of the proxy.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// The default address of the inspect page.
pub(super) const INSPECT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040);

/// The arguments of `pulsegate dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command creates for this run only: a CA whose key stays in memory, a certificate for localhost and every name below \
it, and an app without heartbeat code. With --trust the CA is kept, and this system trusts it. The heartbeat is faster than \
in production, so that its effects are visible at once.

Exit codes: 0 ended as asked, 1 failed, 2 wrong usage; with a command the app's own, also after a second signal, \
128 + n after signal n, 126 or 127 if it cannot be started")]
pub struct DevArgs {
    /// Proxy this app instead of the built-in one: `http://host:port` or `unix:/path`.
    #[arg(long, value_name = "URL")]
    pub(super) to: Option<String>,
    /// Address to listen on, loopback or all addresses [default: 127.0.0.1:8443, or another port if that is taken].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(super) listen: Option<SocketAddr>,
    /// Listen on all addresses, with a certificate for the one in the local network, for a phone for example; --lan=ADDRESS
    /// names it if this machine has several.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "clap's form of an optional value")]
    pub(super) lan: Option<Option<Ipv4Addr>>,
    /// Open the page in a browser.
    #[arg(long)]
    pub(super) open: bool,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Address of the inspect page, on loopback [default: 127.0.0.1:4040, or another port if that is taken].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(super) inspect: Option<SocketAddr>,
    /// Silence of a client before it is pinged.
    #[arg(long, default_value = "5s", value_parser = duration::parse)]
    pub(super) interval: Duration,
    /// Time limit for a pinged client to show a sign of life.
    #[arg(long, default_value = "5s", value_parser = duration::parse)]
    pub(super) timeout: Duration,
    /// Write the CA's certificate here and leave it [default: a temporary file, removed at the end].
    #[arg(long, value_name = "FILE")]
    pub(super) ca_out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) app: AppArgs,
}

impl DevArgs {
    /// Returns the arguments for an app to start.
    pub(in crate::cli) fn app(&self) -> &AppArgs {
        &self.app
    }
}

/// The flags about the trust of this system.
#[derive(Debug, clap::Args)]
pub(super) struct TrustArgs {
    /// Keep the CA, and install it where this system and its browsers look for authorities; asks before it does.
    #[arg(long)]
    pub(super) trust: bool,
    /// Agree to --trust without a question.
    #[arg(long, requires = "trust")]
    pub(super) yes: bool,
    /// Remove the CA that --trust installed, and end.
    #[arg(long, conflicts_with_all = ["trust", "open", "lan", "to", "listen", "inspect", "ca_out", "command"])]
    pub(super) untrust: bool,
    /// Folder with the files and tools of the system, instead of /.
    #[arg(long, value_name = "DIR", hide = true)]
    pub(super) trust_root: Option<PathBuf>,
}

/// Parses the address of the inspect page, which has to be loopback: the page can close connections, and asks for no
/// token.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address and a port such as 127.0.0.1:4040".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the inspect page is for this machine alone: use 127.0.0.1 or [::1]".to_owned())
    }
}

/// Parses the address of the proxy: loopback, for which the certificate is made, or all addresses, which include it.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address and a port such as 127.0.0.1:8443".to_owned())?;
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        Ok(address)
    } else {
        Err("the certificate is made for loopback: use 127.0.0.1, [::1], 0.0.0.0 or [::]".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_the_certificate_can_serve_are_taken() {
        for fits in ["127.0.0.1:0", "127.0.0.2:8443", "[::1]:8443", "0.0.0.0:8443", "[::]:8443"] {
            assert!(listen(fits).is_ok(), "{fits}");
        }
        assert!(listen("192.0.2.1:8443").expect_err("not loopback").contains("loopback"));
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:4040").is_ok());
        assert!(loopback("0.0.0.0:4040").expect_err("everywhere").contains("this machine alone"));
        assert!(loopback("4040").expect_err("no address").contains("such as 127.0.0.1:4040"));
        assert!(listen("8443").expect_err("no address").contains("such as 127.0.0.1:8443"));
    }
}
