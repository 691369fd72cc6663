//! The choices of an injection.

use super::proxy_file::ProxyFile;
use crate::config::Cidr;

/// The image of a sidecar, unless another one is named: a placeholder.
pub const DEFAULT_IMAGE: &str = concat!("registry.example.com/pulsegate:", env!("CARGO_PKG_VERSION"));

/// The choices of an injection.
#[derive(Clone, Debug, Default)]
pub struct InjectOptions {
    /// The image of the sidecar.
    pub image: String,
    /// The Secret with the certificate; `None` is `pulsegate-tls`.
    pub tls_secret: Option<String>,
    /// The configuration; `None` makes one for the app's port.
    pub config: Option<ProxyFile>,
    /// The networks of the proxies that terminate TLS in front; `None` terminates it here. Not with `config`.
    pub plain: Option<Vec<Cidr>>,
    /// The app's port; `None` reads it from the manifest. Not with `config`.
    pub port: Option<u16>,
    /// The workloads to inject, as `NAME`, `KIND/NAME` or `NAMESPACE/NAME`; empty for all.
    pub only: Vec<String>,
    /// Whether an app's own preStop hook is kept, which must last as long as the drain.
    pub keep_pre_stop: bool,
}
