//! The `proxy.toml` of the sidecar, and what the pod must give for it.

use std::path::Path;
use std::time::Duration;

use super::error::InjectError;
use crate::config::{self, AdminSocket, Cidr, Environment, Overrides, Report, Settings, UpstreamTarget};
use crate::drain::Plan;

/// The folder of `proxy.toml` in the sidecar.
pub(super) const CONFIG_FOLDER: &str = "/etc/pulsegate";
/// The folder of the Secret in the sidecar.
pub(super) const TLS_FOLDER: &str = "/etc/pulsegate-tls";
/// The folder of the admin socket in the sidecar.
pub(super) const RUN_FOLDER: &str = "/run/pulsegate";

/// A `proxy.toml`, and what follows from it for the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyFile {
    /// Its text.
    pub(super) text: String,
    /// Whether it terminates TLS, and needs a certificate.
    pub(super) has_tls: bool,
    /// The port of clients.
    pub(super) port: u16,
    /// The port of health and metrics.
    pub(super) health: u16,
    /// The port that redirects to https.
    pub(super) redirect: Option<u16>,
    /// The app's port.
    pub(super) upstream: u16,
    /// The bound of the drain, in whole seconds.
    pub(super) drain_s: u64,
}

/// A fault of a `proxy.toml`.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFileError {
    /// It is not valid.
    #[error("the configuration is not valid")]
    Invalid(Report),
    /// It is valid, and cannot work in a pod.
    #[error("{0}")]
    Unfit(String),
}

impl ProxyFile {
    /// Reads a file that the user wrote, as the sidecar will read it: without the environment of this process.
    ///
    /// # Errors
    ///
    /// It is not valid, or it needs something that the pod does not have.
    pub fn read(path: &Path, text: &str) -> Result<Self, ProxyFileError> {
        let settings = config::from_str(path, text, &Environment::default(), &Overrides::default());
        let file = Self::of(text, &settings.map_err(ProxyFileError::Invalid)?);
        file.map_err(|fault| ProxyFileError::Unfit(format!("{}: {fault}", path.display())))
    }

    /// Makes the file for an app at `upstream` on loopback. With `trusted`, the proxies in these networks terminate TLS.
    pub(super) fn made(upstream: u16, port: u16, trusted: Option<&[Cidr]>) -> Result<Self, InjectError> {
        let tls = match trusted {
            None => format!("[tls]\ncertificate = \"{TLS_FOLDER}/tls.crt\"\nprivate_key = \"{TLS_FOLDER}/tls.key\"\n"),
            Some(trusted) => {
                let trusted: Vec<String> = trusted.iter().map(|cidr| format!("\"{cidr}\"")).collect();
                let trusted = trusted.join(", ");
                format!("[tls]\nmode = \"off\"\n\n[forwarded]\ntrusted_proxies = [{trusted}]\n")
            }
        };
        let text = format!(
            "# A change applies without a restart, once the kubelet has updated the volume (about a minute). After a change of
# [drain], inject again with this file: pulsegate inject --config proxy.toml

# Every address of the pod. On nodes whose kernel has no IPv6, 0.0.0.0 here and in [admin].
[listen]
address = \"[::]:{port}\"

{tls}
[upstream]
url = \"http://127.0.0.1:{upstream}\"

# The pages that may open WebSockets.
[origins]
allow = [\"same-host\"]

# What the sidecar's memory limit must cover.
[limits]
memory = \"128MiB\"

[drain]
delay = \"5s\"
window = \"15s\"

[admin]
health = \"[::]:9090\"

[log]
format = \"json\"
"
        );
        let settings = config::from_str(Path::new("proxy.toml"), &text, &Environment::default(), &Overrides::default());
        let settings = settings.map_err(|report| InjectError::whole(report.one_line()))?;
        Self::of(&text, &settings).map_err(InjectError::whole)
    }

    fn of(text: &str, settings: &Settings) -> Result<Self, String> {
        let tls = settings.tls.terminate();
        if tls.is_some_and(|tls| tls.acme.is_some()) {
            return Err("[tls.acme] orders a certificate for each pod, and the authority's limits forbid that; let \
                        cert-manager write the Secret, and set tls.certificate and tls.private_key"
                .to_owned());
        }
        if let Some(file) = settings.files().iter().find(|file| !file.starts_with(TLS_FOLDER)) {
            return Err(format!(
                "{} is not in the pod, where the Secret is mounted at {TLS_FOLDER}; put the file into the Secret, and \
                 write {TLS_FOLDER}/{}",
                file.display(),
                file.file_name().unwrap_or_default().to_string_lossy()
            ));
        }
        let Some(health) = settings.admin.health.filter(|health| !health.ip().is_loopback()) else {
            return Err("admin.health must be an address that the kubelet's probes reach; write \"0.0.0.0:9090\", or \
                        remove the key"
                .to_owned());
        };
        if settings.listen.address.ip().is_loopback() {
            return Err(format!(
                "listen.address is a loopback address, which no client reaches in the pod; write \"[::]:{}\"",
                settings.listen.address.port()
            ));
        }
        if settings.admin.socket != Some(AdminSocket::default()) {
            return Err(format!(
                "admin.socket must be {} in the pod, where the preStop hook looks for it; remove the key",
                AdminSocket::DEFAULT
            ));
        }
        let UpstreamTarget::Tcp { port: upstream, .. } = settings.upstream.target else {
            return Err(
                "upstream.url is a unix socket, which needs a volume that app and sidecar share, and inject adds \
                        none; write upstream.url = \"http://127.0.0.1:PORT\""
                    .to_owned(),
            );
        };
        if let Some(route) =
            settings.routes.iter().find(|route| !matches!(route.upstream.target, UpstreamTarget::Tcp { .. }))
        {
            return Err(format!(
                "route {}: its upstream.url is a unix socket, which needs a volume that app and sidecar share, and inject \
                 adds none; write url = \"http://127.0.0.1:PORT\"",
                route.path
            ));
        }
        let bound = Plan::of(settings).bound();
        Ok(Self {
            text: text.to_owned(),
            has_tls: tls.is_some(),
            port: settings.listen.address.port(),
            health: health.port(),
            redirect: settings.listen.redirect.map(|address| address.port()),
            upstream,
            drain_s: whole_seconds(bound),
        })
    }
}

/// Rounds up, as Kubernetes counts whole seconds.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
