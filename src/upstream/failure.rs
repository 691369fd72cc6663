//! The errors of an exchange with the app.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;

use super::DialError;
use super::body_timeout::TooSlow;

/// The reason for which a request got no response from the app.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailure {
    /// No connection could be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before the head of the response was complete.
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] hyper::Error),
    /// The app ended TLS after the handshake, as one does that misses a client certificate in TLS 1.3.
    #[error("the upstream broke off TLS before it answered")]
    Tls(#[source] hyper::Error),
    /// The bytes received are not an HTTP/1.1 response.
    #[error("the upstream's answer is not valid HTTP/1.1")]
    Invalid(#[source] hyper::Error),
    /// The head of the response did not arrive in time.
    #[error("the upstream sent no response within {limit:?}")]
    Timeout {
        /// The value of `upstream.response_timeout`.
        limit: Duration,
    },
    /// The client's request body broke off or was malformed; the app is not at fault.
    #[error("the client's request body is broken")]
    RequestBody(#[source] hyper::Error),
    /// The client's request body arrived too slowly.
    #[error("the client's request body comes too slowly")]
    RequestBodyTimeout(#[source] hyper::Error),
}

impl RequestFailure {
    pub(super) fn from_exchange(error: hyper::Error) -> Self {
        match error {
            error if error.is_user() && is_too_slow(&error) => Self::RequestBodyTimeout(error),
            error if error.is_user() => Self::RequestBody(error),
            error if error.is_parse() => Self::Invalid(error),
            error if is_of_tls(&error) => Self::Tls(error),
            error => Self::Closed(error),
        }
    }

    /// Returns the reason label of log lines and metrics.
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

    /// Returns the status of the response to the client: 400, 408, 502 or 504 (RFC 9110 §15.5.1, §15.5.9, §15.6.3,
    /// §15.6.5).
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

/// Returns whether the innermost cause of `error` is one of rustls, which passes through the stream inside an
/// [`io::Error`].
fn is_of_tls(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let inner = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.is_some()
}
