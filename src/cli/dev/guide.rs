//! The text that `dev` prints once it listens: every address, how to trust the authority, and what to try.

use std::fmt::{self, Display};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use humantime::format_duration;

use super::arguments::{ADDRESS, DevArgs, INSPECT};
use super::echo;
use super::kept_ca::date;
use super::shell::quoted;
use crate::config::UpstreamSettings;

/// The origin of the authority.
#[derive(Debug)]
pub(super) enum AuthorityOrigin {
    /// It was made for this run, `note` says why although one is kept.
    Run { note: Option<String> },
    /// It is kept by `--trust`.
    Kept { not_after: SystemTime, certificate: PathBuf },
}

/// The instructions printed at the start.
#[derive(Debug)]
pub(super) struct Guide<'a> {
    pub(super) args: &'a DevArgs,
    pub(super) app: Arc<UpstreamSettings>,
    /// The address of the proxy.
    pub(super) address: SocketAddr,
    /// The address of the inspect page.
    pub(super) inspect: SocketAddr,
    /// The file of the authority's certificate.
    pub(super) authority: &'a Path,
    pub(super) origin: AuthorityOrigin,
    /// The address in the local network.
    pub(super) lan: Option<Ipv4Addr>,
    /// The places in which `--trust` would install the authority.
    pub(super) places: Option<String>,
}

impl Guide<'_> {
    /// Returns the URL for this machine.
    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// Returns the URL for other machines.
    pub(super) fn lan_url(&self) -> Option<String> {
        self.lan.map(|address| format!("https://{address}:{}/", self.address.port()))
    }

    fn is_built_in(&self) -> bool {
        self.args.to.is_none() && self.args.app.command().is_none()
    }

    /// Writes the lines about the authority.
    fn write_trust(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ca, https) = (quoted(self.authority), self.url());
        match &self.origin {
            AuthorityOrigin::Run { note } => {
                writeln!(f, "  CA         {ca}, for this run only")?;
                if let Some(note) = note {
                    writeln!(f, "             {note}")?;
                }
                match &self.places {
                    Some(places) => {
                        writeln!(f, "  trust      {} dev --trust keeps a CA that {places} will trust", program())?;
                    }
                    None => writeln!(f, "  trust      import that file, or accept the browser's warning once")?,
                }
            }
            AuthorityOrigin::Kept { not_after, .. } => {
                writeln!(f, "  CA         {ca}, until {}", date(*not_after))?;
                writeln!(
                    f,
                    "  trust      kept; {0} dev --trust installs it where it is missing, {0} dev --untrust removes it",
                    program()
                )?;
            }
        }
        writeln!(f, "             curl --cacert {ca} {https}")?;
        writeln!(f, "             NODE_EXTRA_CA_CERTS={ca} node client.js")
    }
}

impl Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let built_in = self.is_built_in();
        let port = self.address.port();
        let path = if built_in { echo::PATH } else { "/" };
        let wss = format!("wss://localhost:{port}{path}");
        let (interval, timeout) = (format_duration(self.args.interval), format_duration(self.args.timeout));
        let bound = format_duration(self.args.interval + self.args.timeout);
        let app = if built_in { "the built-in echo app".to_owned() } else { self.app.to_string() };

        writeln!(f, "TLS and heartbeats in front of {app}")?;
        if self.args.listen.is_none() && port != ADDRESS.port() {
            writeln!(f, "Port {} is taken; this is port {port}.", ADDRESS.port())?;
        }
        if self.args.inspect.is_none() && self.inspect.port() != INSPECT.port() {
            writeln!(f, "Port {} is taken; the inspect page is on port {}.", INSPECT.port(), self.inspect.port())?;
        }
        writeln!(f)?;
        writeln!(f, "  https      {}", self.url())?;
        writeln!(f, "  WebSocket  {wss}")?;
        if let Some(url) = self.lan_url() {
            writeln!(f, "  LAN        {url}")?;
            if built_in {
                let certificate = echo::CERTIFICATE.trim_start_matches('/');
                writeln!(f, "             {url}{certificate} is the CA, for a phone to install and trust")?;
            }
        }
        writeln!(f, "  inspect    http://{}/", self.inspect)?;
        writeln!(f, "  heartbeat  a ping after {interval} of silence, {timeout} to answer, then both legs are closed")?;
        self.write_trust(f)?;
        if !built_in {
            writeln!(f, "  Express    app.set('trust proxy', 'loopback'), or secure cookies are not set")?;
        }
        let ca = quoted(self.authority);
        writeln!(f, "  client     {} ping --interval 1m --ca {ca} {wss}", program())?;
        writeln!(f, "             Ctrl-Z there simulates a dead client: within {bound} both its legs are closed")?;
        writeln!(f, "  sessions   {} top --admin {}", program(), self.inspect)?;
        writeln!(f)?;
        write!(f, "Events are shown here; Ctrl-C ends it.")
    }
}

/// Returns the command by which this program was started, for lines to copy into a shell.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "pulsegate".to_owned(), quoted)
}
