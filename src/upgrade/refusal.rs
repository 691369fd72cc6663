//! The refusal of an upgrade, with its status and its reason label.

use hyper::StatusCode;

use crate::upstream::{DialError, RequestFailure};

/// The reason for which an upgrade was refused.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeRefusal {
    /// The request is not a handshake by RFC 6455 §4.2.1.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The version is not 13 (RFC 6455 §4.4).
    #[error("only WebSocket version 13 is supported")]
    Version,
    /// The route does not allow the page's origin (RFC 6455 §10.2).
    #[error("origin {0} is not allowed")]
    Origin(Box<str>),
    /// The path can be interpreted in several ways, which lead to different routes.
    #[error("the path is ambiguous: it may belong to several routes")]
    Path,
    /// The open sessions hold more memory than `limits.memory`.
    #[error("sessions hold {held} bytes, more than {limit}")]
    Memory {
        /// The bytes held by all sessions.
        held: u64,
        /// The value of `limits.memory`, in bytes.
        limit: u64,
    },
    /// The proxy is shutting down.
    #[error("the proxy is shutting down")]
    Draining,
    /// The app sent no response.
    #[error(transparent)]
    Upstream(#[from] RequestFailure),
    /// The app's 101 violates RFC 6455 §4.1.
    #[error("{0}")]
    Switch(&'static str),
}

impl UpgradeRefusal {
    /// Returns the reason label of log lines and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Version => "version",
            Self::Origin(_) => "origin",
            Self::Path => "path",
            Self::Memory { .. } => "memory",
            Self::Draining => "draining",
            Self::Upstream(RequestFailure::Timeout { .. }) => "upstream_timeout",
            Self::Upstream(RequestFailure::Dial(DialError::Tls { .. }) | RequestFailure::Tls(_)) => "upstream_tls",
            Self::Upstream(RequestFailure::Dial(_)) => "upstream_unreachable",
            Self::Upstream(_) => "upstream_closed",
            Self::Switch(_) => "upstream_invalid",
        }
    }

    /// Returns the status of the response to the client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Path => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Draining | Self::Memory { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(failure) => failure.status(),
            Self::Switch(_) => StatusCode::BAD_GATEWAY,
        }
    }
}
