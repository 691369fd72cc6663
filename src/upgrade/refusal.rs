//! Why there is no session.

use hyper::StatusCode;

use crate::upstream::{DialError, Failure};

/// Why an upgrade was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a handshake as RFC 6455 §4.2.1 wants it.
    #[error("{0}")]
    BadRequest(&'static str),
    /// A version other than 13 (RFC 6455 §4.4).
    #[error("the only WebSocket version spoken is 13")]
    Version,
    /// A page of an origin that the route does not let in (RFC 6455 §10.2).
    #[error("origin {0} is not allowed")]
    Origin(Box<str>),
    /// Its path can be read in several ways, which lead to different routes.
    #[error("it cannot be told which route the path is for")]
    Path,
    /// The sessions that are open take more memory than they may.
    #[error("sessions hold {held} bytes, more than {limit}")]
    Memory {
        /// Bytes held by all sessions.
        held: u64,
        /// `limits.memory`.
        limit: u64,
    },
    /// The proxy shuts down.
    #[error("the proxy is shutting down")]
    Draining,
    /// The app gave no answer.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// The app's 101 breaks RFC 6455 §4.1.
    #[error("{0}")]
    Switch(&'static str),
}

impl Refusal {
    /// The word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Version => "version",
            Self::Origin(_) => "origin",
            Self::Path => "path",
            Self::Memory { .. } => "memory",
            Self::Draining => "draining",
            Self::Upstream(Failure::Timeout { .. }) => "upstream_timeout",
            Self::Upstream(Failure::Dial(DialError::Tls { .. }) | Failure::Tls(_)) => "upstream_tls",
            Self::Upstream(Failure::Dial(_)) => "upstream_unreachable",
            Self::Upstream(_) => "upstream_closed",
            Self::Switch(_) => "upstream_invalid",
        }
    }

    /// The status of the answer.
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
