//! The errors of requests to a running proxy; each text states fault, place and remedy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use humantime::format_duration;

use super::address::Address;
use super::location::AdminAddress;
use crate::tls::client::{ConnectorError, TrustError};

/// The reason for which a request failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum RemoteError {
    /// The configuration turns the listener off.
    #[error("`{key}` is \"off\"{}, so no address is known; {flag} names one", said_by(.file.as_ref()))]
    Off {
        /// The key that turns it off.
        key: &'static str,
        /// The file that was read.
        file: Option<PathBuf>,
        /// The flag that sets an address instead.
        flag: &'static str,
    },
    /// A configuration named by the user cannot be read, so the proxy's address is unknown.
    #[error("cannot read {}, so the proxy's address is unknown; -c names its configuration, {flag} the address itself", .file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// The flag that sets an address instead.
        flag: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is no such socket.
    #[error("there is no socket {place}: is pulsegate running here? {}", .place.remedy())]
    Absent {
        /// The address.
        place: Arc<AdminAddress>,
    },
    /// The unix socket's permissions refuse the user.
    #[error("may not open {place}: it belongs to the user that pulsegate runs as; be that user, as with `sudo -u`")]
    Denied {
        /// The address.
        place: Arc<AdminAddress>,
    },
    /// No process listens on the address.
    #[error("no process listens on {place}: is pulsegate running here? {}", .place.remedy())]
    Refused {
        /// The address.
        place: Arc<AdminAddress>,
    },
    /// The path belongs to a file that is not a socket.
    #[error("{place} is no socket; {}", .place.remedy())]
    NoSocket {
        /// The address.
        place: Arc<AdminAddress>,
    },
    /// The name does not resolve.
    #[error("cannot find the host of {place}")]
    Resolve {
        /// The address.
        place: Arc<AdminAddress>,
        /// The resolver's error.
        source: io::Error,
    },
    /// The connection failed for another reason.
    #[error("cannot connect to {place}")]
    Connect {
        /// The address.
        place: Arc<AdminAddress>,
        /// The operating system's error.
        source: io::Error,
    },
    /// The trusted authorities cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The TLS handshake failed.
    #[error("no TLS with {place}{}", tls_hint(.source))]
    Tls {
        /// The address.
        place: Arc<AdminAddress>,
        /// The error of the handshake.
        source: ConnectorError,
    },
    /// The token's file cannot be read.
    #[error("cannot read the token from {}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The token's file holds no valid token.
    #[error("{} holds no token: one line of visible ASCII characters is expected", .path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The API requires a token.
    #[error(
        "{place} requires a token: name the file that holds it with --token-file (`admin.token_file` of the proxy)"
    )]
    Unauthorized {
        /// The address.
        place: Arc<AdminAddress>,
    },
    /// The API refuses the token.
    #[error("{place} does not accept the token in {}: is it the one of the proxy's `admin.token_file`?", .file.display())]
    WrongToken {
        /// The address.
        place: Arc<AdminAddress>,
        /// The file that the token was read from.
        file: PathBuf,
    },
    /// The API refuses the request, with a text of its own.
    #[error("{message}")]
    Refusal {
        /// The code of the refusal.
        code: String,
        /// The text of the refusal.
        message: String,
    },
    /// The server is not a pulsegate's admin API.
    #[error("what answers on {place} is not a pulsegate's admin API: {what}{}", plain_hint(.place))]
    NotAdminApi {
        /// The address.
        place: Arc<AdminAddress>,
        /// The evidence.
        what: String,
    },
    /// The connection broke before the response was complete.
    #[error("the connection to {place} broke before the answer was complete")]
    Broken {
        /// The address.
        place: Arc<AdminAddress>,
        /// The error of the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The time limit passed.
    #[error("no answer from {place} within {}: the process may be stopped, or the machine overloaded", format_duration(*.time_limit))]
    Late {
        /// The address.
        place: Arc<AdminAddress>,
        /// The time limit.
        time_limit: Duration,
    },
}

impl RemoteError {
    /// Returns whether the error means that no process listens on the address.
    pub(in crate::cli) fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Refused { .. })
    }

    /// Returns whether a repeated request may succeed: the proxy was slow, or closed the connection.
    pub(in crate::cli) fn is_transient(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Late { .. })
    }

    /// Returns whether the error is the API's refusal with the code `word`.
    pub(in crate::cli) fn has_code(&self, word: &str) -> bool {
        matches!(self, Self::Refusal { code, .. } if code == word)
    }

    /// Classifies the error of a connect.
    pub(super) fn connect(place: &Arc<AdminAddress>, source: io::Error) -> Self {
        let place = Arc::clone(place);
        match source.kind() {
            io::ErrorKind::NotFound => Self::Absent { place },
            io::ErrorKind::PermissionDenied => Self::Denied { place },
            io::ErrorKind::ConnectionRefused if place.is_not_a_socket() => Self::NoSocket { place },
            // A unix socket's file may outlive its process.
            io::ErrorKind::ConnectionRefused => Self::Refused { place },
            _ => Self::Connect { place, source },
        }
    }

    /// Classifies the error of an exchange: no response, or one that is not HTTP.
    pub(super) fn exchange(place: &Arc<AdminAddress>, error: hyper::Error) -> Self {
        let place = Arc::clone(place);
        if error.is_parse() {
            Self::NotAdminApi { place, what: "it does not speak HTTP/1.1".to_owned() }
        } else {
            Self::Broken { place, source: error.into() }
        }
    }

    /// Returns the API's refusal with `status`, whose code and text are in `body`.
    pub(super) fn refusal(place: &Arc<AdminAddress>, status: StatusCode, body: &[u8]) -> Self {
        let parsed = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let word = |key: &str| parsed["error"][key].as_str().map(crate::cli::text::printable);
        match (word("code"), word("message")) {
            (Some(code), Some(message)) => Self::Refusal { code, message },
            _ => Self::NotAdminApi { place: Arc::clone(place), what: format!("it answers {status} without a reason") },
        }
    }
}

fn said_by(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!(" in {},", file.display()))
}

/// Returns the remedy of a handshake's error.
fn tls_hint(error: &ConnectorError) -> &'static str {
    match error {
        ConnectorError::UnknownAuthority => "; name the CA's certificate with --ca",
        error if error.is_wrong_name() => "; --server-name sets the name that it must have",
        ConnectorError::NotTls => "; an API without TLS is reached with http://",
        _ => "",
    }
}

/// Returns the remedy for a plain address: a TLS server responds to a plain request with an alert, which is not HTTP.
fn plain_hint(place: &AdminAddress) -> &'static str {
    match place.address {
        Address::Tcp { tls: false, .. } => "; with `admin.tls` it is reached with https://",
        _ => "",
    }
}
