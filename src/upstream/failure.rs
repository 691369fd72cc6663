//! Why an exchange with the app came to nothing.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;

use super::DialError;
use super::patience::TooSlow;

/// Why a request got no response from the app.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before the head of a response was complete.
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] hyper::Error),
    /// The app broke off the TLS that it had agreed to, as one does that misses a client certificate in TLS 1.3.
    #[error("the upstream broke off TLS before it answered")]
    Tls(#[source] hyper::Error),
    /// What came back is not an HTTP/1.1 response.
    #[error("the upstream's answer is not valid HTTP/1.1")]
    Invalid(#[source] hyper::Error),
    /// No head of a response in time.
    #[error("the upstream sent no response within {limit:?}")]
    Timeout {
        /// `upstream.response_timeout`.
        limit: Duration,
    },
    /// The client's own body broke off or was malformed; the app is not to blame.
    #[error("the client's request body is broken")]
    RequestBody(#[source] hyper::Error),
    /// The client's body trickled.
    #[error("the client's request body comes too slowly")]
    RequestBodyTimeout(#[source] hyper::Error),
}

impl Failure {
    pub(super) fn from_exchange(error: hyper::Error) -> Self {
        match error {
            error if error.is_user() && is_too_slow(&error) => Self::RequestBodyTimeout(error),
            error if error.is_user() => Self::RequestBody(error),
            error if error.is_parse() => Self::Invalid(error),
            error if is_of_tls(&error) => Self::Tls(error),
            error => Self::Closed(error),
        }
    }

    /// The word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Closed(_) => "closed",
            Self::Tls(_) => "upstream_tls",
            Self::Invalid(_) => "invalid_response",
            Self::Timeout { .. } => "response_timeout",
            Self::RequestBody(_) => "request_body",
            Self::RequestBodyTimeout(_) => "body_timeout",
        }
    }

    /// The status with which the client learns of it (RFC 9110 §15.5.9, §15.6.3, §15.6.5).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Dial(DialError::Timeout { .. }) | Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            Self::RequestBodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Dial(_) | Self::Closed(_) | Self::Tls(_) | Self::Invalid(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

fn is_too_slow(error: &hyper::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<TooSlow>)
}

/// Whether rustls is at the bottom of `error`: through a stream its errors travel inside [`io::Error`].
fn is_of_tls(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let inner = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.is_some()
}
